package carp

import "time"

const (
	// claimTime is how long a claim is repeated. A peer that has not acknowledged
	// it by then is silent, whatever else it says.
	claimTime = 50 * time.Millisecond

	// claimPause is from a claim that was refused to the next.
	claimPause = 100 * time.Millisecond

	// postponement is from a claim that had to wait for the rest of its bundle, in vain,
	// to the next.
	postponement = 20 * time.Millisecond

	// claimantTime is how long, after the drain, we wait for word of a node that
	// has claimed our role.
	claimantTime = 100 * time.Millisecond

	// handoverTime is how long a peer has to claim what we offer.
	handoverTime = time.Second
)

// Claim is a mastership that this node asks of the one that has it. The caller
// repeats it on every path until it is acknowledged or refused, or Claiming says
// that it is no longer wanted.
type Claim struct {
	Term uint64 // that it will have

	// Planned says that the master is well and merely worse: there is time to move with
	// the rest of the bundle, and no reason to move without; see Postpone.
	Planned bool
}

// bid is our claim while it is under way.
type bid struct {
	Claim
	reason string
	until  time.Time
}

// Pulses tells whether the master answers pulses: then its dataplane acknowledges
// claims, and nobody is replaced that has not stopped before.
func (m *Machine) Pulses(on bool) { m.pulses = on }

// Doubt tells whether pulses on the carpdev are unanswered right now, while the master
// answers on the sync device.
func (m *Machine) Doubt(on bool) { m.doubt = on }

// Claiming returns the claim under way, if there is one.
func (m *Machine) Claiming() (Claim, bool) {
	if m.bid == nil {
		return Claim{}, false
	}
	return m.bid.Claim, true
}

// Silent tells that the master of a term, and everything else of its node, is
// silent: nobody is there who could be asked.
func (m *Machine) Silent(now time.Time, term uint64, reason string) Effects {
	if e, lapsed := m.lapse(now); lapsed {
		return e
	}
	if m.state != Backup || term < m.followed || term < m.yield {
		return Effects{} // somebody has taken its place already
	}
	return m.become(now, Master, reason)
}

// CutOff tells that the master is silent on the carpdev and alive by the sync
// channel. If it says that it hears nobody there while we do, it is the one that is
// cut off: its role is claimed. Otherwise nothing happens, see Split.
func (m *Machine) CutOff(now time.Time) Effects {
	if e, lapsed := m.lapse(now); lapsed {
		return e
	}
	if m.state != Backup {
		return Effects{}
	}
	if _, split, cutOff := m.witness(now); split || !cutOff {
		return Effects{}
	}
	return m.take(now, "master is cut off from the carpdev, by its own word")
}

// Claim asks for the role of a master whose dataplane answers: it is hung, or hands
// over. Where it does not answer nothing happens.
func (m *Machine) Claim(now time.Time, reason string) Effects {
	if e, lapsed := m.lapse(now); lapsed {
		return e
	}
	if m.state != Backup || !m.pulses {
		return Effects{}
	}
	return m.take(now, reason)
}

// take replaces a master that lives: by a claim where it can acknowledge one.
func (m *Machine) take(now time.Time, reason string) Effects {
	switch {
	case !m.pulses:
		return m.become(now, Master, reason)
	case m.bid != nil, now.Before(m.refused):
		return Effects{}
	}
	m.bid = &bid{Claim: Claim{Term: m.seen + 1}, reason: reason, until: now.Add(claimTime)}
	c := m.bid.Claim
	return Effects{Claim: &c}
}

// Bid tells that a planned claim of a term is made from now on: it can no more be
// postponed.
func (m *Machine) Bid(now time.Time, term uint64) Effects {
	if m.bid != nil && m.bid.Term == term {
		m.bid.Planned, m.bid.until = false, now.Add(claimTime)
	}
	return m.Tick(now)
}

// Postpone gives up a claim of a term that nobody has heard of yet, for a moment: what
// has to move with this group is not ready to. The next advert is a reason anew, or the
// rest of the bundle is; see Follow.
func (m *Machine) Postpone(now time.Time, term uint64) Effects {
	if m.bid != nil && m.bid.Term == term {
		m.bid, m.refused = nil, now.Add(postponement)
	}
	return m.Tick(now)
}

// Acked tells that the claim of a term was acknowledged: who was master has stopped,
// and will not be one of that term.
func (m *Machine) Acked(now time.Time, term uint64) Effects {
	if m.bid == nil || m.bid.Term != term || m.state != Backup {
		return m.Tick(now)
	}
	return m.become(now, Master, m.bid.reason)
}

// Refused tells that the claim of a term was refused by somebody who knows of a
// later one.
func (m *Machine) Refused(now time.Time, term, theirs uint64) Effects {
	if m.bid != nil && m.bid.Term == term {
		m.seen = max(m.seen, theirs)
		m.bid, m.refused = nil, now.Add(claimPause)
	}
	return m.Tick(now)
}

// Claimed tells that a peer has claimed a term of our own dataplane. That has
// stopped answering already, if it was master; here the rest follows.
func (m *Machine) Claimed(now time.Time, term uint64) Effects {
	e, lapsed := m.lapse(now)
	if m.bid != nil && m.bid.Term <= term {
		m.bid, m.refused = nil, now.Add(claimPause)
	}
	m.seen = max(m.seen, term)
	switch {
	case lapsed:
	case m.state == Master && term >= m.term:
		// Of the same term, if it came between our decision and the dataplane's.
		e = m.become(now, Drain, m.gone(now, "claimed by a peer"))
		e.Role = nil
		m.yield, m.down = term, m.drained.Add(claimantTime)
		if !m.stay && m.Demotion() == 0 { // of a demotion we know when it ends
			m.humble = now.Add(MasterDown(m.cfg.AdvBase, m.cfg.AdvSkew)) // there was a reason
		}
	case m.state == Backup:
		m.yield = term
	}
	e.Accept = true
	return e
}

// Reassert tells that a node that was master of an earlier term has acknowledged our
// claim, while we are master: it waits for a word of us, and switches may have learnt
// where it is.
func (m *Machine) Reassert(now time.Time) Effects {
	if e, lapsed := m.lapse(now); lapsed || m.state != Master {
		return e
	}
	return m.claim(now)
}

// Vouched tells that a peer's dataplane answers as MASTER of a term. If we made way to
// that one it is the word that we wait for.
func (m *Machine) Vouched(now time.Time, term uint64) Effects {
	at := now.Add(MasterDown(m.cfg.AdvBase, m.cfg.AdvSkew))
	if m.yield != 0 && term >= m.yield && (m.state == Backup || m.state == Drain) && at.After(m.down) {
		m.down = at
	}
	return m.Tick(now)
}

// gone names the reason for which the role went: what we offered was taken.
func (m *Machine) gone(now time.Time, reason string) string {
	if now.Before(m.offered) {
		return "handed over"
	}
	return reason
}

// Handover lets a peer have the role, and does not take it back by itself as long
// as that peer lives and is not demoted. asked says that the peer will claim it;
// otherwise it is told by a goodbye.
func (m *Machine) Handover(now time.Time, asked bool) Effects {
	if e, lapsed := m.lapse(now); lapsed || m.state != Master {
		return e
	}
	if asked {
		m.offered = now.Add(handoverTime)
		return m.Tick(now)
	}
	e := m.become(now, Drain, "handing over")
	e.Advert = m.goodbye()
	m.stay = true
	return e
}

// goodbye returns the advert of a master that leaves.
func (m *Machine) goodbye() *Advert {
	a := m.advert()
	a.AdvBase, a.AdvSkew, a.Demotion = 255, 255, 0
	return a
}
