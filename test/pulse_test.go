package test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/daemon"
	"github.com/xcarp/xcarp/internal/nstest"
)

// noticed is what detect: default promises: 15 ms of silence, and what is waited for the last answer.
const noticed = 18 * time.Millisecond

// watchedPair is a pair whose nodes watch each other; it returns when they do.
func watchedPair(t *testing.T, extra string) *pair {
	t.Helper()
	p := newPair(t)
	for _, n := range []*node{p.a, p.b} {
		n.reconfigure(func(c string) string {
			return strings.Replace(c, "detect: off\n", "", 1) + "detect: default\n" + extra
		})
	}
	p.up()
	for _, n := range []*node{p.a, p.b} {
		nstest.Eventually(t, 10*time.Second, n.name+" watches", func() bool {
			for _, g := range []string{"lan", "wan"} {
				s := n.group(g).Pulses
				if len(s) != 1 || s[0].Says != "lives" || !s[0].Sync {
					return false
				}
			}
			return true
		})
	}
	return p
}

// moved waits until a has given both groups to b, and returns b's groups.
func (p *pair) moved(limit time.Duration) (groups []daemon.GroupStatus) {
	p.tb.Helper()
	p.b.waitState(limit, "MASTER", "lan", "wan")
	for _, name := range []string{"lan", "wan"} {
		groups = append(groups, p.b.group(name))
	}
	return groups
}

func TestPulsesNoticeACrash(t *testing.T) {
	p := watchedPair(t, "")
	p.cut(p.a)
	begin := time.Now()
	for _, g := range p.moved(3 * time.Second) {
		took := g.Since.Sub(begin)
		t.Logf("%s: %v after the last cut: %s", g.Name, took, g.Reason)
		if !strings.Contains(g.Reason, "silent") || took > 3*noticed {
			t.Errorf("%s after %v: %s", g.Name, took, g.Reason)
		}
	}
	p.heal(p.a)
	p.a.waitState(20*time.Second, "MASTER", "lan", "wan")
	p.b.waitState(20*time.Second, "BACKUP", "lan", "wan") // when a has its table
}

// TestADeadDaemonIsClaimedFrom has the dataplane stop before the peer begins.
func TestADeadDaemonIsClaimedFrom(t *testing.T) {
	for name, sig := range map[string]unix.Signal{"dead": unix.SIGKILL, "stopped": unix.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			p := watchedPair(t, "")
			begin := time.Now()
			p.a.signal(sig)
			for _, g := range p.moved(3 * time.Second) {
				took := g.Since.Sub(begin)
				t.Logf("%s: after %v: %s", g.Name, took, g.Reason)
				if !strings.Contains(g.Reason, "no sign of life") || strings.Contains(g.Reason, "did not acknowledge") {
					t.Errorf("%s: %s", g.Name, g.Reason)
				}
			}
			if sig != unix.SIGSTOP {
				return
			}
			p.a.signal(unix.SIGCONT)
			p.a.waitState(3*time.Second, "BACKUP", "lan", "wan")
		})
	}
}

func TestHandover(t *testing.T) {
	p := watchedPair(t, "")
	before := len(p.b.log.transitions("lan"))
	out, err := p.a.xcarp("handover", "wan", "--to", "fw-b")
	t.Logf("%s", out)
	if err != nil || !strings.Contains(out, "lan") || !strings.Contains(out, "fw-b") {
		t.Fatalf("handover: %v\n%s", err, out)
	}
	for _, g := range p.moved(3 * time.Second) {
		if g.Reason != "handed over by fw-a" {
			t.Errorf("%s: %s", g.Name, g.Reason)
		}
	}
	if out, err := p.a.xcarp("handover"); err == nil {
		t.Errorf("a backup hands over: %s", out)
	}
	// It prefers to be master, and leaves the role where it was put: for longer than
	// four adverts of the other.
	p.a.waitState(3*time.Second, "BACKUP", "lan", "wan")
	sent := p.b.group("lan").Sent
	nstest.Eventually(t, 20*time.Second, "adverts of b", func() bool { return p.b.group("lan").Sent > sent+8 })
	if all := p.b.log.transitions("lan"); len(all) != before+1 {
		t.Errorf("b: %q", all)
	}
	if out, err := p.b.xcarp("handover"); err != nil {
		t.Fatalf("and back: %v\n%s", err, out)
	}
	p.a.waitState(3*time.Second, "MASTER", "lan", "wan")

	// An orderly stop is a handover, too.
	p.a.signal(unix.SIGTERM)
	for _, g := range p.moved(3 * time.Second) {
		if g.Reason != "handed over by fw-a" {
			t.Errorf("after the stop: %s: %s", g.Name, g.Reason)
		}
	}
}

// TestIsolatedMasterIsClaimedFrom cuts the master off from LAN and WAN, not from sync.
func TestIsolatedMasterIsClaimedFrom(t *testing.T) {
	p := watchedPair(t, "")
	for host, addr := range map[host]string{p.client: "10.0.0.1", p.server: "203.0.113.1"} {
		host.Exec("ping", "-c", "1", "-W", "5", addr) // so that the master knows somebody to ask
	}
	begin := time.Now()
	for _, port := range []string{p.a.lanPort, p.a.wanPort} {
		p.sw.Exec("bridge", "link", "set", "dev", port, "state", "0")
	}
	for _, g := range p.moved(10 * time.Second) {
		t.Logf("%s: after %v: %s", g.Name, g.Since.Sub(begin), g.Reason)
	}
	p.a.waitState(3*time.Second, "BACKUP", "lan", "wan")
}

// TestACutBetweenTheTwoChangesNothing leaves both with everybody else on LAN and WAN.
func TestACutBetweenTheTwoChangesNothing(t *testing.T) {
	p := watchedPair(t, "")
	before := [][]string{p.a.log.transitions("lan"), p.b.log.transitions("lan")}
	for _, n := range []*node{p.a, p.b} {
		for _, port := range []string{n.lanPort, n.wanPort} {
			p.sw.Exec("bridge", "link", "set", "dev", port, "isolated", "on")
		}
	}
	nstest.Eventually(t, 20*time.Second, "the alarm", func() bool { return p.b.group("lan").Split && p.b.group("wan").Split })
	if s := p.b.group("lan").Pulses; len(s) != 1 || s[0].Says != "cut off" {
		t.Errorf("pulses say %+v", s)
	}
	after := [][]string{p.a.log.transitions("lan"), p.b.log.transitions("lan")}
	if !slices.Equal(before[0], after[0]) || !slices.Equal(before[1], after[1]) {
		t.Errorf("transitions: %q", after)
	}
}

// TestASyncLinkThatIsDeafMovesNothing keeps the master from hearing its peer on the sync
// link, by which the peer still hears it. The master would doubt itself, and be preempted
// for it, if pulses did not tell it that nobody has taken over.
func TestASyncLinkThatIsDeafMovesNothing(t *testing.T) {
	p := watchedPair(t, "")
	before := [][]string{p.a.log.transitions("lan"), p.b.log.transitions("lan")}
	p.a.ns.Exec("nft", `table inet deaf { chain in { type filter hook input priority 0; iifname "sync0" udp dport 4112 counter drop; }; }`)
	nstest.Eventually(t, 10*time.Second, "a's session is lost", func() bool { return strings.Contains(p.a.log.String(), `"session lost"`) })
	lost := time.Now()
	nstest.Eventually(t, 20*time.Second, "a while without it", func() bool { // of which 3 s would be too long
		if d := p.a.group("lan").Demotions["sync"]; d != 0 {
			t.Fatalf("%v after the session was lost the master asks for a demotion of %d", time.Since(lost), d)
		}
		return time.Since(lost) > 6*time.Second
	})
	after := [][]string{p.a.log.transitions("lan"), p.b.log.transitions("lan")}
	if !slices.Equal(before[0], after[0]) || !slices.Equal(before[1], after[1]) {
		t.Errorf("transitions: %q", after)
	}
	p.a.ns.Exec("nft", "delete", "table", "inet", "deaf")
	p.a.waitInSync(15 * time.Second)
	p.b.waitInSync(15 * time.Second)
}

// TestAGroupThatComesBackIsWatchedAgain takes a group out of the backup's file and puts
// it back: the way on which it was asked is given to the same group once more.
func TestAGroupThatComesBackIsWatchedAgain(t *testing.T) {
	p := watchedPair(t, "")
	var lan string
	p.b.reconfigure(func(c string) string {
		lines := strings.SplitAfter(c, "\n")
		at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "  lan: ") })
		lan = lines[at]
		return strings.Replace(strings.Join(slices.Delete(lines, at, at+1), ""), "bundle: [wan, lan]", "bundle: [wan]", 1)
	})
	p.b.signal(unix.SIGHUP)
	nstest.Eventually(t, 10*time.Second, "the group is gone", func() bool {
		s := p.b.status()
		return s != nil && len(s.Groups) == 1
	})
	p.b.reconfigure(func(c string) string {
		return strings.Replace(strings.Replace(c, "groups:\n", "groups:\n"+lan, 1), "bundle: [wan]", "bundle: [wan, lan]", 1)
	})
	p.b.signal(unix.SIGHUP)
	p.b.waitState(10*time.Second, "BACKUP", "lan")
	nstest.Eventually(t, 10*time.Second, "it is watched again", func() bool {
		s := p.b.group("lan").Pulses
		return len(s) == 1 && s[0].Says == "lives" && s[0].Sync
	})
}

// TestTheEarlierMasterStopsWhenTheNetworkHeals cuts the two off from each other
// altogether, so that both are master. The later one's claim ends that, before an advert
// would.
func TestTheEarlierMasterStopsWhenTheNetworkHeals(t *testing.T) {
	p := watchedPair(t, "")
	apart := func(on string) {
		for _, n := range []*node{p.a, p.b} {
			p.ports(n, "isolated "+on)
		}
	}
	apart("on")
	p.b.waitState(3*time.Second, "MASTER", "lan", "wan")
	if g := p.a.group("lan"); g.State != "MASTER" {
		t.Fatalf("fw-a is %s: %s", g.State, g.Reason)
	}
	// Until they have met again no word of the other's role comes over the sync channel.
	nstest.Eventually(t, 10*time.Second, "no session", func() bool { s := p.a.status(); return s != nil && !s.Sync[0].Up })
	before := len(p.a.log.String())
	apart("off")
	healed := time.Now()
	p.a.waitState(3*time.Second, "BACKUP", "lan", "wan")
	t.Logf("one master after %v", time.Since(healed))
	if n := strings.Count(p.a.log.String(), `"reason":"claimed by a peer"`); n != 2 {
		t.Errorf("fw-a was claimed from %d times, want once for each group", n)
	}
	for _, name := range []string{"lan", "wan"} {
		if g := p.b.group(name); g.State != "MASTER" {
			t.Errorf("%s of fw-b is %s: %s", name, g.State, g.Reason)
		}
	}
	// When their tables are equal the better one has it back.
	p.a.waitState(20*time.Second, "MASTER", "lan", "wan")
	p.b.waitState(20*time.Second, "BACKUP", "lan", "wan")
	if log := p.a.log.String()[before:]; strings.Contains(log, "master timed out") {
		t.Error("fw-a took the role back without its successor's consent")
	}
}

// TestABundlePreemptsAsOne demotes the master and takes that back: its groups learn of it
// one after the other, and yet none may move before the other can. On the LAN alone it
// would take frames that it cannot forward.
func TestABundlePreemptsAsOne(t *testing.T) {
	t.Parallel()
	p := watchedPair(t, "")
	for range 2 {
		if out, err := p.a.xcarp("demote"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		p.moved(10 * time.Second) // who was claimed from does not come back for a master-down time
		p.b.waitInSync(10 * time.Second)
		if out, err := p.a.xcarp("undemote"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		p.a.waitState(10*time.Second, "MASTER", "lan", "wan")
		p.a.waitInSync(10 * time.Second)
	}
	lan, wan := p.a.changes("lan"), p.a.changes("wan")
	masters := 0
	for i := range min(len(lan), len(wan)) {
		apart := lan[i].at.Sub(wan[i].at).Abs()
		if lan[i].to != wan[i].to || apart > 500*time.Millisecond { // the next advert would be a second later
			t.Errorf("lan is %s %v from wan %s", lan[i].to, apart, wan[i].to)
		}
		if lan[i].to == "MASTER" {
			masters++
		}
	}
	if masters != 3 || len(lan) != len(wan) {
		t.Errorf("fw-a became master %d times, want 3: lan %v, wan %v", masters, lan, wan)
	}
}
