package group

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
)

// gapsKept is how many gaps between adverts of a master are remembered.
const gapsKept = 32

// gaps are the last times between two believed adverts.
type gaps struct {
	last time.Time
	all  [gapsKept]time.Duration
	n    int // how many there ever were
}

// heard notes an advert. What comes within a quarter of the interval is the other
// family of the same one.
func (g *gaps) heard(h *carp.Heard, now time.Time) {
	gap := now.Sub(g.last)
	if !g.last.IsZero() && gap < carp.Interval(h.AdvBase, h.AdvSkew)/4 {
		return
	}
	if !g.last.IsZero() {
		g.all[g.n%gapsKept] = gap
		g.n++
	}
	g.last = now
}

// begin forgets them: what is heard from now on is another master's.
func (g *gaps) begin() { *g = gaps{} }

// evidence is what is known now; under mu.
func (g *Group) evidence(now time.Time) Evidence {
	heard := g.machine.Heard()
	e := Evidence{Heard: now.Sub(heard), Never: g.gaps.last.IsZero(), Gaps: min(g.gaps.n, gapsKept)}
	if _, claiming := g.machine.Claiming(); !claiming { // that has a deadline of its own
		down, _ := g.machine.Deadline()
		e.Limit, e.Late = down.Sub(heard), max(0, now.Sub(down))
	}
	if e.Gaps > 0 {
		all := slices.Sorted(slices.Values(g.gaps.all[:e.Gaps]))
		e.Gap, e.Longest = all[e.Gaps/2], all[e.Gaps-1]
	}
	return e
}

// fields are what the log says of why and how fast.
func (t *Transition) fields() []zap.Field {
	var f []zap.Field
	if t.From == carp.Backup && t.To == carp.Master {
		e := &t.Evidence
		if e.Never {
			f = append(f, zap.Duration("listened", e.Heard))
		} else {
			f = append(f, zap.Duration("heard_before", e.Heard))
		}
		if e.Limit > 0 {
			f = append(f, zap.Duration("limit", e.Limit), zap.Duration("late", e.Late))
		}
		if e.Gaps > 0 {
			f = append(f, zap.Int("gaps", e.Gaps), zap.Duration("gap_median", e.Gap), zap.Duration("gap_longest", e.Longest))
		}
		if p := &t.Pulses; p.Missed > 0 {
			f = append(f, zap.Int("pulses_missed", p.Missed), zap.Duration("pulse_heard", p.Heard), zap.Duration("pulse_limit", p.Limit),
				zap.Duration("reflection", p.Reflection))
		}
	}
	if t.Demoted != "" {
		f = append(f, zap.String("demoted", t.Demoted))
	}
	for _, s := range []struct {
		name string
		at   time.Duration
	}{{"claimed", t.Pulses.Claim}, {"map", t.Steps.Map}, {"advert", t.Steps.Advert}, {"announced", t.Steps.Announced}} {
		if s.at > 0 {
			f = append(f, zap.Duration(s.name, s.at))
		}
	}
	return f
}
