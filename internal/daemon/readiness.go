package daemon

import (
	"context"
	"maps"
	"slices"
	stdsync "sync"
	"time"

	"go.uber.org/zap"
)

// The owners of demotion of a node that has just started.
const (
	ownerReady   = "ready"
	ownerPreempt = "preempt delay"

	// unready is as much as an incomplete table: replace nobody.
	unready = 240

	// impatient keeps a node from replacing a master that works, and lets it
	// replace one that is demoted by an operator or a track. It is more than what
	// a master has that lost sight of its peer (1).
	impatient = 2
)

// readiness is what one group waits for after a start. It is a value: facts come
// in with their time, and held, demotions and waits say what follows.
type readiness struct {
	startup, settle, delay time.Duration

	begun   time.Time
	up      bool      // the carpdev
	since   time.Time // of up
	synced  bool
	pending map[string]bool // routes and tracks that are missing or undecided, as shown

	open  bool // no longer held in INIT
	ready bool
	at    time.Time // of ready
	over  bool      // no delay any more
}

// step moves on as far as the facts allow.
func (r *readiness) step(now time.Time) {
	if !r.open && now.Sub(r.begun) >= r.startup {
		r.open = true
	}
	if r.open && !r.ready && r.synced && len(r.pending) == 0 && r.up && now.Sub(r.since) >= r.settle {
		r.ready, r.at = true, now
	}
	if r.ready && !r.over && now.Sub(r.at) >= r.delay {
		r.over = true
	}
}

// link notes the state of the carpdev; its settling begins anew when it is up.
func (r *readiness) link(now time.Time, up bool) {
	if up && !r.up {
		r.since = now
	}
	r.up = up
	r.step(now)
}

// master notes that the group became MASTER: there is nobody to replace.
func (r *readiness) master(now time.Time) {
	r.over = true
	r.step(now)
}

// deadline returns when time alone changes something.
func (r *readiness) deadline() (time.Time, bool) {
	switch {
	case !r.open:
		return r.begun.Add(r.startup), true
	case !r.ready && r.synced && len(r.pending) == 0 && r.up:
		return r.since.Add(r.settle), true
	case r.ready && !r.over:
		return r.at.Add(r.delay), true
	}
	return time.Time{}, false
}

// demotions returns what each owner asks for.
func (r *readiness) demotions() (ready, preempt int) {
	if !r.ready {
		ready = unready
	} else if !r.over {
		preempt = impatient
	}
	return ready, preempt
}

// waits says in an operator's words what is still missing.
func (r *readiness) waits(now time.Time) []string {
	left := func(d time.Duration) string { return d.Round(100 * time.Millisecond).String() }
	w := []string{}
	if !r.open {
		w = append(w, "startup delay, "+left(r.startup-now.Sub(r.begun))+" left")
	}
	if !r.ready {
		switch {
		case !r.up:
			w = append(w, "carpdev up")
		case now.Sub(r.since) < r.settle:
			w = append(w, "carpdev settled, "+left(r.settle-now.Sub(r.since))+" left")
		}
		w = append(w, slices.Sorted(maps.Keys(r.pending))...)
		if !r.synced {
			w = append(w, "connection table in sync")
		}
	} else if !r.over {
		w = append(w, "preempt delay, "+left(r.delay-now.Sub(r.at))+" left")
	}
	return w
}

// starter carries out what the readiness of each group wants. Whoever learns of a
// fact tells it; Run waits for the deadlines.
type starter struct {
	log  *zap.Logger
	kick chan struct{} // holds one: deadlines changed

	mu      stdsync.Mutex
	groups  map[*member]*readiness
	applied map[*member]map[string]int // demotion by owner, as the group was told
}

func newStarter(log *zap.Logger) *starter {
	return &starter{log: log, kick: make(chan struct{}, 1), groups: map[*member]*readiness{}, applied: map[*member]map[string]int{}}
}

// Add registers a group before its link is known. pending is what it has to wait
// for beside its link and the table. A group that goes on after a crash waits for
// nothing.
func (s *starter) Add(m *member, settle time.Duration, pending []string, synced, adopted bool) {
	r := &readiness{
		startup: m.cfg.StartupDelay, settle: settle, delay: m.cfg.PreemptDelay,
		begun: time.Now(), synced: synced, pending: map[string]bool{},
		open: adopted, ready: adopted, over: adopted,
	}
	for _, p := range pending {
		r.pending[p] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups[m] = r
}

// Replace has one member go on in the place of another: what that waited for still
// counts, with the new delays.
func (s *starter) Replace(old, m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.groups[old]
	if r == nil { // it was adopted, or never began
		r = &readiness{begun: time.Now(), synced: true, pending: map[string]bool{}, open: true, ready: true, over: true}
	}
	r.startup, r.delay = m.cfg.StartupDelay, m.cfg.PreemptDelay
	delete(s.groups, old)
	delete(s.applied, old)
	s.groups[m] = r
}

// Remove forgets a group that has left.
func (s *starter) Remove(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.groups[m]; r != nil && !r.open {
		m.demoteSiblings("startup "+m.cfg.Name, false)
	}
	delete(s.groups, m)
	delete(s.applied, m)
}

// Begin applies what holds by now: after a start, and when groups or bundles have
// changed.
func (s *starter) Begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for m, r := range s.groups {
		r.step(time.Now())
		if !r.open {
			m.demoteSiblings("startup "+m.cfg.Name, true)
		}
	}
	s.demote()
}

// demote tells every group what its readiness asks for and that of its siblings: a
// bundle moves together. With mu held.
func (s *starter) demote() {
	for m, r := range s.groups {
		ready, preempt := r.demotions()
		for _, sibling := range m.bundled() {
			other := s.groups[sibling]
			if other == nil { // it has left, or is on its way
				continue
			}
			r, p := other.demotions()
			ready, preempt = max(ready, r), max(preempt, p)
		}
		if ready > 0 {
			preempt = 0
		}
		if s.applied[m] == nil {
			s.applied[m] = map[string]int{}
		}
		tell := func(owner string, n int) {
			if s.applied[m][owner] != n {
				s.applied[m][owner] = n
				m.group.Demote(owner, n)
			}
		}
		tell(ownerPreempt, preempt) // first: between the two the group would be free to preempt
		tell(ownerReady, ready)
	}
}

// Link tells the state of the group's carpdev, which is passed on unless the group
// is held in INIT.
func (s *starter) Link(m *member, up bool) {
	s.change(m, func(r *readiness, now time.Time) {
		open := r.open
		r.link(now, up)
		if open { // else settle passes it on
			m.link(up)
		}
	})
}

// Master tells that the group became MASTER; the rest of its bundle may follow.
func (s *starter) Master(m *member) {
	for _, g := range append([]*member{m}, m.bundled()...) {
		s.change(g, (*readiness).master)
	}
}

// Synced tells whether the connection table is complete.
func (s *starter) Synced(yes bool) {
	s.all(func(r *readiness) { r.synced = yes })
}

// Pending tells whether a route is missing or a track undecided.
func (s *starter) Pending(what string, missing bool) {
	s.all(func(r *readiness) {
		if _, ok := r.pending[what]; ok && !missing {
			delete(r.pending, what)
		}
	})
}

// all changes all groups.
func (s *starter) all(f func(r *readiness)) {
	for m := range s.snapshot() {
		s.change(m, func(r *readiness, now time.Time) {
			f(r)
			r.step(now)
		})
	}
}

func (s *starter) snapshot() map[*member]*readiness {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.groups)
}

// change changes one group and carries out what follows. Nothing in it waits.
func (s *starter) change(m *member, f func(r *readiness, now time.Time)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.groups[m]
	if r == nil {
		return
	}
	open, ready := r.open, r.ready
	f(r, time.Now())
	s.demote()
	if r.open && !open {
		m.demoteSiblings("startup "+m.cfg.Name, false)
		m.link(r.up)
	}
	if r.ready && !ready {
		s.log.Info("ready", zap.String("group", m.cfg.Name), zap.Duration("after", r.at.Sub(r.begun)), zap.Duration("preempt_delay", r.delay))
	}
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Waits returns what the group still waits for.
func (s *starter) Waits(m *member) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, w := time.Now(), []string{}
	if r := s.groups[m]; r != nil {
		w = r.waits(now)
	}
	if len(w) > 0 {
		return w
	}
	for _, sibling := range m.bundled() {
		if r := s.groups[sibling]; r != nil && len(r.waits(now)) > 0 {
			w = append(w, "group "+sibling.cfg.Name+" of its bundle")
		}
	}
	return w
}

// Run waits for the deadlines until the context ends.
func (s *starter) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.kick:
		case <-timer.C:
			s.all(func(*readiness) {})
		}
		next, some := time.Time{}, false
		s.mu.Lock()
		for _, r := range s.groups {
			if at, ok := r.deadline(); ok && (!some || at.Before(next)) {
				next, some = at, true
			}
		}
		s.mu.Unlock()
		if some {
			timer.Reset(max(0, time.Until(next)))
		} else {
			timer.Stop()
		}
	}
}
