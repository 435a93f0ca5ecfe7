package daemon

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	stdsync "sync"
	"sync/atomic"
	"time"
	"unsafe"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/carp/group"
	"github.com/xcarp/xcarp/internal/loader"
)

const (
	// pulseIdle is how often is asked where nothing hangs on the answer: by a
	// master, and after a Watch has stepped back to CARP's timers.
	pulseIdle = 150 * time.Millisecond

	// pulseSlowest is the same in a flood that makes every send slow.
	pulseSlowest = 600 * time.Millisecond

	// pulseAgain is how often the same thing is told to a group.
	pulseAgain = time.Millisecond

	// A claim is sent anew every claimEvery; until claimSoon its answer is looked
	// for every claimLook. Claims of a bundle wait claimSoon for each other.
	claimEvery = time.Millisecond
	claimSoon  = 3 * time.Millisecond
	claimLook  = 100 * time.Microsecond

	// A silent peer that we replaced is asked and claimed from as often as a master is
	// watched, for fenceFor; at the idle pace after that.
	// No more groups at a time, in turn.
	fenceFor  = 15 * time.Second
	fenceMost = 4

	// overslept is how late the thread may be and still believe that a peer's daemon hangs.
	overslept = 50 * time.Millisecond

	// realtime is the priority of the sender thread, among those of SCHED_FIFO.
	realtime = 50

	// leastProcs is how many goroutines may run at least: on one CPU, this thread beside
	// an ordinary one. More than there are CPUs would be looking for work all the time,
	// and in a flood each look is charged a part of it. One that starves holds its place;
	// in five minutes of flood on two CPUs this thread never waited 150 ms all the same.
	leastProcs = 2
)

// pulsePlan is whom the thread asks, on which ways. It is replaced as a whole.
type pulsePlan struct {
	lines   []*line
	watched []*watched
	peers   []*planPeer
}

type planPeer struct {
	name    string
	watched []*watched
}

// line is a device and the peer behind it. One ask at a time says for all groups
// there that the peer is reached.
type line struct {
	dev   pulseDev
	peer  string
	way   carp.Path
	asks  []*askee
	turn  int
	pace  time.Duration // between two asks, as of now
	goes  bool          // is asked now
	next  time.Time
	nonce uint64
}

// askee is a group of a peer, on one way.
type askee struct {
	watched  *watched
	line     *line
	way      carp.Path
	path     loader.Path
	key      carp.PulseKey
	pulse    carp.Pulse
	dst, src carp.MAC
	asked    uint64 // the newest nonce
	seen     uint64 // that of the newest answer
}

// pulseThread is the one thread that asks, looks and acts: nothing that it does waits
// for another goroutine, a log or a disk.
type pulseThread struct {
	d    *Daemon
	log  *zap.Logger
	plan atomic.Pointer[pulsePlan]
	down atomic.Bool // the sync device has no carrier
	wake int         // eventfd

	mu     stdsync.Mutex
	claims map[*member]carp.Claim // under way, by their groups' word
	takes  []take

	// The thread's own, but for what cost says.
	sockets map[int]int // by ifindex
	running map[*member]*claimRun
	said    map[*member]time.Time // when it was last said that a claim waits in vain
	follows map[*member]bool      // asked to follow a claim: is that a planned one?
	frame   []byte
	all     *cpus
	cost    sendCost
	held    time.Duration // by the slowest send of a round

	sustained time.Time
	pulsing   map[*member]bool
	unheard   map[*member]bool
}

// take is a handover by a peer.
type take struct {
	peer   string
	groups []string
}

func newPulseThread(d *Daemon) (*pulseThread, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	t := &pulseThread{
		d: d, log: d.log, wake: fd, claims: map[*member]carp.Claim{},
		sockets: map[int]int{}, running: map[*member]*claimRun{}, follows: map[*member]bool{}, said: map[*member]time.Time{}, pulsing: map[*member]bool{}, unheard: map[*member]bool{},
	}
	t.all = newCPUs(t.Wake)
	t.cost.cpus = t.all
	t.plan.Store(&pulsePlan{})
	return t, nil
}

// Close lets go of what the thread used; it has ended.
func (t *pulseThread) Close() error {
	errs := []error{unix.Close(t.wake)}
	for _, fd := range t.sockets {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}

// Wake makes the thread look at once. The caller keeps its place among the goroutines:
// that takes no time, and who moves this thread must not wait for another.
func (t *pulseThread) Wake() {
	one := [8]byte{1}
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(t.wake), uintptr(unsafe.Pointer(&one)), uintptr(len(one))) // it can only be awake already
}

// Follow gives the thread another plan.
func (t *pulseThread) Follow(p *pulsePlan) {
	t.plan.Store(p)
	t.Wake()
}

// Claim is a group's word about its claim; see group.Config.OnClaim.
func (t *pulseThread) Claim(m *member, c carp.Claim, claiming bool) {
	t.mu.Lock()
	if claiming {
		t.claims[m] = c
	} else {
		delete(t.claims, m)
	}
	t.mu.Unlock()
	t.Wake()
}

// Take tells that a peer hands groups over to this node.
func (t *pulseThread) Take(peer string, groups []string) {
	t.mu.Lock()
	if len(t.takes) < 16 { // what is lost is said again
		t.takes = append(t.takes, take{peer, groups})
	}
	t.mu.Unlock()
	t.Wake()
}

// Run is the thread. It never gives its thread back: nobody else shall have the
// priority.
func (t *pulseThread) Run(ctx context.Context) {
	runtime.LockOSThread()
	if err := preferred(); err != nil {
		t.log.Info("the sender of pulses runs without real-time priority", zap.Error(err))
		t.cost.off = true // a send is slow whenever another thread is due
	}
	if runtime.GOMAXPROCS(0) < leastProcs {
		runtime.GOMAXPROCS(leastProcs)
	}
	t.all.sender = unix.Gettid()
	var mover stdsync.WaitGroup
	mover.Go(func() { t.all.Run(ctx) })
	defer mover.Wait()
	stop := context.AfterFunc(ctx, t.Wake)
	defer stop()
	planned, pace := group.BootClock(), carp.DetectDefault.Interval
	for ctx.Err() == nil {
		now := group.BootClock()
		p := t.plan.Load()
		t.read(p)
		if late := now.Sub(planned); late > pace {
			for _, w := range p.watched {
				if w.watch.Late(); late > overslept {
					w.watch.Slept(now)
				}
			}
		}
		t.sustain(now)
		t.act(p, now)
		t.gaveWay(p)
		pace = t.ask(p, now)
		claiming := t.claim(p, now)
		if t.held > 0 {
			for _, w := range p.watched {
				w.watch.Stalled(now, t.held)
			}
			t.held = 0
		}
		planned = t.next(p, now, claiming)
		if t.sleep(planned) {
			planned = group.BootClock()
		}
	}
}

// sleep waits until then, and reports whether it was woken before.
func (t *pulseThread) sleep(until time.Time) bool {
	left := max(until.Sub(group.BootClock()), 0)
	fds := []unix.PollFd{{Fd: int32(t.wake), Events: unix.POLLIN}}
	ts := unix.NsecToTimespec(int64(left))
	n, err := unix.Ppoll(fds, &ts, nil)
	if n <= 0 {
		return err != nil // a signal
	}
	var b [8]byte
	_, _ = unix.Read(t.wake, b[:])
	return true
}

// next returns when something is due again.
func (t *pulseThread) next(p *pulsePlan, now time.Time, claiming bool) time.Time {
	at := t.sustained.Add(sustainEvery)
	sooner := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	for _, l := range p.lines {
		sooner(l.next)
	}
	for _, w := range p.watched {
		if t, ok := w.watch.Wait(now); ok {
			sooner(t)
		}
	}
	if claiming {
		look := claimEvery
		for _, c := range t.running {
			if now.Sub(c.begun) < claimSoon {
				look = claimLook
			}
		}
		sooner(now.Add(look))
	}
	return at
}

// read takes the answers that have come.
func (t *pulseThread) read(p *pulsePlan) {
	for _, l := range p.lines {
		for _, a := range l.asks {
			if a.asked <= a.seen {
				continue
			}
			h, ok := a.path.Last()
			if !ok || h.Nonce <= a.seen {
				continue
			}
			a.seen = h.Nonce
			asked := carp.BootTime(time.Duration(h.Nonce))
			said := carp.Answer{State: h.Role, Demotion: h.Demotion, Age: h.Age, Term: h.Term, Lease: h.Lease, Challenge: h.Challenge}
			for _, other := range l.asks {
				about := &said
				if other != a {
					about = nil
				}
				other.watched.watch.Answered(l.way, asked, h.At, about)
			}
		}
	}
}

// ask sends what is due, and returns the shortest time between two asks.
func (t *pulseThread) ask(p *pulsePlan, now time.Time) time.Duration {
	slowed := t.cost.pace(now, len(p.lines))
	shortest := max(pulseIdle, slowed)
	for _, w := range p.watched {
		w.watch.Slow(slowed)
	}
	for _, l := range p.lines {
		l.pace = l.paceAt(now, slowed)
	}
	p.turns(now, slowed > 0)
	for _, l := range p.lines {
		if !l.goes {
			shortest = min(shortest, max(l.next.Sub(now), carp.DetectFast.Interval))
			continue
		}
		shortest = min(shortest, l.pace)
		a := l.asks[l.turn%len(l.asks)]
		l.turn++
		sent, at := t.send(a, a.pulse)
		for _, other := range l.asks {
			other.watched.watch.Asked(l.way, at, sent)
		}
		for k := range min(fenceMost, len(l.asks)) {
			t.fence(l.asks[(l.turn+k)%len(l.asks)])
		}
	}
	return shortest
}

// paceAt is how often the line is asked, if at all lines it is slowed so much.
func (l *line) paceAt(now time.Time, slowed time.Duration) time.Duration {
	pace, drains := pulseIdle, false // a node that drains waits for the claimant's word
	for _, a := range l.asks {
		s := a.watched.stands()
		drains = drains || s == carp.Drain
		if s == carp.Backup || s == carp.Drain {
			if d := a.watched.watch.Pace(now); d > 0 {
				pace = min(pace, d)
			}
		}
		if a.watched.isBehind(now) && now.Sub(a.watched.behind) < fenceFor {
			pace = min(pace, carp.DetectDefault.Interval)
		}
	}
	if !drains {
		pace = max(pace, slowed)
	}
	return pace
}

// turns finds the lines that are asked now, and when they are to be again. If asks are
// slowed, those that are due soon go with one that is: the thread wakes up less.
func (p *pulsePlan) turns(now time.Time, slowed bool) {
	one := false
	for _, l := range p.lines {
		left := l.next.Sub(now)
		l.goes = left <= 0 || left > l.pace // it was planned at a slower pace
		one = one || l.goes
	}
	for _, l := range p.lines {
		left := l.next.Sub(now)
		if l.goes = l.goes || one && slowed && left <= l.pace/2; !l.goes {
			continue
		}
		if l.next = l.next.Add(l.pace); left > 0 || !l.next.After(now) {
			l.next = now.Add(l.pace)
		}
	}
}

// fence claims the term that we have from a peer that is behind. It may be silent
// because it was paused with its clock, and its lease with that: the claims wait in its
// queue, before those who ask it for the shared addresses. Of two halves of a network
// that is whole again, the earlier master stops at once.
func (t *pulseThread) fence(a *askee) {
	if a.watched.behind.IsZero() {
		return
	}
	_, term := a.watched.member.group.Stands()
	answer, _ := a.watched.watch.Last()
	pulse := a.pulse
	pulse.Kind, pulse.Term, pulse.Challenge = carp.PulseClaim, term, answer.Challenge
	if _, at := t.send(a, pulse); a.watched.fenced == 0 {
		a.watched.fenced = uint64(carp.SinceBoot(at))
	}
}

// gaveWay lets our groups speak whose earlier master has acknowledged that it is no more.
func (t *pulseThread) gaveWay(p *pulsePlan) {
	for _, w := range p.watched {
		for _, a := range w.ways {
			if a == nil || w.fenced == 0 {
				continue
			}
			if h, ok := a.path.Claimed(); ok && h.Kind == carp.PulseAck && h.Nonce >= w.fenced {
				w.fenced = 0
				w.member.group.Do((*carp.Machine).Reassert)
			}
		}
	}
}

// act judges every peer, and tells the groups what follows.
func (t *pulseThread) act(p *pulsePlan, now time.Time) {
	up := !t.down.Load()
	on := map[*member]bool{}
	for _, w := range p.watched {
		w.watch.Carrier(carp.PathSync, now, up)
		w.last = w.watch.Judge(now)
		w.show()
		switch {
		case w.last.Stale:
			on[w.member] = on[w.member] || t.pulsing[w.member]
		case w.last.Master && w.last.Silence != carp.Unwatched && w.last.Silence != carp.Gone:
			on[w.member] = true
		}
	}
	var moves []group.Move
	for _, w := range p.watched {
		if m := w.member; t.pulsing[m] != on[m] {
			pulsing := on[m]
			t.pulsing[m] = pulsing
			moves = append(moves, group.Move{Group: m.group, Verb: func(m *carp.Machine, now time.Time) carp.Effects {
				m.Pulses(pulsing)
				return m.Tick(now)
			}})
		}
	}
	if len(moves) > 0 {
		group.Together(moves)
	}
	for _, w := range p.watched {
		w.vouched()
	}
	t.handedOver(p, now)
	for _, peer := range p.peers {
		t.judged(peer, now)
	}
}

// judged acts on what the silence of one peer means. Its groups move together: the
// decision is about the node, once it is silent on every way.
func (t *pulseThread) judged(peer *planPeer, now time.Time) {
	lives := slices.ContainsFunc(peer.watched, func(w *watched) bool {
		return w.last.Silence == carp.Lives || w.last.Silence == carp.Hung || w.last.Stale
	})
	var moves []group.Move
	var gone []*watched
	for _, w := range peer.watched {
		f := w.last
		doubt := f.Silence == carp.CutOff || f.Silence == carp.Doubt
		w.hung = w.hung && f.Silence == carp.Hung
		if !f.Master || f.Silence == carp.Unwatched || f.Stale {
			continue
		}
		if f.Silence == carp.Lives && !f.Unheard {
			if t.unheard[w.member] {
				delete(t.unheard, w.member)
				w.member.group.Do(func(m *carp.Machine, now time.Time) carp.Effects { m.Doubt(false); return m.Tick(now) })
			}
			continue
		}
		if w.stands() != carp.Backup || !w.news(f.Silence, now) {
			continue
		}
		answer, _ := w.watch.Last()
		var verb group.Verb
		switch {
		case f.Silence == carp.Gone && !lives:
			gone = append(gone, w)
			reason := fmt.Sprintf("master is silent: %d pulses unanswered, nothing heard for %v", f.Missed, now.Sub(f.Heard).Round(10*time.Microsecond))
			if f.Carrier {
				reason += ", the sync device lost its carrier"
			}
			verb = func(m *carp.Machine, now time.Time) carp.Effects { return m.Silent(now, answer.Term, reason) }
		case f.Silence == carp.Hung:
			reason := fmt.Sprintf("the master's daemon has given no sign of life for %v", answer.Age)
			verb = func(m *carp.Machine, now time.Time) carp.Effects { return m.Claim(now, reason) }
			w.hung = true
		case doubt:
			verb = (*carp.Machine).CutOff
		}
		if f.Silence == carp.Lives || doubt {
			t.tellUnheard(w)
		}
		if verb != nil {
			w.acted, w.actedOn = now, f.Silence
			moves = append(moves, group.Move{Group: w.member.group, Verb: verb, Pulses: group.Pulses{
				Heard: now.Sub(f.Heard), Limit: f.Limit, Missed: f.Missed, Reflection: w.watch.Slowest(carp.PathCarpdev),
			}})
		}
	}
	if len(moves) > 0 {
		group.Together(moves)
	}
	for _, w := range gone {
		if w.stands() != carp.Master {
			continue
		}
		w.watch.TookOver(now)
		for _, a := range w.ways {
			if a != nil {
				a.line.next = time.Time{} // the fence goes up at once
			}
		}
	}
}

// tellUnheard tells the master that it is not heard on the carpdev, and looks who it
// is that hears nobody.
func (t *pulseThread) tellUnheard(w *watched) {
	if t.unheard[w.member] {
		return
	}
	t.unheard[w.member] = true
	w.member.group.Do(func(m *carp.Machine, now time.Time) carp.Effects { m.Doubt(true); return m.Tick(now) })
	t.d.mirror.Tell(w.peer, appendNames(tellUnheard, []string{w.member.cfg.Name})[0])
	w.member.dev.ears.Hurry()
}

// handedOver claims what peers have offered.
func (t *pulseThread) handedOver(p *pulsePlan, now time.Time) {
	t.mu.Lock()
	takes := t.takes
	t.takes = nil
	t.mu.Unlock()
	var moves []group.Move
	for _, k := range takes {
		offered := slices.DeleteFunc(slices.Clone(p.watched), func(w *watched) bool {
			return w.peer != k.peer || !slices.Contains(k.groups, w.member.cfg.Name)
		})
		unfit := func(m *member) bool { // it would be worse than what is
			return slices.ContainsFunc(offered, func(w *watched) bool {
				return w.member == m && (!w.last.Master || w.member.group.Status().Demotion >= unready)
			})
		}
		offered = slices.DeleteFunc(offered, func(w *watched) bool { // a bundle as a whole or not at all
			return unfit(w.member) || slices.ContainsFunc(w.member.bundled(), unfit)
		})
		reason := "handed over by " + k.peer
		for _, w := range offered {
			moves = append(moves, group.Move{Group: w.member.group, Verb: func(m *carp.Machine, now time.Time) carp.Effects { return m.Claim(now, reason) }})
		}
	}
	if len(moves) > 0 {
		group.Together(dedupe(moves)) // an offer may have come twice
	}
}
