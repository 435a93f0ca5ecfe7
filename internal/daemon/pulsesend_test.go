package daemon

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
)

// fakeCPUs counts how often they are left.
type fakeCPUs struct{ left, returned int }

func (f *fakeCPUs) Leave() error  { f.left++; return nil }
func (f *fakeCPUs) Return() error { f.returned++; return nil }

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
	check := func(what string, pace, want time.Duration, left, returned int) {
		t.Helper()
		if pace != want || f.left != left || f.returned != returned {
			t.Errorf("%s: pace %v, left %d times, returned %d; want %v, %d, %d", what, pace, f.left, f.returned, want, left, returned)
		}
	}
	const quick, slow, slower = 20 * time.Microsecond, 500 * time.Microsecond, 6 * time.Millisecond
	check("quick", sends(quick, quick, quick, quick, quick), 0, 0, 0)
	check("a moment", sends(slow, quick, quick, quick), 0, 0, 0)
	check("this machine stood still, or there is a flood", sends(slower), 0, 1, 0)
	check("it was that CPU", sends(quick, quick, quick, quick), 0, 1, 0)
	check("the other one as well", sends(slow, slow, slow, slow), slow*sendShare*lines, 1, 0)
	check("and worse", sends(slower, slower, slower, slower), pulseSlowest, 1, 0)
	now = now.Add(leaveEvery)
	check("back, then", sends(slower), pulseSlowest, 2, 0)
	check("it ends", sends(quick, quick, quick, quick), 0, 2, 0)
	now = now.Add(leaveFor)
	check("and is over", sends(quick), 0, 2, 1)
	check("for good", sends(quick, quick), 0, 2, 1)
}

func TestAllThreadsLeaveACPU(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Log("there is one CPU alone")
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := newCPUs()
	defer func() {
		if err := c.Return(); err != nil {
			t.Error(err)
		}
	}()
	n := c.may.Count()
	if err := c.Leave(); err != nil {
		t.Fatal(err)
	}
	for _, tid := range []int{0, os.Getpid()} {
		var may unix.CPUSet
		if err := unix.SchedGetaffinity(tid, &may); err != nil || may.Count() != n-1 {
			t.Errorf("thread %d may use %d of %d: %v", tid, may.Count(), n, err)
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
