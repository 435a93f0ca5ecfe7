package test

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/xcarp/xcarp/internal/bench"
	"github.com/xcarp/xcarp/internal/nstest"
)

// TestBenchMeasuresTwoSystems is the benchmark in small. Nothing is judged by the
// clock: what is checked is that faults were made, seen, and counted. On a busy
// machine the shortest timers move roles by themselves, so no count is an exact one.
func TestBenchMeasuresTwoSystems(t *testing.T) {
	nstest.RequireRoot(t)
	nstest.RequireProgram(t, "nft")
	nstest.RequireProgram(t, "ucarp")
	out, err := exec.Command(labBin, "bench", "failover", "--runs", "1", "--systems", "xcarp,ucarp", "--profiles", "classic,skew4", "-o", "json", "--xcarp", xcarpBin).Output()
	if err != nil {
		var stderr []byte
		if e, ok := err.(*exec.ExitError); ok {
			stderr = e.Stderr
		}
		t.Fatalf("xcarp-lab bench failover: %v: %s", err, stderr)
	}
	var rep bench.Report
	if err := json.Unmarshal(out, &rep); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	crashes := 0
	for _, row := range rep.Rows {
		if row.Runs != 1 {
			t.Errorf("%s %s, %s: %d runs, want 1", row.System, row.Profile, row.Fault, row.Runs)
		}
		run := row.Raw[0]
		if run.Error != "" {
			t.Errorf("%s %s, %s: %s", row.System, row.Profile, row.Fault, run.Error)
			continue
		}
		if run.Sent == 0 || run.Queries == 0 {
			t.Errorf("%s, %s: %d probes, %d queries", row.System, row.Fault, run.Sent, run.Queries)
		}
		if row.Fault != "crash" {
			continue
		}
		crashes++
		if run.Lost+run.Lost6 == 0 || run.Transitions == 0 {
			t.Errorf("%s: a crash cost %d probes and %d transitions", row.System, run.Lost+run.Lost6, run.Transitions)
		}
	}
	if crashes != 2 || len(rep.Configs) == 0 || rep.Noise.Sends == 0 {
		t.Errorf("%d crashes, %d configurations, %d sends, want two systems described", crashes, len(rep.Configs), rep.Noise.Sends)
	}
}

// lossless measures faults in which nothing may be lost, there and back, and asserts
// that: every probe of both families arrived once and was answered once, no question was
// answered twice, no connection was reset, and the roles are where they should be.
func lossless(t *testing.T, modes, faults string) []bench.Row {
	nstest.RequireRoot(t)
	nstest.RequireProgram(t, "nft")
	out, err := exec.Command(labBin, "bench", "failover", "--runs", "1", "--systems", "xcarp", "--profiles", "default",
		"--modes", modes, "--faults", faults, "-o", "json", "--xcarp", xcarpBin).Output()
	if err != nil {
		t.Fatal(err)
	}
	var rep bench.Report
	if err := json.Unmarshal(out, &rep); err != nil || len(rep.Rows) == 0 {
		t.Fatalf("%v in %s", err, out)
	}
	asked := map[string]bool{"handover": true, "restart": true} // whose nodes live on
	for _, f := range strings.Split(faults, ",") {
		asked["failback:"+f] = true
	}
	for _, row := range rep.Rows {
		for _, r := range row.Raw {
			what := row.Fault + ", " + row.Mode
			t.Logf("%s: %d probes, %d and %d lost, %d queries, stall %.1f ms", what, r.Sent, r.Lost, r.Lost6, r.Queries, r.TCP.StallMS())
			switch {
			case r.Error != "":
				t.Errorf("%s: %s", what, r.Error)
			case r.Sent == 0 || r.Queries == 0 || r.Lost+r.Lost6 != 0 || r.DoubleForwards != 0 || r.DoubleAnswers != 0 ||
				!r.TCP.Survived || r.TCP.Resets != 0 || asked[row.Fault] && !r.Settled:
				t.Errorf("%s: %+v", what, r)
			}
		}
	}
	return rep.Rows
}

func TestPlannedMovesLoseNothing(t *testing.T) {
	lossless(t, "route,nat,masquerade", "stop,handover,restart")
}

// A daemon that nobody starts again, or that hangs, costs nothing either: it is claimed
// from. Hung ones go on afterwards, and say nothing for a role that they have lost. What
// was opened before the claim and not mirrored any more may break, nothing later.
func TestALostDaemonCostsNothing(t *testing.T) {
	const window = 3 * (300 + 50) // ms: of liveness, and what a claim may take; a deadline
	for _, row := range lossless(t, "nat", "kill9,sigstop") {
		n := row.Raw[0].New
		if strings.HasPrefix(row.Fault, "failback") {
			continue
		}
		if n == nil || n.Opened < 100 || n.Broken > 0 && n.LastMS > window {
			t.Errorf("%s: new connections: %+v", row.Fault, n)
			continue
		}
		t.Logf("%s: %+v", row.Fault, *n)
	}
}

// TestFlapMeasures lets a pair bear a flood for a moment: what is checked is that
// the flood went through it.
func TestFlapMeasures(t *testing.T) {
	nstest.RequireRoot(t)
	nstest.RequireProgram(t, "nft")
	nstest.RequireProgram(t, "keepalived")
	out, err := exec.Command(labBin, "bench", "flap", "--for", "1s", "--systems", "keepalived", "--profiles", "1s", "--cases", "flood,hogs2", "-o", "json", "--xcarp", xcarpBin).Output()
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Rows []bench.Flap }
	if err := json.Unmarshal(out, &got); err != nil || len(got.Rows) != 2 {
		t.Fatalf("%v in %s", err, out)
	}
	for _, r := range got.Rows {
		if r.Error != "" || r.Sent == 0 || r.Sent == r.Lost || (r.Frames > 0) != (r.Case == "flood") {
			t.Errorf("got %+v", r)
		}
	}
}

func TestProbeMeasuresAnAddress(t *testing.T) {
	nstest.RequireRoot(t) // for the raw socket
	out, err := exec.Command(labBin, "probe", "--for", "200ms", "-o", "json", "127.0.0.1", "::1").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Rows []bench.Sight }
	if err := json.Unmarshal(out, &got); err != nil || len(got.Rows) != 2 {
		t.Fatalf("%v in %s", err, out)
	}
	for _, s := range got.Rows {
		if s.Sent == 0 || s.Sent == s.Lost {
			t.Errorf("%s: %d probes, %d lost", s.Address, s.Sent, s.Lost)
		}
	}
}
