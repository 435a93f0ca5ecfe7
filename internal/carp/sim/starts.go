package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// Start says who is started at the same time, all with one advbase and advskew.
type Start struct {
	Nodes   int
	Foreign []Foreign
	Shared  bool // our nodes have no addresses of their own
	Trailer bool
}

// Run starts equals within a millisecond and demands that in due time there is
// one master, and that it stays.
func (s Start) Run(seed uint64, trace io.Writer) Result {
	r := rand.New(rand.NewPCG(seed, 3))
	sc := &Scenario{Seed: seed, AdvBase: 1, Shared: s.Shared, Trailer: s.Trailer, Delay: time.Millisecond, foreign: len(s.Foreign)}
	skew := uint8(r.IntN(255))
	addrs := r.Perm(s.Nodes + len(s.Foreign))
	for i := range s.Nodes {
		sc.Nodes = append(sc.Nodes, NodeConfig{
			Skew: skew, Preempt: r.IntN(2) == 0, Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + addrs[i])}),
		})
	}
	// All hear nothing for a master-down time, and then each other.
	sc.within = carp.MasterDown(sc.AdvBase, skew) + carp.Interval(sc.AdvBase, skew) + sc.Delay + 4*lateness
	w := newWorld(sc)
	w.trace, w.calm, w.delay = trace, true, sc.Delay
	if trace != nil {
		fmt.Fprintf(trace, "# %v\n", sc)
	}
	for _, n := range w.nodes {
		w.later(w.between(0, time.Millisecond), n.boot)
		w.push(event{at: w.between(0, beatEvery), kind: evBeat, to: n.i})
	}
	for i, k := range s.Foreign {
		f := &foreign{w: w, i: len(w.stations), kind: k, skew: skew, addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + addrs[s.Nodes+i])})}
		if k == OpenBSD {
			sc.within += 2 * skewTime(skew)
		}
		if k == UCARP && r.IntN(2) == 0 {
			f.batch = time.Second // the time-out of its libpcap
			sc.within += f.batch
		}
		w.stations = append(w.stations, f)
		w.later(w.between(0, time.Millisecond), f.start)
	}
	w.grow()
	w.run(2 * time.Millisecond)
	w.check.calm()
	w.settle()
	return Result{Scenario: sc, Broken: w.check.broken, Events: w.count, Transitions: w.check.total}
}

func skewTime(skew uint8) time.Duration { return time.Duration(skew) * time.Second / 256 }
