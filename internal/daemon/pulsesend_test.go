package daemon

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// fakeCPUs counts how often one is left.
type fakeCPUs struct {
	left int
	only error // there is one CPU only
}

func (f *fakeCPUs) Leave() error { f.left++; return f.only }

func TestSlowSendsMoveAndSlowDown(t *testing.T) {
	const lines = 2
	f := &fakeCPUs{}
	c := sendCost{cpus: f}
	now := carp.BootTime(time.Hour)
	sends := func(took ...time.Duration) (pace time.Duration) {
		for _, d := range took {
			now = now.Add(5 * time.Millisecond)
			c.add(d)
			pace = c.pace(now, lines)
		}
		return pace
	}
	check := func(what string, pace, want time.Duration, left int) {
		t.Helper()
		if pace != want || f.left != left {
			t.Errorf("%s: pace %v, left %d times; want %v, %d", what, pace, f.left, want, left)
		}
	}
	const quick, slow, slower = 20 * time.Microsecond, 500 * time.Microsecond, 6 * time.Millisecond
	eight := func(d time.Duration) []time.Duration { return slices.Repeat([]time.Duration{d}, len(c.took)) }
	check("quick", sends(eight(quick)...), 0, 0)
	check("a moment", sends(slow), 0, 0)
	check("over", sends(eight(quick)...), 0, 0)
	check("this machine stood still, or there is a flood", sends(slower), 0, 1)
	check("it was that CPU", sends(eight(quick)...), 0, 1)
	check("one in four", sends(slow, quick, quick, quick, slow, quick, quick, quick), slowedLeast, 1)
	check("all on the other CPU as well", sends(eight(slow)...), slow*sendShare*lines, 1)
	check("and worse", sends(eight(slower)...), pulseSlowest, 2)
	now = now.Add(leaveEvery)
	check("back, then", sends(slower), pulseSlowest, 3)
	check("it ends", sends(eight(quick)...), 0, 3)
	now = now.Add(leaveEvery)
	now = now.Add(floodedFor)
	c.Flooded(now)
	check("a flood of adverts that slows nothing", sends(eight(quick)...), 0, 3)
	check("and something", sends(slower), floodedLeast, 4)
	check("another CPU", sends(eight(quick)...), floodedLeast, 4)
	check("a little slow", sends(eight(150*time.Microsecond)...), floodedLeast, 4)
	check("all on the other CPU", sends(eight(slower)...), pulseSlowest, 5)
	check("elsewhere again", sends(eight(quick)...), floodedLeast, 5)
	now = now.Add(floodedFor)
	check("it is over", sends(quick), 0, 5)
	f.only = errors.New("one CPU")
	check("nowhere to go", sends(slower), 0, 6)
	c.off = true
	check("no real-time thread", sends(eight(slower)...), 0, 6)
}

// TestAStarvedElectionIsSustained, one that hangs is not.
func TestAStarvedElectionIsSustained(t *testing.T) {
	now := carp.BootTime(time.Hour)
	for _, tt := range []struct {
		alive time.Duration // before now
		want  bool
	}{
		{0, true},
		{livenessEvery, true},
		{900 * time.Millisecond, true},
		{1100 * time.Millisecond, false},
		{time.Hour, false},
	} {
		var m member
		m.alive.Store(int64(time.Hour - tt.alive))
		if got := m.sustained(now); got != tt.want {
			t.Errorf("alive %v before: %v, want %v", tt.alive, got, tt.want)
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

// TestAFloodIsARate: what was refused in a long time is none, nor are counters that were
// made anew.
func TestAFloodIsARate(t *testing.T) {
	at := carp.BootTime(time.Hour)
	for _, tt := range []struct {
		n     uint64 // after 1000
		after time.Duration
		want  bool
	}{
		{1000, time.Second, false},
		{11_000, time.Second, false},
		{11_001, time.Second, true},
		{6001, time.Second / 2, true},
		{11_001, time.Hour, false},
		{0, time.Second, false},
	} {
		if got := (refusals{1000, at}).flood(refusals{tt.n, at.Add(tt.after)}); got != tt.want {
			t.Errorf("from 1000 to %d in %v: a flood %v, want %v", tt.n, tt.after, got, tt.want)
		}
	}
}
