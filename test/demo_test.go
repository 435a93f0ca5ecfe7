package test

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/xcarp/xcarp/internal/nstest"
)

// demoResult is what the demo measured, as far as it must be exact here.
type demoResult struct {
	System, Fault, Mode string
	BlackoutMS          *float64 `json:"blackout_ms"`
	ProbesSent          int      `json:"probes_sent"`
	ProbesLost          int      `json:"probes_lost"`
	TCP                 struct {
		Survived *bool
		StallMS  *float64 `json:"stall_ms"`
		Bytes    int64
		Resets   int
	}
	MastersAfter int     `json:"masters_after"`
	TookMS       float64 `json:"took_ms"`
	Peers        []any
	Failback     struct {
		Done        bool
		TCPAlive    bool  `json:"tcp_alive"`
		FlowsOpened int   `json:"flows_opened"`
		FlowsAlive  int   `json:"flows_alive"`
		BytesBefore int64 `json:"bytes_before"`
	}
	Transitions []struct{ Node, To, Reason string }
}

// demo runs the demo once. Nothing is judged by the clock here: `make bench` is
// for that.
func demo(t *testing.T, arg ...string) demoResult {
	t.Helper()
	nstest.RequireRoot(t)
	nstest.RequireProgram(t, "nft")
	out, err := exec.Command(labBin, append([]string{"demo", "--json", "--xcarp", xcarpBin}, arg...)...).Output()
	if err != nil {
		var stderr []byte
		if e, ok := err.(*exec.ExitError); ok {
			stderr = e.Stderr
		}
		t.Fatalf("xcarp-lab demo --json %v: %v: %s", arg, err, stderr)
	}
	var r demoResult
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if r.System != "xcarp" || r.BlackoutMS == nil || r.ProbesSent == 0 || r.TCP.Survived == nil || r.TCP.StallMS == nil || r.TookMS == 0 || r.Peers == nil {
		t.Errorf("fields of the reference are missing: %s", out)
	}
	t.Logf("blackout %.1f ms, %d of %d probes lost, stall %.1f ms, took %.0f ms", *r.BlackoutMS, r.ProbesLost, r.ProbesSent, *r.TCP.StallMS, r.TookMS)
	return r
}

// These are not parallel: the demo measures.

func TestDemoSurvivesACrash(t *testing.T) {
	r := demo(t)
	if !*r.TCP.Survived || r.TCP.Resets != 0 {
		t.Errorf("survived %v, %d resets", *r.TCP.Survived, r.TCP.Resets)
	}
	if r.MastersAfter != 1 {
		t.Errorf("%d masters after the crash, want 1", r.MastersAfter)
	}
	f := r.Failback
	if !f.Done || !f.TCPAlive || f.BytesBefore < 50e6 {
		t.Errorf("failback %+v, want the same connection alive after 50 MB through fw-b", f)
	}
	if f.FlowsOpened == 0 || f.FlowsAlive != f.FlowsOpened {
		t.Errorf("%d of %d flows that were opened during the cut live on", f.FlowsAlive, f.FlowsOpened)
	}
}

func TestDemoDiesWithoutSync(t *testing.T) {
	if r := demo(t, "--no-sync"); *r.TCP.Survived {
		t.Error("the download survived without state sync: the demo proves nothing")
	}
}

func TestDemoLosesNothingWhenTheDaemonIsKilled(t *testing.T) {
	r := demo(t, "--fault", "kill9")
	if r.ProbesLost != 0 || !*r.TCP.Survived || r.MastersAfter != 1 {
		t.Errorf("%d probes lost, survived %v, %d masters: want none, true, one", r.ProbesLost, *r.TCP.Survived, r.MastersAfter)
	}
	// It comes back after 300 ms, which is about when the peer takes it for dead: the
	// role may move then, but only by a claim.
	for _, s := range r.Transitions {
		if s.To == "MASTER" && s.Node == "fw-b" && !strings.Contains(s.Reason, "sign of life") && !strings.Contains(s.Reason, "bundle") {
			t.Errorf("fw-b: %s", s.Reason)
		}
	}
}

func TestDemoShowsAPeerBesideIt(t *testing.T) {
	nstest.RequireRoot(t)
	nstest.RequireProgram(t, "nft")
	nstest.RequireProgram(t, "ucarp")
	out, err := exec.Command(labBin, "demo", "-o", "json", "--systems", "xcarp,ucarp", "--fault", "handover", "--xcarp", xcarpBin).Output()
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		demoResult
		Peers []demoResult
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if r.System != "xcarp" || len(r.Peers) != 1 || r.Peers[0].System != "ucarp" {
		t.Fatalf("got %s beside %+v, want xcarp beside ucarp", r.System, r.Peers)
	}
	if r.ProbesSent == 0 || r.Peers[0].ProbesSent == 0 || !r.Failback.Done {
		t.Errorf("%d and %d probes sent, failback %v", r.ProbesSent, r.Peers[0].ProbesSent, r.Failback.Done)
	}
}
