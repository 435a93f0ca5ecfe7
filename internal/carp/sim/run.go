package sim

import (
	"fmt"
	"io"
	"math"
	"time"
)

// Result is what became of a simulation.
type Result struct {
	Scenario    *Scenario
	Broken      *Violation // nil: all rules held
	Events      int
	Transitions int
	Refused     int // adverts that somebody received and did not believe, where there is an attacker
}

// Run simulates what a seed stands for. The trace, one line per event, goes to
// trace if that is not nil; record, if not nil, is asked for a place for the
// script of each process of each node: see Replay.
func Run(seed uint64, trace io.Writer, record func(node string, process int) io.Writer) Result {
	return runScenario(NewScenario(seed), trace, record)
}

func runScenario(sc *Scenario, trace io.Writer, record func(string, int) io.Writer) Result {
	w := newWorld(sc)
	w.trace = trace
	if trace != nil {
		fmt.Fprintf(trace, "# %v\n", sc)
	}
	for _, n := range w.nodes {
		if record != nil {
			n.script = func(line string) { fmt.Fprintln(record(n.name, n.process), line) }
		}
		w.later(w.between(0, sc.unit()), func() {
			if n.m == nil && !n.powered {
				n.boot()
			}
		})
		w.push(event{at: w.between(0, beatEvery), kind: evBeat, to: n.i})
	}
	if sc.Attack {
		w.attack = &attacker{w: w, siege: w.chance(0.5)}
		w.later(sc.unit(), w.attack.act)
	}
	var fault func()
	fault = func() {
		if w.now < sc.Chaos {
			w.fault()
			w.later(time.Duration(-math.Log(1-w.rng.Float64())*float64(sc.Every)), fault)
		}
	}
	w.later(sc.unit(), fault)
	w.run(sc.Chaos)
	if w.check.broken == nil {
		w.heal()
		w.check.calm()
		w.settle()
	}
	r := Result{Scenario: sc, Broken: w.check.broken, Events: w.count, Transitions: w.check.total}
	if w.attack != nil {
		r.Refused = w.attack.refused
	}
	return r
}

// settle runs the world until there must be one master, and some intervals more
// in which nothing may happen.
func (w *world) settle() {
	for w.check.broken == nil {
		until := w.check.due + 10*w.sc.unit()
		w.run(until)
		if w.check.due+10*w.sc.unit() == until {
			break
		}
	}
	w.check.end()
}
