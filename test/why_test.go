package test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// TestWhyTellsTheCauseAndTheSteps cuts the master off, and asks the other node why it
// took over; then again after its daemon was killed and started again.
func TestWhyTellsTheCauseAndTheSteps(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.start()
	p.a.waitState(10*time.Second, "MASTER", "lan", "wan")
	p.b.start()
	p.b.waitState(10*time.Second, "BACKUP", "lan", "wan")
	p.b.waitInSync(30 * time.Second)
	p.a.kill(unix.SIGKILL)
	p.b.waitState(15*time.Second, "MASTER", "lan", "wan")

	ask := func(arg ...string) string {
		t.Helper()
		out, err := p.b.xcarp(arg...)
		if err != nil {
			t.Fatalf("xcarp %v: %v\n%s", arg, err, out)
		}
		return out
	}
	// Of a bundle the second group follows the first one, whose master timed out.
	changes := ask("why", "1") + ask("why", "2")
	for _, want := range []string{"BACKUP → MASTER: master timed out", "a master that is silent for 3.39", "own delay",
		"done      map +", "advert +", "announced +", "lan: ", "wan: "} {
		if !strings.Contains(changes, want) {
			t.Errorf("why: got\n%s\nwant %q in it", changes, want)
		}
	}
	var y struct {
		Change struct{ Fields map[string]any }
		Before []struct{ Text string }
	}
	if err := json.Unmarshal([]byte(ask("why", "-o", "json")), &y); err != nil {
		t.Fatal(err)
	}
	if y.Change.Fields["to"] != "MASTER" || len(y.Before) == 0 {
		t.Errorf("why -o json: got %+v, want the change to MASTER and what was before", y)
	}
	before := strings.Count(ask("log", "lan"), "BACKUP → MASTER")
	if before == 0 {
		t.Errorf("log lan has no takeover:\n%s", ask("log", "lan"))
	}

	p.b.kill(unix.SIGKILL)
	if out, err := p.b.xcarp("log", "lan"); err != nil || strings.Count(out, "BACKUP → MASTER") != before {
		t.Errorf("without a daemon: got %v\n%s\nwant the same from the state-dir", err, out)
	}
	p.b.start()
	p.b.waitState(10*time.Second, "MASTER", "lan", "wan")
	if out := ask("log"); strings.Count(out, "running: ") != 2 {
		t.Errorf("log: got\n%s\nwant both starts", out)
	}
	if _, err := p.b.xcarp("why", "--group", "dmz"); err == nil || !strings.Contains(err.Error(), `no change of group "dmz"`) {
		t.Errorf("why --group dmz: got %v", err)
	}
}

// TestWhyTellsBothSides hands over and then cuts the new master off: why tells how long
// the claim took, when the first frame came, what the other node did meanwhile, and what
// the pulses said.
func TestWhyTellsBothSides(t *testing.T) {
	t.Parallel()
	p := watchedPair(t, "")
	ask := func(n *node) string {
		t.Helper()
		out, err := n.xcarp("why", "--group", "lan")
		if err != nil {
			t.Fatalf("why: %v\n%s", err, out)
		}
		return out
	}
	tells := func(n *node, want ...string) {
		t.Helper()
		nstest.Eventually(t, 10*time.Second, "why of "+n.name+" tells "+strings.Join(want, ", "), func() bool {
			out := ask(n)
			for _, w := range want {
				if !strings.Contains(out, w) {
					return false
				}
			}
			return true
		})
		t.Logf("%s:\n%s", n.name, ask(n))
	}
	if out, err := p.a.xcarp("handover"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p.client.Exec("ping", "-c", "1", "-W", "5", "10.0.0.1")
	tells(p.b, "BACKUP → MASTER: handed over by fw-a", "claim     acknowledged after ", "announced +", "fw-a, lan: MASTER → DRAIN: handed over", "first frame as master: ")
	tells(p.a, "MASTER → DRAIN: handed over", "fw-b, lan: BACKUP → MASTER: handed over by fw-a")

	p.cut(p.b)
	p.a.waitState(5*time.Second, "MASTER", "lan", "wan")
	tells(p.a, "BACKUP → MASTER: master is silent", "pulses    ", " asks unanswered, the last answer ", "done      map +")
}
