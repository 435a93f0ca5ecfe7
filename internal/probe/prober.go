package probe

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Wire carries the probes. Receive returns at least every 100 ms.
type Wire interface {
	// Send sends the request of a path. A refused send is a lost probe: that is
	// what a user would see.
	Send(path int, seq uint64)
	// Receive waits for an answer.
	Receive() (path int, seq uint64, ok bool)
	// Request waits for a request at the far end, Reply answers the last one.
	Request() (path int, seq uint64, ok bool)
	Reply()
	// Ours reports whether there is a far end to wait at.
	Ours() bool
	Close() error
}

// Prober sends over all paths of a wire and remembers.
type Prober struct {
	wire  Wire
	now   func() time.Duration
	paths []path
	next  atomic.Int64
	stop  atomic.Bool
	wg    sync.WaitGroup
}

// path is the memory of one path, by number of the probe. Stamps are
// nanoseconds; 0 means not yet.
type path struct {
	sent, arrived, answered []atomic.Int64
	arrivals, answers       []atomic.Uint32
}

// Start starts probing over n paths, for as long as the limit at most. The wire
// is closed by Stop. now is the clock of all stamps.
func Start(w Wire, n int, limit time.Duration, now func() time.Duration) *Prober {
	p := &Prober{wire: w, now: now, paths: make([]path, n)}
	size := int(limit / Interval)
	for i := range p.paths {
		p.paths[i] = path{
			make([]atomic.Int64, size), make([]atomic.Int64, size), make([]atomic.Int64, size),
			make([]atomic.Uint32, size), make([]atomic.Uint32, size),
		}
	}
	if w.Ours() {
		p.wg.Go(p.answer)
	}
	p.wg.Go(p.receive)
	p.wg.Go(p.send)
	return p
}

// OwnThread keeps the goroutine on a thread that is preferred to the load: it
// works for a few microseconds at a time, and a late probe measures the rig. It
// comes before the real-time threads of what is measured, too: else a system that
// has one would have its runs rejected. Where real-time threads are not allowed,
// the stalls show it.
func OwnThread() {
	runtime.LockOSThread() // for good: the thread's priority must not leak
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 90,
	}, 0)
}

// send sends on an absolute schedule: being late once does not shift the rest.
func (p *Prober) send() {
	OwnThread()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // cannot fail with a valid clock
	}
	due := ts.Nano()
	for seq := range p.paths[0].sent {
		if p.stop.Load() {
			return
		}
		due += int64(Interval)
		ts = unix.NsecToTimespec(due)
		for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil) == unix.EINTR {
		}
		for i := range p.paths {
			p.paths[i].sent[seq].Store(int64(p.now()))
			p.wire.Send(i, uint64(seq))
		}
		p.next.Store(int64(seq) + 1)
	}
}

func (p *Prober) receive() {
	OwnThread()
	for !p.stop.Load() {
		if i, seq, ok := p.wire.Receive(); ok && i < len(p.paths) {
			note(p.paths[i].answered, p.paths[i].answers, seq, p.now())
		}
	}
}

// answer is the far end.
func (p *Prober) answer() {
	OwnThread()
	for !p.stop.Load() {
		if i, seq, ok := p.wire.Request(); ok && i < len(p.paths) {
			note(p.paths[i].arrived, p.paths[i].arrivals, seq, p.now())
			p.wire.Reply()
		}
	}
}

// note remembers when a probe was first heard, and that it was heard once more.
func note(at []atomic.Int64, count []atomic.Uint32, seq uint64, now time.Duration) {
	if seq < uint64(len(at)) {
		at[seq].CompareAndSwap(0, int64(now))
		count[seq].Add(1)
	}
}

// Shots returns the probes of a path that were sent from one instant to another.
func (p *Prober) Shots(i int, from, to time.Duration) []Shot {
	var s []Shot
	m := &p.paths[i]
	for k := range p.next.Load() {
		sent := time.Duration(m.sent[k].Load())
		if sent < from || sent >= to {
			continue
		}
		s = append(s, Shot{
			Sent: sent, Arrived: time.Duration(m.arrived[k].Load()), Answered: time.Duration(m.answered[k].Load()),
			Arrivals: int(m.arrivals[k].Load()), Answers: int(m.answers[k].Load()),
		})
	}
	return s
}

// AnsweredSince reports whether on every path a probe that was sent at or after
// the instant has been answered.
func (p *Prober) AnsweredSince(at time.Duration) bool {
	for i := range p.paths {
		if !p.paths[i].answeredSince(at, p.next.Load()) {
			return false
		}
	}
	return true
}

func (m *path) answeredSince(at time.Duration, next int64) bool {
	for k := next - 1; k >= 0 && time.Duration(m.sent[k].Load()) >= at; k-- {
		if m.answered[k].Load() != 0 {
			return true
		}
	}
	return false
}

// Stop ends the probing.
func (p *Prober) Stop() error {
	p.stop.Store(true)
	p.wg.Wait()
	if err := p.wire.Close(); err != nil {
		return fmt.Errorf("close the sockets of the probe: %w", err)
	}
	return nil
}

// payload is what a probe carries: its path and its number.
const payloadLen = 16

func putPayload(b []byte, path int, seq uint64) {
	binary.BigEndian.PutUint64(b, uint64(path))
	binary.BigEndian.PutUint64(b[8:], seq)
}

func payload(b []byte) (path int, seq uint64, ok bool) {
	if len(b) != payloadLen {
		return 0, 0, false
	}
	i := binary.BigEndian.Uint64(b)
	return int(i & 0xff), binary.BigEndian.Uint64(b[8:]), i <= 0xff
}
