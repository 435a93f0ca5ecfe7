package lab

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/nstest"
)

// plainRules forwards everything, translates nothing and tracks nothing: a
// connection needs no state to survive a move.
const plainRules = "flush ruleset\n"

// plain makes the lab one of routers without state.
func plain(ctx context.Context, n *Net) error {
	for _, r := range n.Routers() {
		if err := r.loadRuleset(ctx, plainRules); err != nil {
			return err
		}
	}
	_, err := n.Server.NS.Run(ctx, "ip", "route", "add", "10.0.0.0/24", "via", SharedWAN)
	return err
}

// measure runs the stand-in under a fault and checks that nothing is left.
func measure(t *testing.T, silence time.Duration, opt Options) Result {
	t.Helper()
	nstest.RequireRoot(t)
	nstest.RequireProgram(t, "nft")
	t.Setenv(standinEnv, silence.String())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	opt.Progress = t.Logf
	res, err := Measure(t.Context(), XCarp(self, true), opt)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", b)
	noLeftovers(t)
	return res
}

// noLeftovers fails if a lab of this process left anything on the machine.
func noLeftovers(t *testing.T) {
	t.Helper()
	for _, glob := range []string{
		"/run/netns/" + nsPrefix + pid() + "-*",
		filepath.Join(os.TempDir(), dirPrefix+pid()+"-*"),
		filepath.Join(pinRoot, pinPrefix+pid()+"-*"),
	} {
		if left, _ := filepath.Glob(glob); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// near fails unless got is within the window.
func near(t *testing.T, what string, got, least, most float64) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s: got %.1f, want %.1f to %.1f", what, got, least, most)
	}
}

func TestCrashWithoutStateKillsTheDownload(t *testing.T) {
	res := measure(t, 500*time.Millisecond, Options{Fault: Crash})
	// The last heartbeat is up to 10 ms old at the fault, and the silence is
	// noticed up to 10 ms late; the rest is this machine.
	near(t, "blackout_ms", res.BlackoutMS, 480, 700+res.RigStallMS)
	if res.TCP.Survived || res.TCP.Resumed {
		t.Error("the download survived a move without its state")
	}
	near(t, "tcp.stall_ms", res.TCP.StallMS, 9000, 12000)
	if !res.PathRecovered || res.MastersAfter != 1 {
		t.Errorf("path recovered %v, masters %+v, want one", res.PathRecovered, res.Masters)
	}
	if f := res.Failback; !f.Done || f.FlowsOpened != f.FlowsTried || f.FlowsAlive >= f.FlowsOpened {
		t.Errorf("failback: got %+v, want done, all flows opened, not all alive without state", f)
	}
}

func TestCrashOfStatelessRoutersKeepsTheDownload(t *testing.T) {
	res := measure(t, 300*time.Millisecond, Options{Fault: Crash, prepare: plain})
	near(t, "blackout_ms", res.BlackoutMS, 280, 500+res.RigStallMS)
	if !res.TCP.Survived || !res.TCP.Intact || res.TCP.LostBytes != 0 {
		t.Errorf("tcp: got %+v, want survived and intact", res.TCP)
	}
	near(t, "tcp.stall_ms", res.TCP.StallMS, 280, 2000)
	if f := res.Failback; !f.TCPAlive || f.FlowsAlive != f.FlowsTried || f.BytesBefore < failbackBytes/2 {
		t.Errorf("failback: got %+v, want the download and all flows alive", f)
	}
}

func TestAKilledDaemonIsRestarted(t *testing.T) {
	// The stand-in's addresses outlive it, so nobody notices.
	res := measure(t, 2*time.Second, Options{Fault: Kill9})
	if !res.TCP.Survived || res.MovedMS != 0 || !res.Failback.Done {
		t.Errorf("got %+v, want survived and no move", res)
	}
	near(t, "blackout_ms", res.BlackoutMS, 0, 50+res.RigStallMS)
}

func TestAHungDaemonLeavesTwoMasters(t *testing.T) {
	// Which is what xcarp is there to prevent, and what the lab must see.
	res := measure(t, 300*time.Millisecond, Options{Fault: Sigstop, prepare: plain})
	if res.MastersAfter != 2 || res.MovedMS == 0 {
		t.Errorf("got masters %+v, moved after %.0f ms, want two masters", res.Masters, res.MovedMS)
	}
	if len(res.Transitions) < 2 || res.Transitions[0].Node != "fw-b" || res.Transitions[0].To != string(Master) {
		t.Errorf("transitions: got %+v, want fw-b MASTER first", res.Transitions)
	}
}

func TestAStoppedAndAPoweredOffRouterComeBack(t *testing.T) {
	for _, f := range []Fault{Stop, Poweroff} {
		t.Run(string(f), func(t *testing.T) {
			res := measure(t, 200*time.Millisecond, Options{Fault: f, prepare: plain})
			near(t, "blackout_ms", res.BlackoutMS, 180, 400+res.RigStallMS)
			if !res.TCP.Survived || !res.Failback.Done || !res.Failback.TCPAlive {
				t.Errorf("got %+v, want survived and back", res)
			}
		})
	}
}

func TestNothingIsLeftOfAnInterruptedRun(t *testing.T) {
	nstest.RequireRoot(t)
	nstest.RequireProgram(t, "nft")
	t.Setenv(standinEnv, "200ms")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = Measure(ctx, XCarp(self, true), Options{Fault: Crash, Progress: func(format string, _ ...any) {
		if format == "fault: %s of fw-a" { // just before the fault
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the interruption", err)
	}
	noLeftovers(t)
}
