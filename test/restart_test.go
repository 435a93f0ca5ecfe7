package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// A daemon that is killed and started again within its lease is missed by
// nobody: every question is answered, and no role changes.
func TestKilledDaemonIsMissedByNobody(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.up()
	tap := newTap(t, p.sw, p.a.lanPort)
	term := p.a.group("lan").Term
	asked := 0
	ask := func() {
		tap.send(arpRequest(t))
		asked++
		time.Sleep(5 * time.Millisecond) // the pace of the questions
	}
	p.a.kill(unix.SIGKILL)
	for range 60 { // systemd restarts after 200 ms
		ask()
	}
	p.a.start()
	nstest.Eventually(t, 10*time.Second, "the daemon answers", func() bool { ask(); return p.a.status() != nil })
	for range 20 {
		ask()
	}
	nstest.Eventually(t, 5*time.Second, "every question answered", func() bool { return tap.count(answersFor(shared4)) >= asked })
	if got := tap.count(answersFor(shared4)); got != asked {
		t.Errorf("%d answers to %d questions", got, asked)
	}
	for _, group := range []string{"lan", "wan"} {
		g := p.a.group(group)
		if g.State != "MASTER" || g.Term != term {
			t.Errorf("%s is %s with term %d (%s), want MASTER with term %d", group, g.State, g.Term, g.Reason, term)
		}
		if got := p.b.log.transitions(group); strings.Join(got, " ") != "BACKUP" {
			t.Errorf("the peer's %s went through %v", group, got)
		}
	}
	p.a.waitInSync(15 * time.Second)
}

func TestDetachLeavesNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	before := p.a.snapshot()
	p.a.start()
	p.a.waitState(15*time.Second, "MASTER", "lan", "wan")
	detach := func(arg ...string) (out string, err error) {
		_ = p.a.ns.Do(func() error { out, err = p.a.xcarp(append([]string{"detach"}, arg...)...); return nil })
		return out, err
	}
	if _, err := detach("--force"); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("detach beside a daemon: %v", err)
	}
	p.a.kill(unix.SIGKILL)
	if _, err := detach(); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("detach of a master: %v", err)
	}
	if out, err := detach("--force"); err != nil || out == "" {
		t.Fatalf("detach --force: %v, said %q", err, out)
	}
	// What was learnt stays on disk.
	if before, after := stripFiles(before), stripFiles(p.a.snapshot()); before != after {
		t.Errorf("detach left something:\n--- before\n%s\n--- after\n%s", before, after)
	}
	if out, err := detach(); err != nil || !strings.Contains(out, "nothing of xcarp") {
		t.Errorf("a second detach: %v, said %q", err, out)
	}
}

// Pins may have gone with the mount namespace of the daemon. What it set besides goes
// all the same.
func TestDetachWithoutPins(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	n := p.a
	n.start()
	n.waitState(15*time.Second, "MASTER", "lan", "wan")
	nstest.Eventually(t, 15*time.Second, "the table of the RST trap", func() bool { return strings.Contains(n.ns.Exec("nft", "list", "tables"), "inet xcarp") })
	n.kill(unix.SIGKILL)
	if err := os.RemoveAll(n.pin); err != nil {
		t.Fatal(err)
	}
	var out string
	err := n.ns.Do(func() (err error) { out, err = n.xcarp("detach"); return err })
	if err != nil || !strings.Contains(out, "nftables table inet xcarp") || !strings.Contains(out, "nf_conntrack_events=1, which is 2 again") {
		t.Errorf("detach: %v, said %q", err, out)
	}
	if out := n.ns.Exec("nft", "list", "tables"); strings.Contains(out, "xcarp") {
		t.Errorf("nftables still has %s", out)
	}
}

// stripFiles cuts a snapshot before the node's own directories.
func stripFiles(s string) string {
	s, _, _ = strings.Cut(s, "ls -A")
	return s
}

func TestShowHasTheFieldsOfTheReference(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.up()
	out, err := p.a.xcarp("show", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	group := s["groups"].([]any)[0].(map[string]any)
	for _, f := range []string{"name", "vhid", "carpdev", "state", "since", "reason", "term", "demotion", "lease_ms", "xdp_mode", "masters_seen", "drops"} {
		if _, ok := group[f]; !ok {
			t.Errorf("a group has no field %s", f)
		}
	}
	peer := s["sync"].([]any)[0].(map[string]any)
	for _, f := range []string{"peer", "up", "in_sync", "lag_ms", "flows"} {
		if _, ok := peer[f]; !ok {
			t.Errorf("a sync peer has no field %s", f)
		}
	}
	text, err := p.b.xcarp("show", "lan")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"lan: BACKUP", "master-down after 3.391 s", "masters heard: 10.0.0.2", "fw-a: up, in sync"} {
		if !strings.Contains(text, want) {
			t.Errorf("show lacks %q:\n%s", want, text)
		}
	}
	if _, err := p.b.xcarp("show", "dmz"); err == nil || !strings.Contains(err.Error(), `no group "dmz"`) {
		t.Errorf("show of an unknown group: %v", err)
	}
}

// Whom the master's own stack asked for has learnt the virtual MAC from it, not
// the NIC's, which would be gone with the master.
func TestNeighboursLearnTheVirtualMAC(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.start()
	p.a.waitState(15*time.Second, "MASTER", "lan")
	nstest.Eventually(t, 5*time.Second, "the kernel has the addresses", func() bool {
		return p.a.holds("lan0", "10.0.0.1/32") && p.a.holds("lan0", "fd00:1::1/128")
	})
	for _, tt := range []struct{ shared, client string }{{"10.0.0.1", "10.0.0.100"}, {"fd00:1::1", "fd00:1::100"}} {
		p.client.Exec("ip", "neigh", "flush", "dev", "eth0")
		p.a.ns.Exec("ip", "neigh", "flush", "dev", "lan0")
		p.a.ns.Exec("ping", "-c", "3", "-i", "0.3", "-W", "3", "-I", tt.shared, tt.client)
		neigh := strings.Fields(p.client.Exec("ip", "neigh", "show", tt.shared))
		if !slices.Contains(neigh, vMAC(lanVHID)) {
			t.Errorf("the client's entry for %s is %v, want %s", tt.shared, neigh, vMAC(lanVHID))
		}
	}
}

// A carpdev that was deleted and made again gets its programs and its group back;
// the other one is missed by nobody.
func TestCarpdevMadeAnewIsTakenUp(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.reconfigure(func(s string) string { return strings.Replace(s, "bundle: [wan, lan]\n", "", 1) })
	p.a.start()
	p.a.waitState(15*time.Second, "MASTER", "lan", "wan")
	term := p.a.group("lan").Term
	p.a.ns.Exec("ip", "link", "del", "wan0")
	p.a.waitState(10*time.Second, "INIT", "wan")
	p.sw.Plug("br-wan", p.a.ns, "wan0")
	p.a.ns.Addr("wan0", "203.0.113.2/24")
	p.a.ns.Addr("wan0", "2001:db8:1::2/64")
	p.a.waitState(30*time.Second, "MASTER", "wan")
	if g := p.a.group("lan"); g.State != "MASTER" || g.Term != term {
		t.Errorf("the other group is %s with term %d, want MASTER with term %d", g.State, g.Term, term)
	}
}

// A file that is wrong by the time that an interface is made anew must not cost the
// router the groups that it has: it goes on without the interface, and takes that up
// as soon as the file is right.
func TestStartingOverWaitsForAConfigurationThatLoads(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	n := p.a
	n.start()
	n.waitState(15*time.Second, "MASTER", "lan", "wan")
	var right string
	n.reconfigure(func(s string) string { right = s; return s + "bogus: 1\n" })
	n.ns.Exec("ip", "link", "del", "wan0")
	n.waitState(10*time.Second, "INIT", "wan")
	p.sw.Plug("br-wan", n.ns, "wan0")
	n.ns.Addr("wan0", "203.0.113.2/24")
	n.ns.Addr("wan0", "2001:db8:1::2/64")
	nstest.Eventually(t, 30*time.Second, "a daemon that says why it does not start over", func() bool {
		s := n.status()
		return s != nil && s.Stale && s.StaleWhy.Why == "refused" && strings.Contains(strings.Join(s.StaleWhy.Problems, " "), "bogus")
	})
	if g := n.group("lan"); g.State != "MASTER" {
		t.Errorf("the other group is %s, want MASTER", g.State)
	}
	if got := strings.Count(n.log.String(), "not starting over"); got != 1 {
		t.Errorf("said %d times, want once", got)
	}
	n.reconfigure(func(string) string { return right })
	n.waitState(60*time.Second, "MASTER", "wan", "lan")
	if s := n.status(); s == nil || s.Stale {
		t.Errorf("the status is still stale: %+v", s)
	}
}

// What the configuration no longer has is no longer in the dataplane.
func TestRemovedGroupIsForgotten(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.start()
	p.a.waitState(15*time.Second, "MASTER", "lan", "wan")
	p.a.kill(unix.SIGKILL) // so that nothing is tidied up on the way out
	p.a.reconfigure(func(s string) string {
		s = strings.Replace(s, "bundle: [wan, lan]\n", "", 1)
		s = strings.Replace(s, "vhid: 2", "vhid: 7", 1) // the addresses move to another vhid
		i := strings.Index(s, "  wan:")
		return s[:i] + s[i+strings.Index(s[i:], "\n")+1:] // and the WAN is not shared any more
	})
	p.a.start()
	p.a.waitState(15*time.Second, "MASTER", "lan")
	if mac := p.client.neighbour(t, "10.0.0.1"); mac != vMAC(7) {
		t.Errorf("the client resolves the address to %s, want %s", mac, vMAC(7))
	}
	if p.a.holds("wan0", "203.0.113.1/32") {
		t.Error("the kernel still has the address of the removed group")
	}
	p.a.ns.Addr("wan0", "203.0.113.1/24") // now the node's own
	own := mac(t, p.a.ns, "wan0").String()
	p.server.Exec("ping", "-c", "1", "-W", "5", "203.0.113.1")
	if neigh := p.server.Exec("ip", "neigh", "show", "203.0.113.1"); !strings.Contains(neigh, own) {
		t.Errorf("the server's entry is %q, want the NIC's own %s", neigh, own)
	}
}

// TestRestartInPlaceIsNoticedByNobody replaces the program of a master on disk, as an
// upgrade does, and restarts it: the same process runs the new one, no question is lost,
// and no group moves although the peer watches its signs of life.
func TestRestartInPlaceIsNoticedByNobody(t *testing.T) {
	t.Parallel()
	p := watchedPair(t, "")
	install := func() {
		b, err := os.ReadFile(xcarpBin)
		if err == nil {
			_ = os.Remove(p.a.bin)
			err = os.WriteFile(p.a.bin, b, 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	p.a.kill(unix.SIGTERM)
	p.a.bin = filepath.Join(p.a.dir, "xcarp")
	install()
	p.a.start()
	p.a.waitState(15*time.Second, "MASTER", "lan", "wan")
	p.a.waitInSync(15 * time.Second)
	install() // now it is another file than the one that runs

	tap := newTap(t, p.sw, p.a.lanPort)
	before, moves := p.a.status(), p.b.log.transitions("lan")
	ended := make(chan error, 1)
	var out string
	go func() {
		var err error
		out, err = p.a.xcarp("restart")
		ended <- err
	}()
	asked := 0
	for done := false; !done; {
		tap.send(arpRequest(t))
		asked++
		select {
		case err := <-ended:
			done = true
			if err != nil {
				t.Fatalf("restart: %v: %s", err, out)
			}
		case <-time.After(5 * time.Millisecond): // the pace of the questions
		}
	}
	t.Logf("%d questions; %s", asked, out)
	if !strings.Contains(out, "MASTER") {
		t.Errorf("restart says %q", out)
	}
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.a.cmd.Process.Pid)); err != nil || exe != p.a.bin {
		t.Errorf("the process runs %s, want the new %s: %v", exe, p.a.bin, err)
	}
	nstest.Eventually(t, 5*time.Second, "every question answered", func() bool { return tap.count(answersFor(shared4)) >= asked })
	if got := tap.count(answersFor(shared4)); got != asked {
		t.Errorf("%d answers to %d questions", got, asked)
	}
	after := p.a.status()
	if after.Uptime >= before.Uptime {
		t.Errorf("uptime %v s, before %v s", after.Uptime, before.Uptime)
	}
	for _, g := range after.Groups {
		if g.State != "MASTER" {
			t.Errorf("%s is %s: %s", g.Name, g.State, g.Reason)
		}
	}
	p.a.waitInSync(15 * time.Second)
	if now := p.b.log.transitions("lan"); !slices.Equal(now, moves) {
		t.Errorf("the peer went through %v", now)
	}

	// What would not start stays what it is.
	p.a.reconfigure(func(c string) string { return strings.Replace(c, "groups:", "grops:", 1) })
	if out, err := p.a.xcarp("restart"); err == nil || !strings.Contains(err.Error()+out, "grops") {
		t.Errorf("restart with a configuration that is wrong: %v, said %q", err, out)
	}
	if s := p.a.status(); s == nil || s.Uptime < after.Uptime {
		t.Error("it was restarted all the same")
	}
}
