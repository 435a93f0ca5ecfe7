package test

import (
	"os"
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
