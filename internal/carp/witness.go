package carp

import (
	"fmt"
	"time"
)

// Split is what to do about a master that is silent on the carpdev and alive by
// the sync channel, as long as nothing says that it is the master who is cut off.
type Split uint8

// The ways to decide.
const (
	SplitHold     Split = iota // it stays: better one master than two
	SplitTakeover              // classic CARP, as without a sync channel
)

// Ears is what a node hears on a carpdev from anybody at all.
type Ears uint8

// What ears can say.
const (
	EarsUnknown Ears = iota // silence, and nobody known who would answer
	EarsHear                // frames
	EarsDeaf                // silence, and no answer from those who should give one
)

// String returns a word for it.
func (e Ears) String() string {
	switch e {
	case EarsUnknown:
		return "unknown"
	case EarsHear:
		return "hears"
	case EarsDeaf:
		return "deaf"
	}
	return fmt.Sprintf("Ears(%d)", uint8(e))
}

// Said is what a node tells about one of its groups over the sync channel.
type Said struct {
	State State
	Term  uint64
	Ears  Ears // on the carpdev of the group
}

// said is what another node of ours said about this vhid.
type said struct {
	Said
	at time.Time
}

// master reports whether the node said lately that it is MASTER.
func (p said) master(now time.Time) bool {
	return p.State == Master && now.Sub(p.at) < peerTime
}

// Peer tells what another node of ours says about this vhid over the
// authenticated sync channel; it is called every 100 ms. Of two masters the
// one with the higher term stays, whatever the adverts say: the other one's
// table is stale. After making way the node waits for as long as the peer
// says that it is MASTER. A master that says that it is in INIT has no link to
// tell it to anybody else.
func (m *Machine) Peer(now time.Time, node string, s Said) Effects {
	gone := s.State == Init && m.peers[node].master(now)
	if m.peers == nil {
		m.peers = map[string]said{}
	}
	m.peers[node] = said{s, now}
	m.seen = max(m.seen, s.Term)
	if e, lapsed := m.lapse(now); lapsed {
		return e
	}
	if m.state == Master && s.State == Master && s.Term > m.term {
		m.yield, m.deaf = s.Term, true
		return m.become(now, Drain, "peer is master of a newer term")
	}
	if m.split {
		return m.reconsider(now)
	}
	if m.doubt && s.State == Master && s.Ears == EarsDeaf {
		return m.CutOff(now) // it can acknowledge that: no need to be sure of its silence
	}
	if _, other := m.master(now, 0); m.state == Backup && gone && !other {
		return m.become(now, Master, "the peer that was master lost its carpdev")
	}
	return Effects{}
}

// master returns until when to believe the latest word of a node of ours that
// it is MASTER of this term or a later one, and whether there is one.
func (m *Machine) master(now time.Time, term uint64) (until time.Time, ok bool) {
	for _, p := range m.peers {
		if at := p.at.Add(peerTime); p.master(now) && p.Term >= term && at.After(until) {
			until, ok = at, true
		}
	}
	return until, ok
}

// held returns until when the node we made way for counts as MASTER.
func (m *Machine) held(now time.Time) (until time.Time, ok bool) {
	if m.yield == 0 {
		return time.Time{}, false
	}
	return m.master(now, m.yield)
}

// stale reports whether some node of ours lately said that it is MASTER, and all
// that did have an older term: they will make way when they hear of ours.
func (m *Machine) stale(now time.Time) bool {
	_, some := m.master(now, 0)
	_, newer := m.master(now, m.term)
	return some && !newer
}

// Deaf reports whether nothing has been heard on the carpdev since its link came
// back, or since the group made way to a term that it knows of over the sync
// channel alone. What hangs on the same node had better be elsewhere.
func (m *Machine) Deaf() bool { return m.deaf && (m.state == Backup || m.state == Drain) }

// Ears tells what this node hears on the carpdev from anybody at all.
func (m *Machine) Ears(now time.Time, e Ears) Effects {
	m.ears = e
	if m.split {
		return m.reconsider(now)
	}
	return m.Tick(now)
}

// reconsider decides anew about a master that was left in peace.
func (m *Machine) reconsider(now time.Time) Effects {
	if m.state != Backup {
		return m.Tick(now)
	}
	m.down = now
	return m.timeout(now)
}

// Split reports whether a master is silent on the carpdev, lives by the sync
// channel, and is left in peace.
func (m *Machine) Split() bool { return m.split && m.state == Backup }

// witness asks the sync channel about a master that is silent on the carpdev:
// split and until when, or cutOff if it says itself that it hears nobody while we
// do.
func (m *Machine) witness(now time.Time) (until time.Time, split, cutOff bool) {
	for _, p := range m.peers {
		if !p.master(now) || p.Term < m.followed {
			continue
		}
		if p.Ears == EarsDeaf && m.ears == EarsHear {
			cutOff = true
			continue
		}
		if at := p.at.Add(peerTime); m.cfg.Split == SplitHold && at.After(until) {
			until, split = at, true
		}
	}
	return until, split, cutOff && !split
}
