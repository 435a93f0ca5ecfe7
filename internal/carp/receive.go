package carp

import "time"

// Receive takes a believed advert of another member, of either family. The
// rules are the union of those in the ip_carp.c of OpenBSD and FreeBSD.
func (m *Machine) Receive(now time.Time, h Heard) Effects {
	if e, lapsed := m.lapse(now); lapsed {
		return e
	}
	m.seen = max(m.seen, h.Term)
	if m.state == Backup && m.ordered(&h) && h.Term < m.followed {
		// A master of the past, back from where it heard of no later one: what
		// we have mirrored is newer than what it knows. It makes way to the
		// master that we follow, or to us when that one is silent.
		return Effects{}
	}
	m.deaf, m.yield = false, 0 // from here on the adverts tell, and their silence
	switch m.state {
	case Backup:
		return m.receiveBackup(now, &h)
	case Master:
		e := m.receiveMaster(now, &h)
		if m.state == Drain {
			m.follow(&h)
		}
		return e
	case Drain:
		m.listen(now)
		if h.Goodbye() {
			m.down, m.left = m.drained, true // and then we take it back
			break
		}
		m.follow(&h)
	}
	return Effects{}
}

// follow notes how good the master is that we listen to.
func (m *Machine) follow(h *Heard) {
	m.his, m.slow = Interval(h.AdvBase, h.AdvSkew), h.rank()
}

// receiveBackup keeps the master, or finds a reason to replace it.
func (m *Machine) receiveBackup(now time.Time, h *Heard) Effects {
	m.forgiveSendErrs(now)
	me := m.self()
	switch {
	case h.Goodbye():
		return m.become(now, Master, "master said goodbye")
	case now.Before(m.humble):
	case m.cfg.Preempt && me.rank() < h.rank() && !m.stay:
		return m.replace(now, h, "preempting a slower master")
	case me.Demotion < h.Demotion: // even without preempt: OpenBSD
		return m.replace(now, h, "master is more demoted")
	case h.Demotion == 0 && MasterDown(m.cfg.AdvBase, m.cfg.AdvSkew) < Interval(h.AdvBase, h.AdvSkew):
		// A demotion that it tells is in its advskew, too, and not in its rhythm.
		return m.replace(now, h, "master will time out")
	}
	m.heed(now, h)
	return Effects{}
}

// replace takes the role of a master that lives.
func (m *Machine) replace(now time.Time, h *Heard, reason string) Effects {
	e := m.take(now, reason)
	if m.state == Backup { // until it has stopped it is the master
		m.heed(now, h)
	}
	if e.Claim != nil {
		m.bid.Planned, e.Claim.Planned = true, true
	}
	return e
}

// heed waits for the next advert of a master.
func (m *Machine) heed(now time.Time, h *Heard) {
	m.listen(now)
	m.follow(h)
	m.followed = max(m.followed, h.Term)
}

// ordered reports whether the sender and we compare terms and ids: both have a
// trailer, so both come to the same result.
func (m *Machine) ordered(h *Heard) bool { return m.cfg.Trailer && h.Node != 0 }

// receiveMaster decides which of two masters stays.
func (m *Machine) receiveMaster(now time.Time, h *Heard) Effects {
	me := m.self()
	mine, his := me.rank(), h.rank()
	ordered := m.ordered(h)
	switch {
	case h.Goodbye():
		// Its frames may have come after our announcement at some switch.
		return m.answer(now, false)
	case ordered && h.Term > m.term:
		m.followed = h.Term
		return m.become(now, Drain, m.gone(now, "master of a newer term heard"))
	case ordered && h.Term < m.term:
		return m.claim(now)
	case his > mine:
		return m.claim(now)
	case !m.cfg.Trailer && m.stale(now):
		return m.claim(now)
	case his == mine && ordered && m.cfg.Node < h.Node:
		m.outdid(now, h)
		return m.claim(now)
	case his == mine && ordered:
		return m.become(now, Drain, "equal advertisement from a lower node id received")
	case his == mine:
		return m.receiveEqual(now, h)
	case h.Demotion < me.Demotion:
		return m.become(now, Drain, "less demoted master heard")
	}
	return m.become(now, Drain, "more frequent advertisement received")
}

// receiveEqual decides between equals without trailers: the lower source address stays,
// compared in IPv4 where the other one speaks it, so that both sides come to
// the same result. But the BSDs yield to an equal advert without comparing:
// the higher address sends one, too, and yields only if that did not help.
func (m *Machine) receiveEqual(now time.Time, h *Heard) Effects {
	const memory = 3 // intervals
	if h.From.Is4() {
		m.equal4 = now
	} else if !m.equal4.IsZero() && now.Sub(m.equal4) < memory*m.interval() {
		return Effects{}
	}
	lower := h.Own.IsValid() && h.Own.Less(h.From)
	if h.Own == h.From {
		// Without addresses of their own both speak from the shared one. The
		// counters began at different times, so they are in the same order
		// for both.
		lower = m.counter < h.Counter
	}
	if lower || m.mate.IsValid() && m.mate.Less(h.From) && now.Sub(m.mateAt) < memory*m.interval() {
		return m.claim(now)
	}
	switch since := now.Sub(m.tied); {
	case m.tied.IsZero() || since >= memory*m.interval():
		m.tied = now
		return m.answer(now, false)
	case since < m.interval()/2:
		return Effects{} // ucarp says so once more when it yields
	}
	return m.become(now, Drain, "equal advertisement from a lower address received")
}

// outdid notes the lowest address of the equals that make way to us for our id. An
// equal without a trailer goes by addresses: it makes way to the one that makes way
// to us. If we made way to it for our own, all three would, in a circle.
func (m *Machine) outdid(now time.Time, h *Heard) {
	const memory = 3 // intervals
	if h.From.Is4() && (!m.mate.IsValid() || !m.mate.Less(h.From) || now.Sub(m.mateAt) >= memory*m.interval()) {
		m.mate, m.mateAt = h.From, now
	}
}

// claim answers an inferior master. It may have moved tables that must be
// moved back, now and once more when it has gone.
func (m *Machine) claim(now time.Time) Effects {
	m.again = 2
	return m.answer(now, true)
}

// answer speaks out of turn: an advert and perhaps an announcement. At most
// sixteen times per interval, or replayed adverts would make us a flood. What
// comes too soon is answered later: the last frame from the virtual MAC decides
// where a switch sends, so the last word must be the master's.
func (m *Machine) answer(now time.Time, announce bool) Effects {
	pause := m.interval() / 16
	if at := m.answered.Add(pause); !m.answered.IsZero() && now.Before(at) {
		if at.Before(m.next) {
			m.next = at
		}
		return Effects{}
	}
	m.answered = now
	m.next = now.Add(m.interval())
	return Effects{Advert: m.advert(), Announce: announce}
}
