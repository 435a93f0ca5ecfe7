package lab

import (
	"errors"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/nstest"
)

// newLab builds a lab that ends with the test.
func newLab(t *testing.T) *Net {
	t.Helper()
	nstest.RequireRoot(t)
	nstest.RequireProgram(t, "nft")
	n, err := New(t.Context(), NAT)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		noLeftovers(t)
	})
	return n
}

func TestMastersCountsWhoAnswers(t *testing.T) {
	n := newLab(t)
	for _, step := range []struct {
		name  string
		nodes []*Node
		want  []string
	}{
		{"nobody", nil, []string{}},
		{"one router", []*Node{n.A}, []string{"fw-a"}},
		{"two routers with the same MAC", []*Node{n.A, n.B}, []string{"fw-a", "fw-b"}},
	} {
		for _, r := range step.nodes {
			if err := take(r); err != nil {
				t.Fatal(err)
			}
		}
		m, err := n.Masters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(m.Repliers, step.want) || m.Count() != len(step.want) {
			t.Errorf("%s: got %+v, want repliers %v", step.name, m, step.want)
		}
	}
}

// carriers returns which of the router's interfaces have carrier.
func carriers(t *testing.T, r *Node) (up []string) {
	t.Helper()
	for _, dev := range []string{"eth0", "eth1", "eth2"} {
		l, err := r.h.LinkByName(dev)
		if err != nil {
			t.Fatal(err)
		}
		if l.Attrs().RawFlags&0x10000 != 0 { // IFF_LOWER_UP
			up = append(up, dev)
		}
	}
	return up
}

// reachable returns over which of its networks the router reaches somebody.
func reachable(t *testing.T, n *Net) (up []string) {
	t.Helper()
	for _, hop := range [][2]string{{"eth0", serverAddr}, {"eth1", clientAddr}, {"eth2", "172.30.0.2"}} {
		if _, err := n.A.NS.Run(t.Context(), "ping", "-c1", "-W1", "-I", hop[0], hop[1]); err == nil {
			up = append(up, hop[0])
		}
	}
	return up
}

func TestFaultsCutWhatTheySay(t *testing.T) {
	n := newLab(t)
	all := []string{"eth0", "eth1", "eth2"}
	for _, step := range []struct {
		fault            Fault
		carrier, reaches []string
	}{
		{Crash, all, nil},
		{Isolated, all, []string{"eth2"}},
		{LANCut, all, []string{"eth0", "eth2"}},
		{LANDown, []string{"eth0", "eth2"}, []string{"eth0", "eth2"}},
		{Poweroff, nil, nil},
	} {
		t.Run(string(step.fault), func(t *testing.T) {
			if err := n.A.Start(exec.Command("sleep", "300")); err != nil {
				t.Fatal(err)
			}
			defer n.A.Stop(time.Second)
			c, err := n.NewCut(step.fault, n.A)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			before, after, err := c.Do(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := carriers(t, n.A); !slices.Equal(got, step.carrier) {
				t.Errorf("carrier: got %v, want %v", got, step.carrier)
			}
			if got := reachable(t, n); !slices.Equal(got, step.reaches) {
				t.Errorf("reaches: got %v, want %v", got, step.reaches)
			}
			if step.fault == Poweroff {
				<-n.A.daemons[0].done // or the test hangs here
			} else if !n.A.running() {
				t.Error("the daemon ended")
			}
			if err := c.Undo(t.Context()); err != nil {
				t.Fatal(err)
			}
			// A neighbour that was asked for in vain needs another try.
			nstest.Eventually(t, 5*time.Second, "all networks reached after healing", func() bool {
				return slices.Equal(reachable(t, n), all)
			})
			t.Logf("the fault took %v", after-before)
		})
	}
}

func TestSweepTakesOnlyWhatTheDeadLeft(t *testing.T) {
	n := newLab(t)
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		nsPrefix + n.ID + "-client": false, // ours, and we live
		nsPrefix + "1-client":       false,
		"somebody-else":             false,
		nsPrefix + "x-client":       false,
		nsPrefix + strconv.Itoa(dead.Process.Pid) + "-client":  true,
		pinPrefix + strconv.Itoa(dead.Process.Pid) + "-fw-a":   true,
		dirPrefix + strconv.Itoa(dead.Process.Pid) + "-123456": true,
	} {
		if got := orphan(name); got != want {
			t.Errorf("orphan(%q): got %v, want %v", name, got, want)
		}
	}
	left, err := newSwitch(nsPrefix+strconv.Itoa(dead.Process.Pid)+"-sw", "lan")
	if err != nil {
		t.Fatal(err)
	}
	left.h.Close()
	if err := left.ns.Release(); err != nil {
		t.Fatal(err)
	}
	removed, err := Sweep()
	if err != nil {
		t.Fatal(err)
	}
	if want := "/run/netns/" + left.ns.Name; !slices.Contains(removed, want) {
		t.Errorf("removed %v, want %s in it", removed, want)
	}
	if _, err := n.Client.NS.Run(t.Context(), "true"); err != nil {
		t.Errorf("the living lab was hurt: %v", err)
	}
}

func TestResetsAreCountedOnBothWires(t *testing.T) {
	n := newLab(t)
	if err := take(n.A); err != nil {
		t.Fatal(err)
	}
	r, err := n.WatchResets()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	flows, err := n.OpenFlows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if alive := flows.Check(); alive != flows.Tried {
		t.Errorf("flows alive: got %d, want %d", alive, flows.Tried)
	}
	if got := r.Count(); got != 0 {
		t.Errorf("flows as they should be: got %d resets, want 0", got)
	}
	flows.Close()
	before := r.Count()
	for i, addr := range []string{serverAddr + ":9", "[2001:db8:1::100]:9"} { // nobody listens
		err := n.Client.NS.Do(func() error {
			_, err := net.DialTimeout("tcp", addr, 2*time.Second)
			return err
		})
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: got %v, want a refusal", addr, err)
		}
		if got, want := r.Count()-before, 2*(i+1); got != want {
			t.Errorf("%s: got %d resets, want %d", addr, got, want)
		}
	}
}
