package test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/daemon"
	"github.com/xcarp/xcarp/internal/nstest"
)

// add appends to the node's configuration.
func (n *node) add(text string) {
	n.tb.Helper()
	n.reconfigure(func(s string) string { return s + text })
}

// track returns the status of one track; the zero value if there is none.
func (n *node) track(name string) daemon.TrackStatus {
	if s := n.status(); s != nil {
		for _, t := range s.Tracks {
			if t.Name == name {
				return t
			}
		}
	}
	return daemon.TrackStatus{}
}

// show is what an operator reads.
func (n *node) show() string {
	n.tb.Helper()
	out, err := n.xcarp("show")
	if err != nil {
		n.tb.Fatal(err)
	}
	return out
}

func (n *node) showsAll(what string, want ...string) {
	n.tb.Helper()
	out := n.show()
	for _, w := range want {
		if !strings.Contains(out, w) {
			n.tb.Errorf("%s: show of %s lacks %q:\n%s", what, n.name, w, out)
		}
	}
}

// The master's way out dies while all its links stay up: the backup, whose own way
// works, takes over within the time that the track promises, and says so. When the
// way is back, so is the master. Hooks hear of it in order.
func TestUpstreamDiesAtTheMaster(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	heard := map[*node]string{}
	for n, last := range map[*node]int{p.a: 2, p.b: 3} {
		// Each router has an upstream of its own.
		up := nstest.New(t, "isp")
		nstest.Veth(t, n.ns, "up0", up, "eth0")
		n.ns.Addr("up0", fmt.Sprintf("198.51.100.%d/31", 2*last))
		up.Addr("eth0", fmt.Sprintf("198.51.100.%d/31", 2*last+1))
		heard[n] = filepath.Join(n.dir, "heard")
		hook := n.write("hook", "#!/bin/sh\necho \"$XCARP_GROUP $XCARP_FROM $XCARP_TO\" >>"+heard[n]+"\n")
		if err := os.Chmod(hook, 0o700); err != nil {
			t.Fatal(err)
		}
		n.add(fmt.Sprintf("track: {upstream: {ping: 198.51.100.%d, every: 100ms, fall: 3, groups: [wan]}}\n", 2*last+1) +
			"hooks: {note: {command: [" + hook + "], user: root, on: [INIT, BACKUP, MASTER, DRAIN]}}\n")
	}
	p.up()
	if got := p.a.track("upstream"); got.State != "UP" || got.RTTMS <= 0 || got.Error != "" {
		t.Errorf("upstream of the master: %+v", got)
	}
	p.a.showsAll("at first", "upstream: UP for ", "ping 198.51.100.5, answered in ")

	cut := time.Now()
	p.a.ns.Exec("nft", "table ip cut { chain in { type filter hook input priority 0; iifname \"up0\" drop; }; }")
	p.b.waitState(10*time.Second, "MASTER", "lan", "wan")
	took := time.Since(cut)
	// Three checks 100 ms apart, the third fails after its timeout of 100 ms; the
	// first one may just have been answered. Then one advert.
	const promise = 500 * time.Millisecond
	if took > 3*promise {
		t.Errorf("taken over after %v, want %v at most", took, promise)
	}
	t.Logf("taken over %v after the upstream died", took)
	p.a.waitState(10*time.Second, "BACKUP", "lan", "wan")
	for _, g := range []string{"lan", "wan"} {
		if got := p.a.group(g).Demotions["track upstream"]; got != 240 {
			t.Errorf("%s of the old master is demoted by %d, want 240", g, got)
		}
		if got := p.b.group(g).Reason; got != "preempting a slower master" && got != "master is more demoted" && got != "following the bundle" {
			t.Errorf("%s of the new master took over because %q", g, got)
		}
	}
	p.a.showsAll("when the upstream is dead", "upstream: DOWN for ", "no answer from 198.51.100.5 within ", "demotes lan, wan by 240", "track upstream 240")
	metrics := p.a.metrics()
	for _, want := range []string{`xcarp_track_up{track="upstream"} 0`, `xcarp_demotion{carpdev="lan0",group="lan",owner="track upstream",vhid="2"} 240`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}

	p.a.ns.Exec("nft", "delete table ip cut")
	p.a.waitState(15*time.Second, "MASTER", "lan", "wan")
	p.b.waitState(10*time.Second, "BACKUP", "lan", "wan")
	for n, want := range map[*node]string{
		p.a: "INIT BACKUP, BACKUP MASTER, MASTER DRAIN, DRAIN BACKUP, BACKUP MASTER",
		p.b: "INIT BACKUP, BACKUP MASTER, MASTER DRAIN, DRAIN BACKUP",
	} {
		nstest.Eventually(t, 10*time.Second, "hooks of "+n.name+" heard all", func() bool {
			return min(len(told(t, heard[n], "wan")), len(told(t, heard[n], "lan"))) > strings.Count(want, ",")
		})
		for _, g := range []string{"lan", "wan"} {
			if got := strings.Join(told(t, heard[n], g), ", "); got != want {
				t.Errorf("the hook of %s heard of %s: %s, want %s", n.name, g, got, want)
			}
		}
	}
	p.a.showsAll("at last", "hooks: 0 changes queued, 0 never told", " runs, 0 failed; last: ")
}

// told returns what a hook wrote down of a group.
func told(tb testing.TB, file, group string) (changes []string) {
	tb.Helper()
	b, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if of, what, ok := strings.Cut(strings.TrimSpace(line), " "); ok && of == group {
			changes = append(changes, what)
		}
	}
	return changes
}

func (n *node) metrics() string {
	n.tb.Helper()
	resp, err := daemon.Client(filepath.Join(n.dir, "run")).Get("http://xcarp/metrics")
	if err != nil {
		n.tb.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	if _, err := io.Copy(&b, resp.Body); err != nil {
		n.tb.Fatal(err)
	}
	return b.String()
}

// An operator's demotion moves the groups, outlives the daemon, and ends: by
// itself, or when it is taken back.
func TestOperatorDemotes(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.up()
	out, err := p.a.xcarp("demote", "--for", "1h", "--reason", "new power supply")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out, "demotion 1: all groups by 240 for another 1h0m0s, until ") || !strings.HasSuffix(out, " (new power supply)\n") {
		t.Errorf("demote says %q", out)
	}
	p.b.waitState(10*time.Second, "MASTER", "lan", "wan")
	p.a.waitState(10*time.Second, "BACKUP", "lan", "wan")
	p.a.showsAll("demoted", "operator 1 240", "1: all groups by 240 for another ", "(new power supply), by root")

	p.a.kill(unix.SIGKILL)
	p.a.start()
	p.a.waitState(15*time.Second, "BACKUP", "lan", "wan")
	nstest.Eventually(t, 15*time.Second, "nothing but the operator demotes", func() bool {
		g := p.a.group("wan")
		return len(g.Demotions) == 1 && g.Demotions["operator 1"] == 240
	})
	for _, bad := range []struct {
		arg  []string
		want string
	}{
		{[]string{"demote", "wna"}, `no group "wna"`},
		{[]string{"demote", "--by", "256"}, "demote by 256: write 1 to 255"},
		{[]string{"demote", "--reason", "a\nb"}, "the reason must be one line"},
		{[]string{"undemote", "7"}, "no demotion 7: known by id: 1"},
	} {
		if _, err := p.a.xcarp(bad.arg...); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("xcarp %v: got %v, want %q", bad.arg, err, bad.want)
		}
	}
	if out, err = p.a.xcarp("demote", "wan", "--by", "10", "--for", "300ms"); err != nil || !strings.HasPrefix(out, "demotion 2: wan by 10 for another ") {
		t.Errorf("demote says %q, %v", out, err)
	}
	nstest.Eventually(t, 5*time.Second, "the second demotion expires", func() bool { return len(p.a.group("wan").Demotions) == 1 })

	if out, err = p.a.xcarp("undemote"); err != nil || !strings.HasPrefix(out, "taken back: 1: all groups by 240") {
		t.Errorf("undemote says %q, %v", out, err)
	}
	p.a.waitState(15*time.Second, "MASTER", "lan", "wan")
	if out, err = p.a.xcarp("undemote"); err != nil || out != "there was nothing to take back\n" {
		t.Errorf("undemote says %q, %v", out, err)
	}
	p.a.kill(unix.SIGTERM)
	p.a.start()
	p.a.waitState(15*time.Second, "MASTER", "lan", "wan")
	if got := p.a.group("wan").Demotions; len(got) != 0 {
		t.Errorf("after a restart demoted by %v", got)
	}
}

// A node that is started beside a master replaces it when it is ready, and not
// before; alone it waits for nobody.
func TestReadinessAndDelays(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.add("ready: {settle: 300ms, routes: [192.0.2.0/24]}\npreempt_delay: 3s\nstartup_delay: 2s\n")
	p.b.start()
	p.b.waitState(15*time.Second, "MASTER", "lan", "wan")

	begun := time.Now()
	p.a.start()
	nstest.Eventually(t, 10*time.Second, "the daemon answers", func() bool { return p.a.status() != nil })
	if g := p.a.group("wan"); g.State != "INIT" || len(g.Waits) == 0 || !strings.HasPrefix(g.Waits[0], "startup delay, ") {
		t.Errorf("at first wan is %s and waits for %q", g.State, g.Waits)
	}
	p.a.waitState(15*time.Second, "BACKUP", "lan", "wan")
	if took := time.Since(begun); took < 2*time.Second {
		t.Errorf("out of INIT after %v, want 2 s", took)
	}
	nstest.Eventually(t, 20*time.Second, "nothing but the route is missing", func() bool {
		g := p.a.group("wan")
		return len(g.Waits) == 1 && g.Waits[0] == "route 192.0.2.0/24" && g.Demotions["ready"] == 240 && len(g.Demotions) == 1
	})
	p.a.showsAll("not ready", "waits for   route 192.0.2.0/24", "ready 240")

	p.a.ns.Exec("ip", "route", "add", "192.0.2.0/24", "via", "203.0.113.100")
	routed := time.Now()
	nstest.Eventually(t, 3*time.Second, "the delay begins", func() bool {
		g := p.a.group("wan")
		return len(g.Waits) == 1 && strings.HasPrefix(g.Waits[0], "preempt delay, ") && g.Demotions["preempt delay"] == 2
	})
	p.a.waitState(15*time.Second, "MASTER", "lan", "wan")
	if took := time.Since(routed); took < 3*time.Second {
		t.Errorf("replaced the master %v after it was ready, want 3 s", took)
	}
	if g := p.a.group("wan"); !g.Ready || len(g.Demotions) != 0 {
		t.Errorf("at last ready %v, demoted by %v", g.Ready, g.Demotions)
	}

	// Alone it takes over though it is not ready.
	p.a.kill(unix.SIGTERM)
	p.b.waitState(15*time.Second, "MASTER", "lan", "wan")
	p.a.ns.Exec("ip", "route", "del", "192.0.2.0/24")
	p.a.start()
	p.a.waitState(20*time.Second, "BACKUP", "lan", "wan")
	p.b.kill(unix.SIGKILL)
	p.a.waitState(20*time.Second, "MASTER", "lan", "wan")
	if g := p.a.group("wan"); g.Demotions["ready"] != 240 {
		t.Errorf("alone: demoted by %v, want ready 240", g.Demotions)
	}
}

// A hook that hangs is killed at its time and reported; no election waits for it.
func TestHookThatHangs(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	hook := p.a.write("hook", "#!/bin/sh\nsleep 1000\n")
	if err := os.Chmod(hook, 0o700); err != nil {
		t.Fatal(err)
	}
	p.a.add("hooks: {hang: {command: [" + hook + "], user: root, timeout: 2s}}\n")
	begun := time.Now()
	p.a.start()
	p.a.waitState(15*time.Second, "MASTER", "lan", "wan")
	if took := time.Since(begun); took > 3*4*time.Second {
		t.Errorf("MASTER after %v", took)
	}
	nstest.Eventually(t, 30*time.Second, "four changes were told in vain", func() bool {
		s := p.a.status()
		return s != nil && s.Hooks.Queued == 0 && s.Hooks.Hooks[0].Runs == 4
	})
	last := p.a.status().Hooks.Hooks[0].Last
	if last.To != "MASTER" || !strings.HasPrefix(last.Error, "timeout: killed after 2") || last.TookMS > 3*2000 {
		t.Errorf("the last run: %+v", last)
	}
	p.a.showsAll("after all", "hang: 4 runs, 4 failed; last: ", "timeout: killed after 2")
	if got := p.a.metrics(); !strings.Contains(got, `xcarp_hook_runs_total{hook="hang",result="failed"} 4`) {
		t.Errorf("metrics lack the failures")
	}
	if !strings.Contains(p.a.log.String(), `"msg":"hook failed"`) {
		t.Error("the log does not tell")
	}
	// A stop does not wait for a hook for ever either.
	p.b.start()
	p.b.waitState(15*time.Second, "BACKUP", "lan", "wan")
	begun = time.Now()
	p.a.kill(unix.SIGTERM)
	if took := time.Since(begun); took > 9*time.Second {
		t.Errorf("stopped after %v, want 4 s", took)
	}
}
