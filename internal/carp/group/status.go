package group

import (
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// Status is a snapshot of a Group. All times are on the boot clock.
type Status struct {
	Name    string
	Carpdev string
	VHID    uint8
	State   carp.State
	Since   time.Time
	Reason  string // why it is in that state
	Term    uint64

	Demotion  int // the sum, at most 255
	DemotedBy map[string]int

	AdvBase, AdvSkew uint8
	Interval         time.Duration // between adverts
	MasterDown       time.Duration // how long we wait for a master
	Lease            time.Duration // what is left of it, 0 unless MASTER

	Sent     uint64            // adverts, of both families
	SendErrs uint64            // adverts that could not be sent
	Received uint64            // adverts that were believed
	Drops    map[string]uint64 // frames that were not, by reason

	Alarms map[string]uint64 // adverts that an operator should know of, by kind

	Split bool // a master is silent here and lives by the sync channel

	Masters []MasterSeen // heard within three of their intervals

	// SilentFamily is IPv4 or IPv6 if adverts of the other one alone are heard,
	// SilentAlarms how often that began.
	SilentFamily string
	SilentAlarms uint64
}

// counts are what Status counts; under mu.
type counts struct {
	sent, sendErrs uint64
	received       [carp.Drops]uint64
	alarms         [carp.Alarms]uint64
}

// Status returns a snapshot.
func (g *Group) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, now := g.machine, g.now()
	c := m.Config()
	s := Status{
		Name: g.cfg.Name, Carpdev: g.cfg.Carpdev, VHID: c.VHID,
		State: m.State(), Term: m.Term(),
		Demotion: m.Demotion(), DemotedBy: m.DemotedBy(),
		AdvBase: c.AdvBase, AdvSkew: c.AdvSkew,
		Interval:   carp.Interval(c.AdvBase, c.AdvSkew),
		MasterDown: carp.MasterDown(c.AdvBase, c.AdvSkew),
		Sent:       g.count.sent, SendErrs: g.count.sendErrs,
		Received: g.count.received[carp.Accepted],
		Drops:    make(map[string]uint64),
		Alarms:   make(map[string]uint64),
	}
	s.Since, s.Reason = m.Since()
	s.SilentAlarms = g.families.alarms
	if until := m.Lease(); until.After(now) {
		s.Lease = until.Sub(now)
	}
	for d, n := range g.count.received {
		if carp.Drop(d) != carp.Accepted && n > 0 {
			s.Drops[carp.Drop(d).String()] = n
		}
	}
	s.Split = m.Split()
	for a, n := range g.count.alarms {
		if carp.Alarm(a) != carp.NoAlarm && n > 0 {
			s.Alarms[carp.Alarm(a).String()] = n
		}
	}
	for _, seen := range g.masters {
		if !seen.gone(now) {
			s.Masters = append(s.Masters, seen)
		}
	}
	if len(s.Masters) > 0 { // nobody is heard: then it is no matter of a family
		s.SilentFamily = g.families.silent
	}
	return s
}

func (g *Group) sent(ok, failed int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count.sent += uint64(ok)
	g.count.sendErrs += uint64(failed)
}

// received counts a frame and remembers who sent it.
func (g *Group) received(r *carp.Verdict) {
	now := g.now()
	g.mu.Lock()
	g.count.received[r.Why]++
	if r.Why == carp.Accepted {
		g.saw(&r.Heard, now)
		g.gaps.heard(&r.Heard, now)
	}
	g.mu.Unlock()
	if r.Why == carp.Accepted {
		g.watchFamilies(&r.Heard, now)
	}
}
