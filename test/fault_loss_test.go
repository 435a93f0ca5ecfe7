package test

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/nstest"
)

// A segment is a LAN in virtual time: machines and guards as in the daemon, and a
// fate for every frame.
type segment struct {
	t     *testing.T
	now   time.Duration
	nodes []*simulated
	queue deliveries
	fate  func(from, to int) []time.Duration // when copies of a frame arrive; none: it is lost
}

type simulated struct {
	carp    *carp.Machine
	guard   *carp.Guard
	clock   time.Duration // what its boot clock shows when the segment begins
	from    netip.Addr
	changes []string // of its state, with the segment's time
	masters int      // how often it became MASTER because the other one was silent
	adverts int
}

type delivery struct {
	at    time.Duration
	to    int
	frame []byte
}

type deliveries []delivery

func (d deliveries) Len() int           { return len(d) }
func (d deliveries) Less(i, j int) bool { return d[i].at < d[j].at }
func (d deliveries) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *deliveries) Push(x any)        { *d = append(*d, x.(delivery)) }
func (d *deliveries) Pop() any {
	last := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return last
}

// newSegment makes a node for each advskew, with a clock of its own each.
func newSegment(t *testing.T, skews []uint8, clocks []time.Duration) *segment {
	s := &segment{t: t}
	for i, skew := range skews {
		addr := []netip.Addr{shared4}
		id := uint64(0x1000*i + 2)
		n := &simulated{
			carp: carp.NewMachine(carp.Config{VHID: lanVHID, AdvBase: 1, AdvSkew: skew, Preempt: true, Node: id, Trailer: true, Counter: carp.CounterBlock}),
			guard: carp.NewGuard(carp.GuardConfig{
				VHID: lanVHID, Key: carp.NewKey(derived(lanVHID), lanVHID, addr, carp.OpenBSD), Auth: carp.Enforce,
				Keys: []*carp.TrailerKey{carp.NewTrailerKey(testSecret, "lan", lanVHID)}, Send: true,
				Node: id, Epoch: 1, Forget: 10 * time.Second,
			}),
			clock: clocks[i],
			from:  netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + i)}),
		}
		s.nodes = append(s.nodes, n)
		s.do(i, func(m *carp.Machine, now time.Time) carp.Effects { return m.Link(now, true) })
	}
	return s
}

// do calls one verb of a node's machine and carries out what it wants.
func (s *segment) do(i int, verb func(*carp.Machine, time.Time) carp.Effects) {
	n := s.nodes[i]
	now := carp.BootTime(n.clock + s.now)
	from := n.carp.State()
	e := verb(n.carp, now)
	if to := n.carp.State(); to != from {
		n.changes = append(n.changes, fmt.Sprintf("%v %v", s.now, to))
		if to == carp.Master && e.Reason == "master timed out" {
			n.masters++
		}
	}
	if e.Advert == nil {
		return
	}
	n.adverts++
	frame := carp.AppendFrame(nil, carp.VirtualMAC(lanVHID), n.from, n.guard.Sign(nil, e.Advert, n.carp.Term()))
	for to := range s.nodes {
		if to == i {
			continue
		}
		for _, delay := range s.fate(i, to) {
			heap.Push(&s.queue, delivery{s.now + delay, to, frame})
		}
	}
	s.do(i, func(m *carp.Machine, now time.Time) carp.Effects { return m.Sent(now, now, nil) })
}

// run lets the time pass. what is asked after each event; nil for nothing.
func (s *segment) run(until time.Duration, what func()) {
	for {
		at, who := until, -1
		for i, n := range s.nodes {
			if d, ok := n.carp.Deadline(); ok {
				if due := max(carp.SinceBoot(d)-n.clock, s.now); due < at {
					at, who = due, i
				}
			}
		}
		if len(s.queue) > 0 && s.queue[0].at <= at && s.queue[0].at < until {
			d := heap.Pop(&s.queue).(delivery)
			s.now = max(s.now, d.at)
			s.receive(d)
		} else if who >= 0 {
			s.now = at
			s.do(who, (*carp.Machine).Tick)
		} else {
			s.now = until
			return
		}
		if what != nil {
			what()
		}
	}
}

func (s *segment) receive(d delivery) {
	n := s.nodes[d.to]
	r, why := carp.ParseFrame(d.frame)
	if why != carp.Accepted {
		s.t.Fatalf("a frame of ours is refused: %v", why)
	}
	if v := n.guard.Judge(carp.BootTime(n.clock+s.now), &r); v.Why == carp.Accepted {
		v.Own = n.from
		s.do(d.to, func(m *carp.Machine, now time.Time) carp.Effects { return m.Receive(now, v.Heard) })
	}
}

// mute takes a node off the segment for good.
func (s *segment) mute(i int) {
	s.do(i, func(m *carp.Machine, now time.Time) carp.Effects { return m.Link(now, false) })
}

func promptly(int, int) []time.Duration { return []time.Duration{time.Millisecond} }

// The clocks of the members have nothing to do with each other, and no member with
// the wall clock: the same things happen at the same instants.
func TestFault20_ClocksApart(t *testing.T) {
	t.Parallel()
	story := func(clocks ...time.Duration) (all []string) {
		s := newSegment(t, []uint8{0, 100}, clocks)
		s.fate = promptly
		s.run(20*time.Second, nil)
		s.mute(0)
		s.run(40*time.Second, nil)
		s.do(0, func(m *carp.Machine, now time.Time) carp.Effects { return m.Link(now, true) })
		s.run(60*time.Second, nil)
		for i, n := range s.nodes {
			for _, c := range n.changes {
				all = append(all, fmt.Sprintf("node %d %s", i, c))
			}
		}
		return all
	}
	want := story(0, 0)
	if n := len(want); n < 8 {
		t.Fatalf("the story has %d changes only: %v", n, want)
	}
	const year = 365 * 24 * time.Hour
	for _, clocks := range [][]time.Duration{{30 * time.Second, 0}, {0, 30 * time.Second}, {0, time.Hour}, {10 * year, 0}, {0, 10 * year}} {
		if got := story(clocks...); !slices.Equal(got, want) {
			t.Errorf("clocks %v apart:\n got %v\nwant %v", clocks, got, want)
		}
	}
	figure(t, "30 s, 1 h, 10 years apart", "the same %d changes at the same µs: takeover %s", len(want), strings.TrimPrefix(want[len(want)-3], "node "))
}

// On a LAN that loses, delays, repeats and reorders, a backup takes over no more
// often than three adverts in a row get lost; and when it is whole again, there is
// one master at once.
func TestFault56_LossDelayDuplicationReordering(t *testing.T) {
	t.Parallel()
	spurious := 30 * time.Minute * 24
	healings := 200
	if long() {
		spurious *= 20
		healings *= 20
	}
	for _, loss := range []float64{0.1, 0.2, 0.3, 0.5} {
		t.Run(fmt.Sprintf("%.0f %%", 100*loss), func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 0))
			delay := func() time.Duration { return time.Duration(r.Int64N(int64(300 * time.Millisecond))) }
			bad := func(from, _ int) (at []time.Duration) {
				if from == 0 && r.Float64() < loss { // one way only
					return nil
				}
				at = append(at, delay())
				if r.Float64() < 0.05 {
					at = append(at, delay())
				}
				return at
			}
			s := newSegment(t, []uint8{0, 100}, []time.Duration{0, time.Hour})
			s.fate = bad
			s.run(spurious, nil)
			a, b := s.nodes[0], s.nodes[1]
			bound := float64(a.adverts) * math.Pow(loss, 3)
			if limit := bound + 4*math.Sqrt(bound) + 1; float64(b.masters) > limit {
				t.Errorf("%d takeovers beside a master that lives in %d adverts, want p³ of them or fewer: %.0f", b.masters, a.adverts, bound)
			}
			figure(t, "takeovers from a living master", "%d in %d adverts, bound p³: %.0f", b.masters, a.adverts, bound)

			var worst time.Duration
			for range healings {
				s := newSegment(t, []uint8{0, 100}, []time.Duration{0, time.Hour})
				s.fate = bad
				healed := 30*time.Second + delay()
				s.run(healed, nil)
				s.fate = promptly
				var last time.Duration
				s.run(healed+60*time.Second, func() {
					if s.nodes[0].carp.State() != carp.Master || s.nodes[1].carp.State() != carp.Backup {
						last = s.now
					}
				})
				worst = max(worst, last-healed)
			}
			if limit := 4 * carp.Interval(1, 100); worst > limit {
				t.Errorf("one master %v after the heal, want %v at most", worst, limit)
			}
			figure(t, "one master again", "after %v at most in %d heals, bound 4 intervals: %v", worst.Round(time.Millisecond), healings, 4*carp.Interval(1, 100))
		})
	}
	t.Run("real pair, 50 %", func(t *testing.T) {
		t.Parallel()
		p := newPair(t)
		p.calm()
		w := newWatch(t, p.a, p.b)
		p.filter("ip protocol 112 numgen random mod 2 == 0 counter drop; ip6 nexthdr 112 numgen random mod 2 == 0 counter drop", p.a.lanPort, p.a.wanPort)
		lasts := 8 * time.Second
		if long() {
			lasts = 5 * time.Minute
		}
		wait(t, lasts)
		w.unmoved(int(lasts.Seconds())) // the sync link says that the master lives
		p.unfilter()
		p.settled(12 * time.Second)
		nstest.Eventually(t, 12*time.Second, "no split", func() bool { return !p.b.group("lan").Split })
		w.unmoved(int(lasts.Seconds()) + 10)
	})
}
