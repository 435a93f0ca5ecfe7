package carp

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// counterStep is from one advert to the next. What lies between is left to the
// tag, and to peers that count on from ours.
const counterStep = 2 * FamilyStep

// sendErrOwner owns the demotion of a node that cannot send.
const (
	sendErrOwner    = "senderr"
	sendErrDemotion = 240 // FreeBSD's senderr_demotion_factor
	sendErrLimit    = 3   // consecutive errors, and then successes: as FreeBSD

	// sendErrHold ends the demotion of a node that is BACKUP since: it sends
	// nothing that could succeed.
	sendErrHold = time.Minute
)

// demotion is how much worse than configured one owner says we are.
type demotion struct {
	owner string
	n     int
}

// Demote sets the demotion of one owner; 0 takes it back. The sum of all
// counts. A master that gets worse says so at once.
func (m *Machine) Demote(now time.Time, owner string, n int) Effects {
	before := m.Demotion()
	m.demote(owner, n)
	if e, lapsed := m.lapse(now); lapsed {
		return e
	}
	if m.state == Master && m.Demotion() > before {
		return m.advertise(now)
	}
	return Effects{}
}

func (m *Machine) demote(owner string, n int) {
	i, found := slices.BinarySearchFunc(m.demoted, owner, func(d demotion, s string) int {
		return strings.Compare(d.owner, s)
	})
	switch {
	case n <= 0 && found:
		m.demoted = slices.Delete(m.demoted, i, i+1)
	case n <= 0:
	case found:
		m.demoted[i].n = n
	default:
		m.demoted = slices.Insert(m.demoted, i, demotion{owner, n})
	}
}

// Demotion returns the sum of all demotions, at most 255.
func (m *Machine) Demotion() int {
	sum := 0
	for _, d := range m.demoted {
		sum = min(sum+min(d.n, maxDemotion), maxDemotion)
	}
	return sum
}

// DemotedBy returns the demotion of each owner.
func (m *Machine) DemotedBy() map[string]int {
	by := make(map[string]int, len(m.demoted))
	for _, d := range m.demoted {
		by[d.owner] = d.n
	}
	return by
}

// advert returns the next advert to send, with two fresh counters: one for
// each family. None is ever zero, which OpenBSD takes for a loop.
func (m *Machine) advert() *Advert {
	a := m.self()
	if m.counter > math.MaxUint64-2*counterStep {
		m.counter = 0
	}
	m.counter += counterStep
	node := m.cfg.Node
	if !m.cfg.Trailer {
		node = untagged(node)
	}
	a.Counter = m.counter&^(counterStep-1) | tag(node)
	return &a
}

// self is what we would say now. Demotion goes into the field that only
// OpenBSD reads, and into advskew for the others.
func (m *Machine) self() Advert {
	a := Advert{VHID: m.cfg.VHID, AdvBase: m.cfg.AdvBase, AdvSkew: m.cfg.AdvSkew}
	if n := m.Demotion(); n > 0 {
		a.Demotion = uint8(n)
		a.AdvSkew = uint8(max(int(a.AdvSkew), min(maxSkew, int(a.AdvSkew)+n)))
	}
	return a
}

// advertise sends the next advert. Its rhythm is the configured one even when
// demotion raises the advskew that it carries: bad news must not come slower.
func (m *Machine) advertise(now time.Time) Effects {
	m.next = now.Add(m.interval())
	e := Effects{Advert: m.advert()}
	if m.again > 0 {
		m.again--
		e.Announce = m.again == 0
	}
	return e
}

// Sent tells what became of the last advert; at is the instant before the
// send, err the failure of all families. Success renews the lease. A failure
// is repeated within a quarter of it.
func (m *Machine) Sent(now, at time.Time, err error) Effects {
	if e, lapsed := m.lapse(now); lapsed {
		return e
	}
	if m.state != Master {
		return Effects{} // a goodbye
	}
	if err != nil {
		m.sendErrs++
		m.sendOKs = 0
		if m.sendErrs == sendErrLimit {
			m.demote(sendErrOwner, cmp.Or(m.cfg.SendErrDemotion, sendErrDemotion))
			m.sendErrAt = now
		}
		if retry := now.Add(m.leaseTime() / 4); retry.Before(m.next) {
			m.next = retry
		}
		return Effects{}
	}
	m.sendErrs = 0
	m.sendOKs++
	if m.sendOKs == sendErrLimit {
		m.forgetSendErrs()
	}
	if until := at.Add(m.leaseTime()); until.After(m.lease) {
		m.lease = until
		return Effects{Role: &Role{State: Master, Until: until}}
	}
	return Effects{}
}

// forgiveSendErrs takes the demotion back from a BACKUP that has had it long
// enough.
func (m *Machine) forgiveSendErrs(now time.Time) {
	if !m.sendErrAt.IsZero() && now.Sub(m.sendErrAt) >= sendErrHold {
		m.forgetSendErrs()
	}
}

func (m *Machine) forgetSendErrs() {
	m.sendErrs, m.sendOKs, m.sendErrAt = 0, 0, time.Time{}
	m.demote(sendErrOwner, 0)
}
