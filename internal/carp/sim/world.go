package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// kind is what an event is about.
type kind uint8

const (
	evFrame kind = iota // a frame reaches a station
	evSync              // a message of the sync channel reaches a node
	evTick              // a station's timer
	evBeat              // a node tells its peers over the sync channel
	evDo                // anything else
)

// event is something that happens at an instant.
type event struct {
	at   time.Duration // since the start of the world
	kind kind
	to   int // station
	from int
	b    []byte
	says *says
	do   func()
}

// turn is an event's place in the heap. It has no pointers, for it is moved
// about a lot.
type turn struct {
	at    time.Duration
	order uint64 // of making: events of one instant happen in it
	event int    // index
}

// world is one simulated segment with its nodes, its sync channel and its time.
// It does nothing but what its seed says.
type world struct {
	sc    *Scenario
	rng   *rand.Rand
	now   time.Duration
	heap  []turn
	order uint64
	event []event
	free  []int // of them
	count int   // events so far

	stations []station
	nodes    []*node // the first stations
	cutCarp  [][]int // by sender and receiver: how many reasons there are not to deliver
	cutSync  [][]int
	loss     float64
	dup      float64
	delay    time.Duration // at most, of a frame
	mac      int           // where the switch sends what is for the virtual MAC
	calm     bool          // the chaos is over
	attack   *attacker
	check    checker
	trace    io.Writer // nil: none
}

// station is what is plugged into the segment: a node of ours or a foreign one.
type station interface {
	hear(b []byte)
	tick()
	connected() bool
	acting() bool
}

// later makes something happen after d.
func (w *world) later(d time.Duration, do func()) {
	w.push(event{at: w.now + d, kind: evDo, do: do})
}

// push and pop are those of a binary heap, without interfaces: there are
// thousands of events in a world, and thousands of worlds.
func (w *world) push(e event) {
	if len(w.free) == 0 {
		w.free = append(w.free, len(w.event))
		w.event = append(w.event, event{})
	}
	at := w.free[len(w.free)-1]
	w.free = w.free[:len(w.free)-1]
	w.event[at] = e
	w.order++
	h := append(w.heap, turn{e.at, w.order, at})
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if h[up].before(&h[i]) {
			break
		}
		h[up], h[i] = h[i], h[up]
		i = up
	}
	w.heap = h
}

func (w *world) pop() event {
	h := w.heap
	top := h[0].event
	last := len(h) - 1
	h[0] = h[last]
	h = h[:last]
	for i := 0; ; {
		down := 2*i + 1
		if down >= last {
			break
		}
		if down+1 < last && h[down+1].before(&h[down]) {
			down++
		}
		if h[i].before(&h[down]) {
			break
		}
		h[i], h[down] = h[down], h[i]
		i = down
	}
	w.heap = h
	e := w.event[top]
	w.event[top] = event{}
	w.free = append(w.free, top)
	return e
}

func (t *turn) before(o *turn) bool { return t.at < o.at || t.at == o.at && t.order < o.order }

// run lets everything happen until an instant, or until a rule is broken.
func (w *world) run(until time.Duration) {
	for len(w.heap) > 0 && w.heap[0].at <= until && w.check.broken == nil {
		e := w.pop()
		w.now = e.at
		w.count++
		switch e.kind {
		case evFrame:
			if s := w.stations[e.to]; s.connected() {
				s.hear(e.b)
			}
		case evSync:
			w.nodes[e.to].hearSync(e.from, e.says)
		case evTick:
			w.stations[e.to].tick()
		case evBeat:
			w.nodes[e.to].beat()
		case evDo:
			e.do()
		}
		w.check.each(w)
	}
	w.now = max(w.now, until)
}

// line writes a line of the trace.
func (w *world) line(who, format string, args ...any) {
	if w.trace != nil {
		fmt.Fprintf(w.trace, "%12.6f %-8s %s\n", w.now.Seconds(), who, fmt.Sprintf(format, args...))
	}
}

// chance is true with the given probability.
func (w *world) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// between is a duration from a to b.
func (w *world) between(a, b time.Duration) time.Duration {
	return between(w.rng, a, b)
}

func between(r *rand.Rand, a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(r.Int64N(int64(b-a)))
}

// send carries a frame to everybody else on the segment.
func (w *world) send(from int, b []byte, virtual bool) {
	if !w.stations[from].connected() {
		return
	}
	if virtual {
		w.mac = from
	}
	w.attack.capture(from, b)
	for to := range w.stations {
		if to != from || w.sc.Echo {
			w.deliver(from, to, b)
		}
	}
}

// deliver carries a frame to one station, or not, or twice.
func (w *world) deliver(from, to int, b []byte) {
	copies := 1
	if w.chance(w.dup) {
		copies = 2
	}
	for range copies {
		if w.cutCarp[from][to] > 0 || w.chance(w.loss) {
			continue
		}
		w.push(event{at: w.now + w.between(20*time.Microsecond, w.delay), kind: evFrame, to: to, from: from, b: b})
	}
}

// cut adds (by = 1) or takes away (by = -1) one reason not to deliver.
func (w *world) cut(carp, sync bool, from, to, by int) {
	if carp {
		w.cutCarp[from][to] += by
	}
	if sync {
		w.cutSync[from][to] += by
	}
}
