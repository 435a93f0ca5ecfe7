package daemon

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/carp/group"
)

// bundleWait is how long a planned claim waits for the rest of its bundle.
const bundleWait = 20 * time.Millisecond

// claimRun is a claim as far as the thread has brought it.
type claimRun struct {
	term    uint64
	begun   time.Time
	sent    time.Time
	nonce   uint64 // the first
	planned bool   // it waits until the whole bundle claims; see carp.Claim
	led     bool   // the rest of the bundle has been asked to follow
}

// claim brings the claims of the groups to the dataplanes of the peers, and their
// answers back. It reports whether there are any.
func (t *pulseThread) claim(p *pulsePlan, now time.Time) bool {
	t.freshClaims(now)
	for n := len(t.running); n > 0 && t.lead(p); n = len(t.running) {
		if t.freshClaims(now); len(t.running) == n {
			break
		}
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

// freshClaims notes what the groups want.
func (t *pulseThread) freshClaims(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for m := range t.running {
		if c, ok := t.claims[m]; !ok || c.Term != t.running[m].term {
			delete(t.running, m)
		}
	}
	for m, c := range t.claims {
		if t.running[m] == nil {
			t.running[m] = &claimRun{term: c.Term, begun: now, planned: c.Planned || t.follows[m]}
		}
	}
	clear(t.follows)
}

// lead has the rest of each bundle that claims do so as well, and reports whether there
// was anybody to ask.
func (t *pulseThread) lead(p *pulsePlan) bool {
	for m, c := range t.running {
		for _, s := range m.bundled() {
			if o := t.running[s]; o != nil && !o.planned {
				c.planned = false // there is a reason for the bundle to leave
			}
		}
	}
	var moves []group.Move
	for m, c := range t.running {
		if c.led && !(c.planned && c.nonce == 0) {
			continue
		}
		c.led = true
		for _, s := range m.bundled() {
			if t.lags(s) {
				moves = append(moves, group.Move{Group: s.group, Verb: t.following(p, s, c.planned)})
				t.follows[s] = c.planned
			}
		}
	}
	if len(moves) == 0 {
		return false
	}
	group.Together(dedupe(moves)) // they may claim as well
	return true
}

// lags reports whether a group that takes part is neither master here nor claims to be.
func (t *pulseThread) lags(m *member) bool {
	s, _ := m.group.Stands()
	return s != carp.Master && s != carp.Init && t.running[m] == nil
}

// following has a group do as a sibling that claims. What is planned moves if it would
// gain by it: as Follow, and also if its master answers that it is more demoted, though
// the advert that says so is still to come. Otherwise there is a reason for the bundle to
// leave that node.
func (t *pulseThread) following(p *pulsePlan, m *member, planned bool) group.Verb {
	his, master := -1, false
	for _, w := range p.watched {
		if answer, at := w.watch.Last(); w.member == m && w.last.Master && !at.IsZero() {
			his, master = int(answer.Demotion), true
		}
	}
	return func(m *carp.Machine, now time.Time) carp.Effects {
		if his > m.Demotion() || master && !planned {
			return m.Claim(now, "following the bundle")
		}
		return m.Follow(now)
	}
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
	if c.planned && c.nonce == 0 && slices.ContainsFunc(m.bundled(), t.lags) {
		if now.Sub(c.begun) < bundleWait {
			return nil, false
		}
		t.postponed(m, now)
		return func(m *carp.Machine, now time.Time) carp.Effects { return m.Postpone(now, c.term) }, true
	}
	bid := c.nonce == 0
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
	if bid && c.nonce != 0 {
		c.begun = now // it may have waited for its bundle
		m.group.Do(func(m *carp.Machine, now time.Time) carp.Effects { return m.Bid(now, c.term) })
	}
	if asked > 0 && acked == asked {
		for _, w := range p.watched {
			if w.member == m && w.hung {
				w.watch.Claimed(now)
			}
		}
		return func(m *carp.Machine, now time.Time) carp.Effects { return m.Acked(now, c.term) }, true
	}
	return verb, verb != nil
}

// postponedSay is how often is said that a claim waits in vain for its bundle.
const postponedSay = time.Minute

// postponed says that a group does not preempt, for the rest of its bundle does not.
func (t *pulseThread) postponed(m *member, now time.Time) {
	if at, ok := t.said[m]; ok && now.Sub(at) < postponedSay {
		return
	}
	t.said[m] = now
	var lag []string
	for _, s := range m.bundled() {
		if t.lags(s) {
			lag = append(lag, s.cfg.Name)
		}
	}
	go t.log.Info("preemption waits for the rest of the bundle: it has no reason to move, or is demoted", // not on this thread
		zap.String("group", m.cfg.Name), zap.Strings("waits_for", lag))
}
