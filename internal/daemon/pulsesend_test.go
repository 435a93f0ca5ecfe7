package daemon

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// fakeCPUs counts how often they are left.
type fakeCPUs struct {
	left, returned int
	back           bool
	only           error // there is one CPU only
}

func (f *fakeCPUs) Leave() error  { f.left++; return f.only }
func (f *fakeCPUs) Return() error { f.returned++; return nil }
func (f *fakeCPUs) Back() bool    { return f.back }

func TestSlowSendsMoveAndSlowDown(t *testing.T) {
	const lines = 2
	f := &fakeCPUs{}
	c := sendCost{cpus: f}
	now := carp.BootTime(time.Hour)
	starved := false
	sends := func(took ...time.Duration) (pace time.Duration) {
		for _, d := range took {
			now = now.Add(5 * time.Millisecond)
			c.add(d)
			pace = c.pace(now, lines, starved)
		}
		return pace
	}
	check := func(what string, pace, want time.Duration, left, returned int) {
		t.Helper()
		if pace != want || f.left != left || f.returned != returned {
			t.Errorf("%s: pace %v, left %d times, returned %d; want %v, %d, %d", what, pace, f.left, f.returned, want, left, returned)
		}
	}
	const quick, slow, slower = 20 * time.Microsecond, 500 * time.Microsecond, 6 * time.Millisecond
	eight := func(d time.Duration) []time.Duration { return slices.Repeat([]time.Duration{d}, len(c.took)) }
	check("quick", sends(eight(quick)...), 0, 0, 0)
	check("a moment", sends(slow), 0, 0, 0)
	check("over", sends(eight(quick)...), 0, 0, 0)
	check("this machine stood still, or there is a flood", sends(slower), 0, 1, 0)
	check("it was that CPU", sends(eight(quick)...), 0, 1, 0)
	check("one in four", sends(slow, quick, quick, quick, slow, quick, quick, quick), slowedLeast, 1, 0)
	check("all on the other CPU as well", sends(eight(slow)...), slow*sendShare*lines, 1, 0)
	check("and worse", sends(eight(slower)...), pulseSlowest, 2, 0)
	now = now.Add(leaveEvery)
	check("back, then", sends(slower), pulseSlowest, 3, 0)
	check("it ends", sends(eight(quick)...), 0, 3, 0)
	now = now.Add(leaveFor)
	check("and is over", sends(quick), 0, 3, 1)
	check("for good", sends(eight(quick)...), 0, 3, 1)
	now = now.Add(leaveEvery)
	check("again", sends(slower), 0, 4, 1)
	starved = true
	check("they starved before, too", sends(quick), 0, 4, 1)
	now = now.Add(electionLate)
	check("it has followed, and the others starve", sends(quick), 0, 4, 2)
	check("they starve where they may use all", sends(quick), 0, 4, 2)
	starved = false
	check("a while", sends(slices.Repeat(eight(quick), 3)...), 0, 4, 2)
	check("it is here", sends(slower), 0, 5, 2)
	f.back = true
	check("the kernel moves the thread back", sends(eight(quick)...), 0, 5, 2)
	now = now.Add(leaveBack)
	check("where it is quiet now", sends(quick), 0, 5, 3)
	f.back, f.only = false, errors.New("one CPU")
	now = now.Add(leaveEvery)
	check("nowhere to go", sends(slower), 0, 6, 3)
	now, starved = now.Add(electionLate), true
	check("nowhere to come back from", sends(quick), 0, 6, 3)
	c.off = true
	check("no real-time thread", sends(eight(slower)...), 0, 6, 3)
}

// TestAStarvedElectionIsSustained, one that hangs is not.
func TestAStarvedElectionIsSustained(t *testing.T) {
	now := carp.BootTime(time.Hour)
	for _, tt := range []struct {
		alive time.Duration // before now
		want  bool
		late  bool // so that it may use all CPUs
	}{
		{0, true, false},
		{livenessEvery, true, false},
		{electionLate + time.Millisecond, true, true},
		{900 * time.Millisecond, true, true},
		{1100 * time.Millisecond, false, false},
		{time.Hour, false, false},
	} {
		var m member
		m.alive.Store(int64(time.Hour - tt.alive))
		if got := m.sustained(now); got != tt.want {
			t.Errorf("alive %v before: %v, want %v", tt.alive, got, tt.want)
		}
		if got := m.late(now); got != tt.late {
			t.Errorf("alive %v before: late %v, want %v", tt.alive, got, tt.late)
		}
	}
}

// TestAVerdictWaitsForNoOther: what is in doubt for as long as it takes to look at the
// sync device, too, is certain at once after that.
func TestAVerdictWaitsForNoOther(t *testing.T) {
	now := carp.BootTime(time.Hour)
	w := watched{acted: now, actedOn: carp.Doubt}
	for _, tt := range []struct {
		silence carp.Silence
		after   time.Duration
		want    bool
	}{
		{carp.Doubt, 30 * time.Microsecond, false},
		{carp.Gone, 30 * time.Microsecond, true},
		{carp.Doubt, pulseAgain, true},
	} {
		if got := w.news(tt.silence, now.Add(tt.after)); got != tt.want {
			t.Errorf("%v after %v: %v, want %v", tt.silence, tt.after, got, tt.want)
		}
	}
}
