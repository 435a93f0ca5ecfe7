package test

import (
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

// Vhids come to share an address, and go, while a host talks to it.
func TestAnAddressIsSharedByLines(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	n := p.a
	n.bare(t)
	n.line(t, "sysctl net.inet.carp.preempt=1")
	n.line(t, "ifconfig carp1 vhid 1 pass password carpdev lan0 10.0.0.1/24")
	n.waitState(20*time.Second, "MASTER", "carp1")
	n.refused(t, "ifconfig carp1 balancing arp", "has balance and no carpnodes")
	n.refused(t, "sysctl net.inet.carp.arpbalance=1", "balancing arp carpnodes")
	nstest.Eventually(t, 5*time.Second, "the kernel's address", func() bool { return n.holds("lan0", "10.0.0.1/32") })

	n.line(t, "ifconfig carp1 balancing arp carpnodes 1:0,10:100,3:50")
	n.waitState(20*time.Second, "MASTER", "carp1/1", "carp1/3", "carp1/10")
	nstest.Eventually(t, 5*time.Second, "the kernel's address", func() bool { return n.holds("lan0", "10.0.0.1/32") })
	told := []string{vMAC(1), vMAC(3), vMAC(10)}
	if got := p.client.neighbour(t, "10.0.0.1"); !slices.Contains(told, got) {
		t.Errorf("the client was told %s, want one of %v", got, told)
	}
	if got := n.line(t, "sysctl -n net.inet.carp.arpbalance"); got != "1\n" {
		t.Errorf("arpbalance %q, want 1", got)
	}
	const want = `	carp: carpdev lan0 advbase 1 balancing arp
		state MASTER vhid 1 advskew 0
		state MASTER vhid 3 advskew 50
		state MASTER vhid 10 advskew 100
	groups: carp
	status: master
	inet 10.0.0.1 netmask 0xffffff00 broadcast 10.0.0.255
`
	if got := n.line(t, "ifconfig carp1"); !strings.HasSuffix(got, want) || strings.Count(got, "carp1:") != 1 {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := n.line(t, "show carp1"); strings.Count(got, "balance arp by mac") != 3 {
		t.Errorf("show: %s", got)
	}

	// One vhid comes, one goes; the others do not notice.
	term := n.group("carp1/1").Term
	n.line(t, "ifconfig carp1 carpnodes 1:7,10:100,4:0")
	n.waitState(20*time.Second, "MASTER", "carp1/4")
	if g := n.group("carp1/1"); g.State != "MASTER" || g.Term != term || g.AdvSkew != 7 {
		t.Errorf("carp1/1: %s in term %d with advskew %d, want MASTER in %d with 7", g.State, g.Term, g.AdvSkew, term)
	}
	if g := n.group("carp1/3"); g.Name != "" {
		t.Errorf("carp1/3 is %s, want it gone", g.State)
	}
	if !n.holds("lan0", "10.0.0.1/32") {
		t.Error("the kernel has no address, and the node is MASTER")
	}

	// A daemon that starts again takes all of them up.
	n.kill(unix.SIGKILL)
	n.start()
	n.waitState(20*time.Second, "MASTER", "carp1/1", "carp1/4", "carp1/10")
	// One vhid alone can be demoted.
	if _, err := n.xcarp("demote", "carp1/4", "--by", "9"); err != nil {
		t.Error(err)
	}
	nstest.Eventually(t, 5*time.Second, "the demotion", func() bool {
		return n.group("carp1/4").Demotion == 9 && n.group("carp1/1").Demotion == 0
	})

	n.line(t, "ifconfig carp1 -carpnodes balancing none vhid 1")
	n.waitState(20*time.Second, "MASTER", "carp1")
	if got := p.client.neighbour(t, "10.0.0.1"); got != vMAC(1) {
		t.Errorf("the client was told %s, want %s", got, vMAC(1))
	}
	n.line(t, "ifconfig carp1 carpnodes 2:0,3:0 balancing ip")
	n.waitState(20*time.Second, "MASTER", "carp1/2", "carp1/3")
	if got := p.client.neighbour(t, "10.0.0.1"); got != "01:00:5e:00:01:02" {
		t.Errorf("the client was told %s, want the multicast MAC of vhid 2", got)
	}
	n.line(t, "ifconfig carp1 destroy")
	if n.holds("lan0", "10.0.0.1/32") {
		t.Error("destroyed, and the kernel has the address")
	}
	if out := n.ns.Exec("bridge", "fdb", "show", "dev", "lan0"); strings.Contains(out, "5e:00:01") {
		t.Errorf("entries are left in the device's filter: %s", out)
	}
	if left, err := os.ReadDir(n.pin); err == nil && len(left) > 0 {
		t.Errorf("no group is left, but pins are: %v", left)
	}
}

// Both routers of a pair work, each for its share of the LAN and of the WAN, and the
// connections of either go on when one of them is cut off and when it is back.
func TestFlowsSurviveWhereTheLoadIsShared(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.rules()
	for _, n := range []*node{p.a, p.b} {
		n.write("xcarp.yaml", fmt.Sprintf(`node: %s
key_file: %s
sync: {dev: sync0, nodes: {fw-a: 172.30.0.2, fw-b: 172.30.0.3}}
detect: off
preempt: true
groups:
  wan:
    carpdev: wan0
    addresses: [203.0.113.1/24, "2001:db8:1::1/64"]
    balance: arp
    carpnodes: {fw-a: {1: 0, 2: 100}, fw-b: {1: 100, 2: 0}}
  lan:
    carpdev: lan0
    addresses: [10.0.0.1/24, "fd00:1::1/64"]
    balance: arp
    carpnodes: {fw-a: {11: 0, 12: 100}, fw-b: {11: 100, 12: 0}}
bundle: [wan, lan]
`, n.name, filepath.Join(n.dir, "xcarp.key")))
		n.start()
	}
	settled := func() {
		t.Helper()
		p.a.waitState(40*time.Second, "MASTER", "lan/11", "wan/1")
		p.b.waitState(40*time.Second, "MASTER", "lan/12", "wan/2")
		p.a.waitState(10*time.Second, "BACKUP", "lan/12", "wan/2")
		p.b.waitState(10*time.Second, "BACKUP", "lan/11", "wan/1")
		p.a.waitInSync(20 * time.Second)
		p.b.waitInSync(20 * time.Second)
	}
	settled()
	// Both directions go by one node: only then a stateful filter sees a connection.
	second := p.client.neighbour(t, "10.0.0.1") == vMAC(12)
	for i := 0; (p.server.neighbour(t, "203.0.113.1") == vMAC(2)) != second; i++ {
		if i == 30 {
			t.Fatal("30 MACs of the server go to the other node")
		}
		p.server.Exec("ip", "link", "set", "eth0", "address", fmt.Sprintf("02:cc:00:00:01:%02x", i))
	}
	p.server.echoServer(t, ":7000")
	flows := []*flow{
		p.client.dial(t, "TCP through SNAT", "tcp", "203.0.113.100:7000"),
		p.client.dial(t, "UDP through SNAT", "udp", "203.0.113.100:7000"),
		p.client.dial(t, "TCP over IPv6", "tcp", "[2001:db8:1::100]:7000"),
		p.client.dial(t, "UDP over IPv6", "udp", "[2001:db8:1::100]:7000"),
	}
	alive := func(when string) {
		t.Helper()
		for _, f := range flows {
			if err := f.echo(20 * time.Second); err != nil {
				t.Errorf("%s: %s: %v", when, f.name, err)
			}
		}
	}
	alive("at first")
	for _, n := range []*node{p.a, p.b} {
		p.cut(n)
		other := map[*node]*node{p.a: p.b, p.b: p.a}[n]
		other.waitState(20*time.Second, "MASTER", "lan/11", "lan/12", "wan/1", "wan/2")
		alive("with " + n.name + " cut off")
		p.heal(n)
		settled()
		alive("with " + n.name + " back")
	}
}
