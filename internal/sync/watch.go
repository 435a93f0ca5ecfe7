package sync

import (
	"context"
	"time"
)

const (
	// Incomplete is the demotion asked for by a node that must not take over
	// while another lives: it has not got the table. FreeBSD's pfsync adds as
	// much during a bulk update.
	Incomplete = 240

	cutOff = 3 * time.Second
)

// Demotion is how much this node's table asks the groups to be demoted.
type Demotion struct {
	Held   int // those that this node is MASTER of
	Others int
}

// watch is the goroutine that tells the election how much to demote.
func (m *Mirror) watch(ctx context.Context) error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	last := Demotion{-1, -1}
	for {
		m.mu.Lock()
		n := m.demotion(m.now())
		m.mu.Unlock()
		if n != last && m.cfg.Demote != nil {
			m.cfg.Demote(n)
		}
		last = n
		select {
		case <-ctx.Done():
			return nil
		case <-m.watched:
		case <-tick.C:
		}
	}
}

// demotion is what this node's table asks for, see the package comment. Where load
// is shared each node is MASTER of some groups: one that cannot hear the others does
// not know whether somebody has taken over its own, and as little what the flows of
// the others are by now. So it is no better in theirs than they are, and nothing
// moves for the loss of the link alone.
func (m *Mirror) demotion(now time.Duration) Demotion {
	up, synced, behind := 0, 0, 0
	for _, p := range m.peers {
		if p.session != nil {
			up++
			if p.synced {
				synced++
			}
		}
		if p.behind {
			behind = 1
		}
	}
	if m.own {
		return Demotion{Held: m.suspects(now), Others: behind}
	}
	if up > 0 && up == synced {
		m.complete = true
	}
	if !m.complete {
		return Demotion{Incomplete, Incomplete}
	}
	return Demotion{behind, behind}
}

// suspects is 1 for an owner that was cut off. Who hears one peer is not; the other
// one has died. Nor is who knows of all that they have taken nothing over.
func (m *Mirror) suspects(now time.Duration) int {
	heard, alone, n := time.Duration(0), true, 0
	for _, p := range m.peers {
		heard, alone = max(heard, p.lost), alone && p.session == nil
	}
	for _, p := range m.peers {
		if alone && p.everUp && now-heard >= cutOff && !p.suspect {
			p.suspect = m.cfg.Vouched == nil || !m.cfg.Vouched(p.name)
		}
		if p.suspect {
			n = 1
		}
	}
	return n
}
