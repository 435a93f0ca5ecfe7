package lab

import (
	"fmt"
	"slices"
	"strings"
)

// promisedMS is how long a path may be dark at most after a crash, with the lab's
// timers: the backup's master-down time, 50 ms for everything else, and what the
// prober itself was late in that run.
func (r *Result) promisedMS() float64 {
	return masterDownMS + 50 + r.RigStallMS
}

// Summary puts several runs of one fault, at least one, into a few lines: what was
// lost, and for a crash whether each run kept the promise. kept is false if one did
// not, or if a download that should have survived did not, or the other way round.
func Summary(results []Result) (text string, kept bool) {
	var blackouts, stalls []float64
	survived, resets, lost, within, flows, alive := 0, 0, 0, 0, 0, 0
	for _, r := range results {
		blackouts, stalls = append(blackouts, r.BlackoutMS), append(stalls, r.TCP.StallMS)
		resets += r.TCP.Resets
		lost += r.ProbesLost
		flows += r.Failback.FlowsOpened
		alive += r.Failback.FlowsAlive
		if r.TCP.Survived {
			survived++
		}
		if r.PathRecovered && r.BlackoutMS <= r.promisedMS() {
			within++
		}
	}
	slices.Sort(blackouts)
	slices.Sort(stalls)
	first := results[0]
	var b strings.Builder
	fmt.Fprintf(&b, "%d runs of %s, sync %t\n", len(results), first.Fault, first.Sync)
	fmt.Fprintf(&b, "  blackout  median %.1f ms, max %.1f ms; %d probes lost in all\n", median(blackouts), blackouts[len(blackouts)-1], lost)
	fmt.Fprintf(&b, "  tcp       survived %d of %d, stall median %.1f ms, max %.1f ms, %d resets\n", survived, len(results), median(stalls), stalls[len(stalls)-1], resets)
	fmt.Fprintf(&b, "  failback  %d of %d flows opened meanwhile alive\n", alive, flows)
	if first.Fault == Crash {
		fmt.Fprintf(&b, "  promise   %.1f ms + 50 ms + the prober's own stall: kept in %d of %d\n", masterDownMS, within, len(results))
	}
	kept = survived == len(results) && (first.Fault != Crash || within == len(results))
	if !first.Sync {
		kept = survived == 0
	}
	return b.String(), kept
}

// median of values in order.
func median(v []float64) float64 {
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
