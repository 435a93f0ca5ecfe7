package lab

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/nstest"
)

// TestEveryPeerIsAPair starts each system that we are compared with, hands over,
// and takes back: only then it may be measured.
func TestEveryPeerIsAPair(t *testing.T) {
	nstest.RequireRoot(t)
	nstest.RequireProgram(t, "nft")
	for _, sys := range []System{Keepalived("10ms", false), Keepalived("10ms", true), Keepalived("1s", false), FRR(), UCARPPair("skew4")} {
		t.Run(sys.Label(), func(t *testing.T) {
			if err := sys.Check(); err != nil {
				nstest.Skip(t, err.Error())
			}
			p, err := newPair(t.Context(), sys, NAT, t.Logf, nil)
			t.Cleanup(func() {
				if p.net != nil {
					if err := p.net.Close(); err != nil {
						t.Error(err)
					}
				}
				noLeftovers(t)
			})
			logs := func() {
				for _, r := range p.net.Routers() {
					b, _ := os.ReadFile(r.LogFile())
					t.Logf("%s:\n%s", r.Name, b)
				}
			}
			if err != nil {
				logs()
				t.Fatal(err)
			}
			p.faulty = true
			if err := sys.Handover(t.Context(), p.net.A); err != nil {
				t.Fatal(err)
			}
			for _, want := range []Role{Backup, Master} {
				other := Master
				if want == Master {
					other = Backup
					if err := sys.Takeback(t.Context(), p.net.A); err != nil {
						t.Fatal(err)
					}
				}
				if ok, why, err := p.await(t.Context(), 20*time.Second, want, other); err != nil || !ok {
					logs()
					t.Fatalf("fw-a does not become %s: %s, %v", want, why, err)
				}
			}
			b, err := os.ReadFile(p.net.B.LogFile())
			if err != nil {
				t.Fatal(err)
			}
			if n := sys.Masters(b); n == 0 {
				t.Errorf("fw-b was master and its log does not say so:\n%s", b)
			}
			if v := sys.Version(); !strings.ContainsAny(v, "0123456789") {
				t.Errorf("version %q", v)
			}
		})
	}
}

func TestSelect(t *testing.T) {
	missing := func() error { return errors.New("needs b: apt-get install b") }
	there := func() error { return nil }
	all := []System{
		{Name: "a", Profile: "fast", Check: there}, {Name: "a", Profile: "slow", Check: there},
		{Name: "b", Profile: "1s", Check: missing}, {Name: "c", Profile: "1s", Check: there},
	}
	for _, c := range []struct {
		name            string
		names, profiles []string
		want            string
		absent          int
	}{
		{"all that is there", nil, nil, "a fast, a slow, c 1s", 1},
		{"by name", []string{"c"}, nil, "c 1s", 0},
		{"a profile picks among those that have it", nil, []string{"slow"}, "a slow, c 1s", 1},
		{"both", []string{"a"}, []string{"slow", "1s"}, "a slow", 0},
	} {
		got, absent, err := Select(all, c.names, c.profiles)
		var labels []string
		for _, s := range got {
			labels = append(labels, s.Label())
		}
		if text := strings.Join(labels, ", "); err != nil || text != c.want || len(absent) != c.absent {
			t.Errorf("%s: got %q, absent %q, %v", c.name, text, absent, err)
		}
	}
	for _, c := range [][2][]string{{{"x"}, nil}, {nil, {"x"}}, {{"b"}, nil}} {
		if got, _, err := Select(all, c[0], c[1]); err == nil {
			t.Errorf("%v: got %v, want an error", c, got)
		}
	}
}

func TestTheOpenRulesetDiffersInOneLine(t *testing.T) {
	a, b := strings.Split(NAT.rules(), "\n"), strings.Split(NATOpen.rules(), "\n")
	differ := 0
	for i := range a {
		if a[i] != b[i] {
			differ++
		}
	}
	if len(a) != len(b) || differ != 1 {
		t.Errorf("%d lines differ, want the policy of input alone", differ)
	}
}

func TestChildrenBelongToTheirParent(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 100 & echo; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it has made its child
		t.Fatal(err)
	}
	pids, err := withChildren([]int{cmd.Process.Pid})
	if err != nil || len(pids) != 2 || pids[0] != cmd.Process.Pid {
		t.Errorf("got %v, %v, want the shell and its child", pids, err)
	}
	if slices.Contains(pids, os.Getpid()) {
		t.Fatal("this process is its own child")
	}
	if err := kill(pids, 9); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
}

func TestCached(t *testing.T) {
	const stats = `cache internal:
current active connections:	          12
connections created:		          12	failed:	           0

cache external:
current active connections:	           7
`
	for cache, want := range map[string]int{"internal": 12, "external": 7} {
		if got, err := cached(stats, cache); got != want || err != nil {
			t.Errorf("%s: got %d, %v, want %d", cache, got, err, want)
		}
	}
	if _, err := cached("", "external"); err == nil {
		t.Error("no statistics are no error")
	}
}
