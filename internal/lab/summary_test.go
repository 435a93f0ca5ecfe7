package lab

import "testing"

func TestSummaryTellsPromisesKeptFromBroken(t *testing.T) {
	run := func(blackout, stall float64, ok bool) Result {
		return Result{
			Fault: Crash, Sync: true, BlackoutMS: blackout, ProbesLost: int(2 * blackout), PathRecovered: true, RigStallMS: 2,
			TCP: TCP{Survived: ok, StallMS: stall}, Failback: Failback{FlowsOpened: 10, FlowsAlive: 9},
		}
	}
	got, kept := Summary([]Result{run(3000, 3100, true), run(3442, 6000, true), run(3443, 3500, false), run(2500, 2600, true)})
	const want = `4 runs of crash, sync true
  blackout  median 3221.0 ms, max 3443.0 ms; 24770 probes lost in all
  tcp       survived 3 of 4, stall median 3300.0 ms, max 6000.0 ms, 0 resets
  failback  36 of 40 flows opened meanwhile alive
  promise   3390.6 ms + 50 ms + the prober's own stall: kept in 3 of 4
`
	if kept {
		t.Error("a broken promise counts as kept")
	}
	if _, kept := Summary([]Result{run(3000, 3100, true), run(2500, 2600, true)}); !kept {
		t.Error("a promise that was kept counts as broken")
	}
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
