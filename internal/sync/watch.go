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

// watch is the goroutine that tells the election how much to demote.
func (m *Mirror) watch(ctx context.Context) error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	last := -1
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

// demotion is what this node's table asks for, see the package comment.
func (m *Mirror) demotion(now time.Duration) int {
	n := 0
	if m.own {
		// Who hears one peer is not cut off; the other one has died.
		heard, alone := time.Duration(0), true
		for _, p := range m.peers {
			heard, alone = max(heard, p.lost), alone && p.session == nil
		}
		for _, p := range m.peers {
			if alone && p.everUp && now-heard >= cutOff {
				p.suspect = true
			}
			if p.suspect {
				n = 1
			}
		}
		return n
	}
	up, synced := 0, 0
	for _, p := range m.peers {
		if p.session != nil {
			up++
			if p.synced {
				synced++
			}
		}
		if p.behind {
			n = 1
		}
	}
	if up > 0 && up == synced {
		m.complete = true
	}
	if !m.complete {
		return Incomplete
	}
	return n
}
