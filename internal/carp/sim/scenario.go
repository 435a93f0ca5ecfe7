package sim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

const (
	vhid     = 7
	password = "simulated"

	// lateness is how late a process that runs gets to its timer, at most.
	lateness = 2 * time.Millisecond

	// calmDelay is how long a frame takes at most when all is well.
	calmDelay = 5 * time.Millisecond
)

// NodeConfig is what an operator wrote on one node.
type NodeConfig struct {
	Skew    uint8
	Preempt bool
	Addr    netip.Addr // its own on the carpdev
}

// Scenario is what a seed stands for, but for the events.
type Scenario struct {
	Seed    uint64
	Nodes   []NodeConfig
	AdvBase uint8
	Dual    bool // IPv4 and IPv6
	Shared  bool // no own addresses: adverts come from the shared one
	Echo    bool // the segment gives every frame back to its sender
	Trailer bool
	Auth    carp.Auth
	Split   carp.Split
	Attack  bool

	Chaos time.Duration // how long faults are made
	Every time.Duration // between two faults, on average
	Delay time.Duration // of a frame at most, in the chaos: more than the time between two is reordering
	Loss  float64
	Dup   float64
	Stall float64 // at each step of a process

	within  time.Duration // instead of what bound computes
	foreign int           // stations that are not nodes
	setBack bool          // a node without a trailer has begun with an old disk
}

// unit is the time between two adverts of a node without skew, and what all
// times of the chaos are in proportion to.
func (s *Scenario) unit() time.Duration {
	if s.AdvBase == 0 {
		return carp.Interval(0, s.Nodes[0].Skew)
	}
	return time.Duration(s.AdvBase) * time.Second
}

// bound is the time after which there must be one master, counted from when
// everything is well again: 3·advbase, the largest skew, one interval and the
// largest delay, here with what a process may be late. For advbase 0 the first
// two are what Machine makes of them. Of equals without trailers the one with the
// higher address makes way at the second advert of the other one, for the BSDs need an
// answer to the first: one interval more. A node without a trailer whose disk was set
// back says what it has said before: that is what a replay looks like, so the others
// do not believe it before they count it as gone, which is three master-down times.
// Nobody can tell it, for it has no key that a reminder could be signed with.
func (s *Scenario) bound() time.Duration {
	if s.within > 0 {
		return s.within
	}
	var down, interval time.Duration
	for _, n := range s.Nodes {
		down = max(down, carp.MasterDown(s.AdvBase, n.Skew))
		interval = max(interval, carp.Interval(s.AdvBase, n.Skew))
	}
	d := down + interval + s.Delay + 4*lateness
	if !s.Trailer {
		d += interval
	}
	if s.setBack {
		d += 3*down + interval
	}
	return d
}

// meeting is how long what was said before all was well may still be heard.
func (s *Scenario) meeting() time.Duration {
	if s.setBack {
		return s.bound() // or is what is not believed
	}
	return s.Delay + 2*lateness
}

// transitions is how often a node may become or cease to be master once all is
// well: twice in a pair, and three times among three, of which the third may be
// master first and is made way for, because its term is newer, before it is replaced in
// an orderly way. Of more two that preempt may meet so: a master that hears a worse
// one, which preempted before it did, makes way to its newer term, preempts it, and
// makes way to the best one, which was as late.
func (s *Scenario) transitions() int { return min(len(s.Nodes)+s.foreign, 4) }

// String describes the scenario in one line.
func (s *Scenario) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: advbase %d, nodes", s.Seed, s.AdvBase)
	for i, n := range s.Nodes {
		fmt.Fprintf(&b, " %s/%d", nodeName(i), n.Skew)
		if n.Preempt {
			b.WriteString("/preempt")
		}
	}
	fmt.Fprintf(&b, ", %v of chaos, a fault every %v, delay %v, loss %.2f, dup %.2f", s.Chaos, s.Every, s.Delay, s.Loss, s.Dup)
	for _, w := range []struct {
		on   bool
		name string
	}{
		{s.Dual, "dual stack"}, {s.Shared, "no own addresses"}, {s.Echo, "echo"}, {s.Trailer, "trailer " + s.Auth.String()},
		{s.Attack, "attacker"}, {s.Split == carp.SplitTakeover, "split takeover"}, {s.Stall > 0, "stalls"},
	} {
		if w.on {
			b.WriteString(", " + w.name)
		}
	}
	return b.String()
}

func nodeName(i int) string { return "fw-" + string(rune('a'+i)) }

// shared are the addresses of the group.
func shared(s *Scenario) []netip.Addr {
	a := []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, 100})}
	if s.Dual {
		a = append(a, netip.MustParseAddr("2001:db8::100"))
	}
	return a
}

func trailerKeys(s *Scenario) []*carp.TrailerKey {
	if !s.Trailer {
		return nil
	}
	return []*carp.TrailerKey{carp.NewTrailerKey([32]byte{'s', 'i', 'm'}, "wan", vhid)}
}

// NewScenario makes what a seed stands for.
func NewScenario(seed uint64) *Scenario {
	r := rand.New(rand.NewPCG(seed, 1))
	s := &Scenario{Seed: seed, AdvBase: 1}
	switch r.IntN(10) {
	case 0:
		s.AdvBase = 0
	case 1:
		s.AdvBase = uint8(2 + r.IntN(2))
	}
	equal := r.IntN(3) == 0 || s.AdvBase == 0 // with advbase 0 other skews have no common safe lease
	preempt := r.IntN(4)                      // 0: none, 1, 2: all, 3: some
	skew := uint8(r.IntN(200))
	if s.AdvBase == 0 {
		skew = uint8(25 + r.IntN(200))
	}
	for i := range 2 + max(0, r.IntN(7)-3) {
		n := NodeConfig{Skew: skew, Preempt: preempt == 1 || preempt == 2 || preempt == 3 && r.IntN(2) == 0}
		if !equal {
			n.Skew = uint8(r.IntN(255))
			if r.IntN(4) == 0 {
				n.Skew = uint8(r.IntN(3)) * 50 // some equal ones
			}
		}
		n.Addr = netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + i)})
		s.Nodes = append(s.Nodes, n)
	}
	r.Shuffle(len(s.Nodes), func(i, j int) { s.Nodes[i].Addr, s.Nodes[j].Addr = s.Nodes[j].Addr, s.Nodes[i].Addr })
	s.Dual = r.IntN(3) == 0
	s.Shared = r.IntN(4) == 0
	s.Echo = r.IntN(6) == 0
	s.Trailer = r.IntN(5) != 0
	if s.Trailer {
		s.Attack = r.IntN(2) == 0
		s.Auth = carp.Auth(r.IntN(3))
	}
	s.Split = carp.Split(r.IntN(2))
	u := s.unit()
	s.Chaos = between(r, 15*u, 40*u)
	s.Every = between(r, u/2, 5*u)
	s.Delay = calmDelay
	switch r.IntN(3) {
	case 0:
		s.Delay = between(r, calmDelay, max(u/4, calmDelay+1))
	case 1:
		s.Delay = between(r, calmDelay, max(2*u, calmDelay+1))
	}
	s.Loss = []float64{0, 0, 0.02, 0.2, 0.5}[r.IntN(5)]
	s.Dup = []float64{0, 0, 0.1, 0.3}[r.IntN(4)]
	s.Stall = []float64{0, 0, 0.002, 0.02}[r.IntN(4)]
	return s
}

// rank is how good the node is: the lower the better. It is computed here once
// more, so that a Machine that compares wrongly is found out.
func (n *node) rank() int {
	d := 0
	if n.m != nil {
		d = n.m.Demotion()
	}
	skew := int(n.cfg.Skew)
	if d > 0 {
		skew = max(skew, min(240, skew+d))
	}
	return d<<16 | int(n.w.sc.AdvBase)<<8 | skew
}
