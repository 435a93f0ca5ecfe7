package lab

import (
	"context"
	"encoding/json"
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
	s := &standin{silence: silence}
	sys := s.system(t)
	opt.Progress = t.Logf
	opt.Hold = func(context.Context, *Net) error { s.end(); return nil }
	res, err := Measure(t.Context(), sys, opt)
	s.end()
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
