package daemon

import (
	"slices"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/carp/group"
)

// claimRun is a claim as far as the thread has brought it.
type claimRun struct {
	term  uint64
	begun time.Time
	sent  time.Time
	nonce uint64 // the first
}

// claim brings the claims of the groups to the dataplanes of the peers, and their
// answers back. It reports whether there are any.
func (t *pulseThread) claim(p *pulsePlan, now time.Time) bool {
	for {
		fresh := t.freshClaims(now)
		if len(fresh) == 0 {
			break
		}
		var moves []group.Move
		for _, m := range fresh {
			for _, s := range m.bundled() {
				if t.running[s] == nil {
					moves = append(moves, group.Move{Group: s.group, Verb: t.following(p, s)})
				}
			}
		}
		if len(moves) == 0 {
			break
		}
		group.Together(dedupe(moves)) // they may claim as well
	}
	var moves []group.Move
	open := false
	for m, c := range t.running {
		verb, done := t.run(p, m, c, now)
		if verb != nil {
			moves = append(moves, group.Move{Group: m.group, Verb: verb, Pulses: group.Pulses{Claim: now.Sub(c.begun)}})
		}
		if !done && now.Sub(c.begun) < claimSoon {
			open = true
		}
	}
	if len(moves) > 0 && !open {
		for _, mv := range moves {
			for m := range t.running {
				if m.group == mv.Group {
					delete(t.running, m)
				}
			}
		}
		group.Together(moves)
	}
	return len(t.running) > 0
}

// following has a group do as a sibling that claims: as Follow, and also if its master
// answers that it is more demoted, though the advert that says so is still to come.
func (t *pulseThread) following(p *pulsePlan, m *member) group.Verb {
	his := -1
	for _, w := range p.watched {
		if answer, at := w.watch.Last(); w.member == m && w.last.Master && !at.IsZero() {
			his = int(answer.Demotion)
		}
	}
	return func(m *carp.Machine, now time.Time) carp.Effects {
		if his > m.Demotion() {
			return m.Claim(now, "following the bundle")
		}
		return m.Follow(now)
	}
}

// freshClaims notes what the groups want, and returns those that are new.
func (t *pulseThread) freshClaims(now time.Time) (fresh []*member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for m := range t.running {
		if c, ok := t.claims[m]; !ok || c.Term != t.running[m].term {
			delete(t.running, m)
		}
	}
	for m, c := range t.claims {
		if t.running[m] == nil {
			t.running[m] = &claimRun{term: c.Term, begun: now}
			fresh = append(fresh, m)
		}
	}
	return fresh
}

func dedupe(moves []group.Move) []group.Move {
	var out []group.Move
	for _, m := range moves {
		if !slices.ContainsFunc(out, func(o group.Move) bool { return o.Group == m.Group }) {
			out = append(out, m)
		}
	}
	return out
}

// run sends a claim to every peer that answers for the group, and returns what came
// of it: all have to acknowledge it. done says that all have answered.
func (t *pulseThread) run(p *pulsePlan, m *member, c *claimRun, now time.Time) (verb group.Verb, done bool) {
	send := now.Sub(c.sent) >= claimEvery
	if send {
		c.sent = now
	}
	asked, acked := 0, 0
	for _, w := range p.watched {
		answer, at := w.watch.Last()
		if w.member != m || at.IsZero() || w.last.Silence == carp.Gone || w.last.Silence == carp.Unwatched {
			continue
		}
		asked++
		ok := false
		for _, a := range w.ways {
			if a == nil {
				continue
			}
			if h, heard := a.path.Claimed(); heard && c.nonce != 0 && h.Nonce >= c.nonce {
				if h.Kind == carp.PulseAck && h.Term == c.term {
					ok = true
				} else if h.Kind == carp.PulseRefusal && h.Term >= c.term {
					theirs := h.Term
					verb = func(m *carp.Machine, now time.Time) carp.Effects { return m.Refused(now, c.term, theirs) }
				}
			}
		}
		if ok {
			acked++
			continue
		}
		for _, a := range w.ways {
			if !send || a == nil {
				continue
			}
			pulse := a.pulse
			pulse.Kind, pulse.Term, pulse.Challenge = carp.PulseClaim, c.term, answer.Challenge
			if _, sent := t.send(a, pulse); c.nonce == 0 {
				c.nonce = uint64(carp.SinceBoot(sent))
			}
		}
	}
	if asked > 0 && acked == asked {
		return func(m *carp.Machine, now time.Time) carp.Effects { return m.Acked(now, c.term) }, true
	}
	return verb, verb != nil
}
