package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// bare gives the node an empty configuration: everything comes from lines.
func (n *node) bare(tb testing.TB) {
	tb.Helper()
	os.Remove(filepath.Join(n.dir, "xcarp.key"))
	n.conf = n.write("xcarp.yaml", "")
	n.start()
	nstest.Eventually(tb, 15*time.Second, n.name+" answers", func() bool { return n.status() != nil })
}

// line runs one line of a tutorial behind xcarp, and returns what it prints.
func (n *node) line(tb testing.TB, line string) string {
	tb.Helper()
	out, err := n.xcarp(strings.Fields(line)...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// refused runs a line that must be refused, in one line that has all the texts.
func (n *node) refused(tb testing.TB, line string, want ...string) {
	tb.Helper()
	_, err := n.xcarp(strings.Fields(line)...)
	if err == nil {
		tb.Errorf("%s: accepted", line)
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			tb.Errorf("%s: %v lacks %q", line, err, w)
		}
	}
}

// The lines of the tutorials, as they are written there but for the name of the
// interface, make a group that ucarp takes for one of its own.
func TestTheLinesOfTheTutorialsWork(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	n := p.b
	n.bare(t)
	if got, want := n.line(t, "sysctl -w net.inet.carp.allow=1"), "net.inet.carp.allow: 1 -> 1\n"; got != want {
		t.Errorf("sysctl says %q, want %q", got, want)
	}
	n.refused(t, "sysctl net.inet.card.allow", "did you mean net.inet.carp.allow?")
	n.line(t, "ifconfig carp1 create")
	n.refused(t, "ifconfig carp1 create", "carp1 exists already")
	n.refused(t, "ifconfig carp1 -alias 10.0.0.9", "carp1 has no addresses")
	out := n.line(t, "ifconfig carp1 vhid 1 pass password carpdev lan0 advskew 100 10.0.0.1 netmask 255.255.255.0")
	if out != "" {
		t.Errorf("ifconfig says %q", out)
	}
	n.waitState(15*time.Second, "MASTER", "carp1")
	want := `carp1: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> mtu 1500
	lladdr 00:00:5e:00:01:01
	carp: MASTER carpdev lan0 vhid 1 advbase 1 advskew 100
	groups: carp
	status: master
	inet 10.0.0.1 netmask 0xffffff00 broadcast 10.0.0.255
`
	if got := n.line(t, "ifconfig carp1"); got != want {
		t.Errorf("ifconfig carp1 prints\n%s\nwant\n%s", got, want)
	}
	if mac := p.client.neighbour(t, "10.0.0.1"); mac != vMAC(1) {
		t.Errorf("the client resolves the address to %s, want %s", mac, vMAC(1))
	}

	// A worse ucarp follows our adverts, and takes over at our goodbye.
	const advbase = "3" // long enough to tell a goodbye from a timeout
	n.line(t, "ifconfig carp1 advbase "+advbase)
	peer := ucarp(t, p.a.ns, "10.0.0.2", 3, 200, "--vhid=1", "--pass=password")
	peer.waitLog(t, 10*time.Second, ucarpBackup, 0)
	sent := n.group("carp1").Sent
	nstest.Eventually(t, 60*time.Second, "four more adverts sent", func() bool { return n.group("carp1").Sent >= sent+4 })
	if out := peer.log.String(); strings.Contains(out, ucarpMaster) || strings.Contains(out, "Bad digest") {
		t.Fatalf("ucarp does not accept our adverts:\n%s", out)
	}

	// Settings change without a transition, under its eyes.
	term, transitions := n.group("carp1").Term, len(n.log.transitions("carp1"))
	n.line(t, "ifconfig carp1 advskew 50")
	n.line(t, "sysctl -w net.inet.carp.preempt=1")
	nstest.Eventually(t, 10*time.Second, "the new settings", func() bool {
		g := n.group("carp1")
		return g.AdvSkew == 50 && g.Preempt && g.State == "MASTER" && g.Sent >= 2
	})
	if g := n.group("carp1"); g.Term != term || len(n.log.transitions("carp1")) != transitions {
		t.Errorf("term %d → %d, transitions %v: a setting cost the mastership", term, g.Term, n.log.transitions("carp1"))
	}

	since := time.Now()
	n.line(t, "ifconfig carp1 down")
	peer.waitLog(t, 5*time.Second, ucarpMaster, 1) // its own timer needs 9.8 s
	if g := n.group("carp1"); g.State != "INIT" || !g.Down || g.Reason != "administratively down" || g.Since.Before(since) {
		t.Errorf("down since %v, but %+v", since, g)
	}
	if out, err := n.xcarp("log", "carp1"); err != nil || !strings.Contains(out, `leaving: group=carp1 reason="administratively down"`) {
		t.Errorf("log: %v\n%s", err, out)
	}
	if out := n.line(t, "ifconfig carp1"); !strings.Contains(out, "flags=8802<BROADCAST,SIMPLEX,MULTICAST>") || !strings.Contains(out, "carp: INIT carpdev lan0 vhid 1") {
		t.Errorf("ifconfig of a group that is down prints\n%s", out)
	}
	if n.holds("lan0", "10.0.0.1/32") {
		t.Error("down, but the kernel has the address")
	}

	// Up again it takes over from the worse one, and hands over by allow=0, too.
	n.line(t, "ifconfig carp1 up")
	n.waitState(30*time.Second, "MASTER", "carp1")
	peer.waitLog(t, 10*time.Second, ucarpBackup, 1)
	n.line(t, "sysctl -w net.inet.carp.allow=0")
	if g := n.group("carp1"); g.State != "INIT" || g.Reason != "net.inet.carp.allow is 0" {
		t.Errorf("not allowed, but %+v", g)
	}
	peer.waitLog(t, 5*time.Second, ucarpMaster, 2)
	n.line(t, "sysctl -w net.inet.carp.allow=1")
	n.waitState(30*time.Second, "MASTER", "carp1")

	// A demotion makes it yield: ucarp's advskew 200 is better than 240.
	n.line(t, "ifconfig -g carp carpdemote 200")
	if got := n.line(t, "sysctl -n net.inet.carp.demotion"); got != "200\n" {
		t.Errorf("demotion %q, want 200", got)
	}
	if got := n.line(t, "ifconfig -g carp"); got != "carp: carp demote count 200\n" {
		t.Errorf("ifconfig -g carp: %q", got)
	}
	if g := n.group("carp1"); g.Demotions["carpdemote"] != 200 {
		t.Errorf("demotions %v", g.Demotions)
	}
	n.line(t, "sysctl -w net.inet.carp.demotion=-150")
	n.line(t, "ifconfig -g carp -carpdemote 50")
	n.refused(t, "ifconfig -g carp -carpdemote", "demoted by 0")
	nstest.Eventually(t, 5*time.Second, "no demotion", func() bool { return n.group("carp1").Demotion == 0 })

	// What the parser takes and a version cannot do yet is refused in one line.
	n.refused(t, "ifconfig carp1 balancing ip-unicast carpnodes 1:0,3:100", "needs a hub")
	n.line(t, "ifconfig carp1 -carpnodes balancing none vhid 1")

	// One member by its address, and all again.
	n.line(t, "ifconfig carp1 carppeer 10.0.0.2")
	n.waitState(30*time.Second, "MASTER", "carp1")
	n.line(t, "ifconfig carp1 -carppeer")

	n.waitState(30*time.Second, "MASTER", "carp1")
	n.line(t, "ifconfig carp1 destroy")
	peer.waitLog(t, 5*time.Second, ucarpMaster, 3)
	if s := n.status(); len(s.Groups) != 0 {
		t.Errorf("destroyed, but %+v", s.Groups)
	}
	n.refused(t, "ifconfig carp1 destroy", `no group "carp1"`)
	if left, err := os.ReadDir(n.pin); err == nil && len(left) > 0 {
		t.Errorf("no group is left, but pins are: %v", left)
	}
}

// Groups come and go beside one that works, and a restart of the daemon keeps them.
func TestGroupsComeAndGoBesideOthers(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	n := p.a
	n.bare(t)
	n.line(t, "ifconfig carp1 vhid 1 pass password carpdev lan0 10.0.0.1/24 fd00:1::1/64 --save")
	n.waitState(15*time.Second, "MASTER", "carp1")
	term := n.group("carp1").Term

	n.line(t, "ifconfig carp2 vhid 2 pass password carpdev lan0 10.0.0.7/24") // the same carpdev
	n.line(t, "ifconfig wan0 vhid 3 pass password 203.0.113.1/24 alias")      // as on FreeBSD, a new one
	n.waitState(15*time.Second, "MASTER", "carp2", "wan0-vhid3")
	if mac := p.client.neighbour(t, "10.0.0.7"); mac != vMAC(2) {
		t.Errorf("the client resolves the second group's address to %s, want %s", mac, vMAC(2))
	}
	n.line(t, "ifconfig carp1 -alias fd00:1::1 10.0.0.8/24")
	if mac := p.client.neighbour(t, "10.0.0.8"); mac != vMAC(1) {
		t.Errorf("the client resolves the new address to %s, want %s", mac, vMAC(1))
	}
	nstest.Eventually(t, 5*time.Second, "the kernel has the new address and not the old one", func() bool {
		return n.holds("lan0", "10.0.0.8/32") && !n.holds("lan0", "fd00:1::1/128")
	})

	// What is refused changes nothing.
	nstest.Eventually(t, 15*time.Second, "the trap is over", func() bool { return !strings.Contains(n.ns.Exec("nft", "list", "ruleset"), "expires") })
	before, hash := n.snapshot(), n.status().Hash
	n.refused(t, "ifconfig carp3 vhid 2 pass x carpdev lan0 10.0.0.9/24", "ifconfig: column 12: ", "vhid 2 on lan0", `"carp2"`)
	n.refused(t, "ifconfig carp3 vhid 4 pass x carpdev lan1 10.0.0.9/24", "column 29", `no interface "lan1"`, "lan0")
	n.refused(t, "ifconfig carp3 vhid 4 pass x carpdev lan0 10.9.0.9/24", "column 34", "10.9.0.9/24")
	n.refused(t, "ifconfig carp1 vhid 300", "vhid 300", "1 to 255")
	n.refused(t, "ifconfig carp1 advskwe 5", "did you mean \"advskew\"?")
	n.refused(t, "ifconfig dmz advskew 5", `no group "dmz"`, "xcarp ifconfig dmz create")
	n.refused(t, "ifconfig pfsync0 syncdev sync0 syncpeer 172.30.0.3 up", "needs a key", "xcarp keygen")
	if after := n.snapshot(); after != before || n.status().Hash != hash {
		t.Errorf("something changed:\n--- before\n%s\n--- after\n%s", before, after)
	}

	if g := n.group("carp1"); g.State != "MASTER" || g.Term != term || len(n.log.transitions("carp1")) != 2 {
		t.Errorf("the first group is %s with term %d, went through %v, want MASTER with term %d", g.State, g.Term, n.log.transitions("carp1"), term)
	}
	n.kill(unix.SIGKILL)
	n.start()
	nstest.Eventually(t, 10*time.Second, "the daemon answers", func() bool { return n.status() != nil })
	n.waitState(5*time.Second, "MASTER", "carp1", "carp2", "wan0-vhid3")
	if g := n.group("carp1"); g.Term != term {
		t.Errorf("after a restart term %d, want %d", g.Term, term)
	}

	n.line(t, "ifconfig wan0-vhid3 destroy")
	if n.holds("wan0", "203.0.113.1/32") {
		t.Error("the kernel still has the address of a destroyed group")
	}
	if _, err := os.Stat(filepath.Join(n.pin, "wan0")); !os.IsNotExist(err) {
		t.Errorf("the programs of a carpdev that no group has are still pinned: %v", err)
	}

	// Without a line in force a restart does not go back to the saved ones.
	n.line(t, "ifconfig carp2 destroy")
	if out := n.line(t, "ifconfig carp1 destroy -o json"); !strings.Contains(out, "comes back at the next boot: say it again with --save") {
		t.Errorf("the destruction of a saved group says %s", out)
	}
	n.kill(unix.SIGKILL)
	n.start()
	nstest.Eventually(t, 10*time.Second, "the daemon answers", func() bool { return n.status() != nil })
	if s := n.status(); len(s.Groups) != 0 {
		t.Errorf("destroyed, and after a restart: %+v", s.Groups)
	}

	// A reboot forgets the run-dir: what was saved is there, and nothing else.
	n.kill(unix.SIGTERM)
	if err := os.RemoveAll(filepath.Join(n.dir, "run")); err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(n.dir, "state", "lines")
	if fi, err := os.Stat(saved); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("saved lines: %v, %v", fi, err)
	}
	n.start()
	n.waitState(30*time.Second, "MASTER", "carp1")
	if s := n.status(); len(s.Groups) != 1 || len(s.Groups[0].Addresses) != 2 {
		t.Errorf("after a reboot: %+v", s.Groups)
	}
}

// A pair that was never given a file mirrors its connections.
func TestPfsyncLinesJoinTwoNodes(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for i, n := range []*node{p.a, p.b} {
		n.bare(t)
		n.line(t, fmt.Sprintf("ifconfig carp1 vhid 1 pass password carpdev lan0 advskew %d 10.0.0.1 netmask 255.255.255.0", 100*i))
		n.write("xcarp.key", testKey+"\n")
	}
	p.a.waitState(15*time.Second, "MASTER", "carp1")
	p.b.waitState(15*time.Second, "BACKUP", "carp1")
	term := p.a.group("carp1").Term
	p.a.line(t, "ifconfig pfsync0 syncdev sync0 syncpeer 172.30.0.3 up")
	p.b.line(t, "ifconfig pfsync0 syncdev sync0 syncpeer 172.30.0.2 up")
	p.a.waitInSync(30 * time.Second)
	p.b.waitInSync(30 * time.Second)
	if out := p.a.line(t, "ifconfig pfsync0"); !strings.Contains(out, "pfsync: syncdev: sync0 syncpeer: 172.30.0.3") {
		t.Errorf("ifconfig pfsync0 prints\n%s", out)
	}
	if g := p.a.group("carp1"); g.State != "MASTER" || g.Term != term {
		t.Errorf("the master is %s with term %d, want MASTER with term %d", g.State, g.Term, term)
	}
	p.a.line(t, "ifconfig pfsync0 down")
	if s := p.a.status(); len(s.Sync) != 0 {
		t.Errorf("pfsync0 is down, but %+v", s.Sync)
	}
}

// Lines change what a file says, and SIGHUP what the file says itself.
func TestLinesAndReloadChangeGroupsOfTheFile(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	n := p.a
	n.write("xcarp.yaml", fmt.Sprintf(`node: %s
groups:
  lan: "vhid 2 pass password carpdev lan0 advskew 10 10.0.0.1 netmask 255.255.255.0"
  wan: {vhid: 1, carpdev: wan0, addresses: [203.0.113.1/24], pass: password}
bundle: [lan, wan]
`, n.name))
	n.start()
	n.waitState(15*time.Second, "MASTER", "lan", "wan")
	term := n.group("lan").Term
	n.line(t, "ifconfig lan advskew 20")
	if g := n.group("lan"); g.AdvSkew != 20 || g.State != "MASTER" || g.Term != term {
		t.Errorf("lan: %+v", g)
	}
	n.refused(t, "ifconfig lan -alias 10.0.0.99", "column 12: lan has no address 10.0.0.99: it has 10.0.0.1/24")
	if out := n.line(t, "ifconfig wan destroy -o json"); !strings.Contains(out, "overrules until the next boot: take it out there") {
		t.Errorf("the destruction of a group of the file says %s", out)
	}
	if n.group("wan").Name != "" {
		t.Error("a group of the file was destroyed, and is there")
	}
	n.reconfigure(func(s string) string {
		return strings.Replace(s, "10.0.0.1 netmask", "10.0.0.3/24 10.0.0.1 netmask", 1)
	})
	n.signal(unix.SIGHUP)
	nstest.Eventually(t, 10*time.Second, "the file's new address", func() bool { return len(n.group("lan").Addresses) == 2 })
	if g := n.group("lan"); g.AdvSkew != 20 || g.State != "MASTER" || g.Term != term {
		t.Errorf("lan after a reload: %+v", g)
	}
	n.reconfigure(func(s string) string { return strings.Replace(s, "vhid 2", "vhdi 2", 1) })
	n.signal(unix.SIGHUP)
	nstest.Eventually(t, 10*time.Second, "a complaint", func() bool { return strings.Contains(n.log.String(), "the running one stays") })
	n.line(t, "ifconfig wan create vhid 1 carpdev wan0 pass password 203.0.113.1/24") // in spite of the file
	n.waitState(15*time.Second, "MASTER", "wan")
}

// What a group says after its settings changed, or after it was down, is new to
// peers that remember how far it had come.
func TestChangedSettingsAreNoReplay(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.up()
	for _, skew := range []string{"5", "7"} {
		p.a.line(t, "ifconfig lan advskew "+skew)
		got := p.b.group("lan").Received
		nstest.Eventually(t, 10*time.Second, "the peer believes", func() bool { return p.b.group("lan").Received >= got+3 })
	}
	if got := p.b.log.transitions("lan"); strings.Join(got, " ") != "BACKUP" {
		t.Errorf("the peer's group went through %v, want BACKUP alone", got)
	}
	p.a.line(t, "ifconfig lan down")
	p.b.waitState(10*time.Second, "MASTER", "lan")
	p.a.line(t, "ifconfig lan up")
	p.a.waitState(30*time.Second, "MASTER", "lan")
	p.b.waitState(10*time.Second, "BACKUP", "lan")
	if drops := p.b.group("lan").Drops; drops["replay"] > 0 || drops["badauth"] > 0 {
		t.Errorf("the peer has refused adverts: %v", drops)
	}
}
