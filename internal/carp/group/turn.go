package group

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
)

// Verb is something to tell a Machine.
type Verb = func(*carp.Machine, time.Time) carp.Effects

// Move is a verb for one group.
type Move struct {
	Group  *Group
	Verb   Verb
	Pulses Pulses // what is known from them, if it is about a takeover
}

// decision is what a verb wants, and how far that is.
type decision struct {
	t   Transition
	e   carp.Effects
	err error // of the role: it must not be claimed then
}

// step calls one verb and carries out what it wants.
func (g *Group) step(verb Verb) {
	g.turn.Lock()
	d := g.decide(verb, Pulses{})
	g.follow(&d)
	g.say(d)
	g.turn.Unlock()
	g.tell()
}

// Together tells several groups something at once, in the caller's goroutine: first
// all of them decide, then their dataplanes follow, and then all speak. Whatever has to
// be waited for comes before the first dataplane follows: one that is MASTER on the LAN
// alone must not send from the shared address of the WAN. Nothing in it waits for Run, a
// log or a disk; that comes later, in Run's goroutine. Only one goroutine may call it for
// several groups.
func Together(moves []Move) {
	var few [8]decision
	ds := few[:0]
	for _, m := range moves {
		m.Group.turn.Lock()
	}
	for _, m := range moves {
		ds = append(ds, m.Group.decide(m.Verb, m.Pulses))
	}
	for i, m := range moves {
		m.Group.follow(&ds[i])
	}
	for i, m := range moves {
		m.Group.say(ds[i])
		m.Group.turn.Unlock()
	}
	for i, m := range moves {
		if ds[i].t.From != ds[i].t.To {
			m.Group.box.put(func() {})
		}
	}
}

// Do tells the group something at once, in the caller's goroutine; see Together.
func (g *Group) Do(verb Verb) { Together([]Move{{Group: g, Verb: verb}}) }

// standing is where a group stands.
type standing struct {
	state carp.State
	term  uint64
}

// Stands returns the group's state and its term. It waits for nobody.
func (g *Group) Stands() (carp.State, uint64) {
	s := g.standing.Load()
	return s.state, s.term
}

// stand notes what Stands returns. With mu held.
func (g *Group) stand() {
	s := standing{g.machine.State(), g.machine.Term()}
	if before := g.standing.Load(); before == nil || *before != s {
		next := s // s itself stays off the heap
		g.standing.Store(&next)
	}
}

// decide calls a verb, and tells of what it changes here.
func (g *Group) decide(verb Verb, pulses Pulses) decision {
	g.mu.Lock()
	now := g.now()
	t := Transition{Name: g.cfg.Name, VHID: g.cfg.Machine.VHID, From: g.machine.State(), At: now}
	if t.From == carp.Backup {
		t.Evidence, t.Pulses = g.evidence(now), pulses
	}
	e := verb(g.machine, now)
	t.To, t.Reason, t.Term = g.machine.State(), e.Reason, g.machine.Term()
	g.stand()
	if t.To != t.From {
		g.gaps.begin()
		t.Demoted = demotedBy(g.machine)
	}
	t.Adopted = t.To != t.From && e.Role == nil && !e.Accept
	deaf, split := g.machine.Deaf(), g.machine.Split()
	claim, claiming := g.machine.Claiming()
	demotion := g.machine.Demotion()
	g.mu.Unlock()
	if demotion != g.demotion {
		g.demotion = demotion
		g.cfg.Dataplane.SetDemotion(t.VHID, uint32(demotion))
	}
	if claiming != g.claiming || e.Claim != nil {
		g.claiming = claiming
		if g.cfg.OnClaim != nil {
			g.cfg.OnClaim(claim, claiming)
		}
	}
	if split != g.split {
		g.split = split
		g.partition(t)
	}
	if deaf != g.deaf {
		g.deaf = deaf
		if g.cfg.OnDeaf != nil {
			g.cfg.OnDeaf(deaf) // first, or siblings would be too demoted to follow
		}
	}
	d := decision{t: t, e: e}
	if t.To == carp.Master && t.From != carp.Master && g.cfg.BeforeMaster != nil {
		g.cfg.BeforeMaster()
	}
	return d
}

// demotedBy lists who demotes us, and by how much.
func demotedBy(m *carp.Machine) string {
	if m.Demotion() == 0 {
		return ""
	}
	by := m.DemotedBy()
	var all []string
	for _, owner := range slices.Sorted(maps.Keys(by)) {
		all = append(all, fmt.Sprintf("%s %d", owner, by[owner]))
	}
	return strings.Join(all, ", ")
}

// follow makes the dataplane do what was decided.
func (g *Group) follow(d *decision) {
	t, e := &d.t, &d.e
	if t.To == carp.Master && t.From != carp.Master {
		g.cfg.Dataplane.SetTerm(t.VHID, t.Term)
	}
	if e.Accept {
		g.cfg.Dataplane.Accept(t.VHID)
	}
	if e.Role != nil {
		d.err = g.cfg.Dataplane.SetRole(t.VHID, *e.Role)
		switch {
		case errors.Is(d.err, carp.ErrChanged):
			g.log.Info("role not set: a claim was faster", zap.String("group", t.Name), zap.Stringer("role", e.Role.State))
		case d.err != nil:
			g.log.Error("set role", zap.String("group", t.Name), zap.Uint8("vhid", t.VHID),
				zap.Stringer("role", e.Role.State), zap.Error(d.err))
		}
		t.Steps.Map = g.now().Sub(t.At)
	}
}

// say does the rest of what the Machine wants. A role that did not reach the
// dataplane must not be claimed: that counts as a failed send.
func (g *Group) say(d decision) {
	var at time.Time
	err := d.err
	if d.e.Advert != nil {
		at = g.now()
		if err == nil || d.e.Advert.Goodbye() {
			err = g.advertise(d.e.Advert)
			d.t.Steps.Advert = g.now().Sub(d.t.At)
		}
	}
	if d.e.Announce && err == nil {
		g.announce()
		d.t.Steps.Announced = g.now().Sub(d.t.At)
	}
	if d.t.From != d.t.To {
		g.mu.Lock()
		g.told = append(g.told, d.t)
		g.mu.Unlock()
	}
	if d.e.Advert != nil && !d.e.Advert.Goodbye() {
		next := g.decide(func(m *carp.Machine, now time.Time) carp.Effects { return m.Sent(now, at, err) }, Pulses{})
		g.follow(&next)
		g.say(next)
	}
}

// tell logs changes of state and spreads them.
func (g *Group) tell() {
	g.mu.Lock()
	told := g.told
	g.told = nil
	g.mu.Unlock()
	for _, t := range told {
		what := "state"
		if t.Adopted {
			what = "adopted"
		}
		g.log.Info(what, append([]zap.Field{zap.String("group", t.Name), zap.String("carpdev", g.cfg.Carpdev),
			zap.Uint8("vhid", t.VHID), zap.Stringer("from", t.From), zap.Stringer("to", t.To),
			zap.String("reason", t.Reason), zap.Uint64("term", t.Term)}, t.fields()...)...)
		if g.cfg.OnRole != nil {
			g.cfg.OnRole(t)
		}
	}
}
