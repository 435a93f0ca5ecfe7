package lab

import (
	"bufio"
	"context"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/bench"
)

// FailoverOptions say what to measure.
type FailoverOptions struct {
	Systems []System
	Faults  []Fault
	Modes   []Mode
	Flows   int
	Runs    int
	Budget  time.Duration // no new round begins when this has passed; 0: all are made

	Progress func(format string, args ...any)
	// Seen is told each run as it comes. Optional.
	Seen func(bench.Run)
}

// Plan lists the trials in the order in which they are made: system by system,
// then again, so that whatever the machine does meanwhile meets all of them.
func (o FailoverOptions) Plan() []Trial {
	var plan []Trial
	for range o.Runs {
		for _, mode := range o.Modes {
			for _, fault := range o.Faults {
				for _, sys := range o.Systems {
					if !sys.knows(fault) {
						continue
					}
					plan = append(plan, Trial{System: sys, Fault: fault, Mode: mode, Flows: o.Flows, Order: len(plan) + 1})
				}
			}
		}
	}
	return plan
}

// knows reports whether the fault can be made of the system.
func (s System) knows(f Fault) bool {
	switch f {
	case Handover:
		return s.Handover != nil
	case Restart:
		return s.Restart != nil
	}
	return true
}

// MeasureFailover makes all trials. An interrupted benchmark returns what it has.
func MeasureFailover(ctx context.Context, opt FailoverOptions) bench.Report {
	rep := bench.Report{Began: time.Now(), Host: thisHost(), Versions: map[string]string{}, Configs: []bench.Config{}, Absent: []string{}}
	for _, s := range opt.Systems {
		rep.Versions[s.Name] = s.Version()
	}
	plan := opt.Plan()
	gaps := &bench.Gaps{}
	described := map[string]bool{}
	var runs []bench.Run
	var loads []float64
	for i, t := range plan {
		if ctx.Err() != nil || opt.Budget > 0 && i%(len(plan)/opt.Runs) == 0 && i > 0 && time.Since(rep.Began) > opt.Budget {
			break
		}
		opt.Progress("%d of %d: %s, %s, %s", i+1, len(plan), t.System.Label(), t.Fault, t.Mode)
		t.Gaps = gaps
		if !described[t.System.Label()] {
			described[t.System.Label()] = true
			t.Configs = func(file, text string) {
				rep.Configs = append(rep.Configs, bench.Config{System: t.System.Name, Profile: t.System.Profile, File: file, Text: text})
			}
		}
		made := t.Run(ctx)
		if ctx.Err() != nil {
			break // it was interrupted, not measured
		}
		for _, run := range made {
			if opt.Seen != nil {
				opt.Seen(run)
			}
			loads = append(loads, run.Load)
		}
		runs = append(runs, made...)
	}
	rep.Rows = bench.Rows(inOrder(runs, opt))
	rep.Noise = gaps.Noise()
	if s := bench.NewSpread(loads); s != nil {
		rep.Noise.Load = s.P50
	}
	rep.TookS = time.Since(rep.Began).Seconds()
	return rep
}

// inOrder puts runs of a fault together, and its failback after it.
func inOrder(runs []bench.Run, opt FailoverOptions) []bench.Run {
	rank := map[string]int{}
	for _, m := range opt.Modes {
		for _, f := range opt.Faults {
			rank[string(m)+" "+string(f)] = len(rank)
			rank[string(m)+" failback:"+string(f)] = len(rank)
		}
	}
	slices.SortStableFunc(runs, func(a, b bench.Run) int {
		return rank[a.Mode+" "+a.Fault] - rank[b.Mode+" "+b.Fault]
	})
	return runs
}

// thisHost describes the machine.
func thisHost() bench.Host {
	h := bench.Host{CPUs: runtime.NumCPU()}
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if key, value, ok := strings.Cut(sc.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
				h.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	return h
}
