package test

import (
	"fmt"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// lanConfig is one group on the LAN with a password and what is given more.
func lanConfig(n *node, addresses, more string, skew int) {
	n.conf = n.write("xcarp.yaml", fmt.Sprintf(`node: %s
preempt: true
groups:
  lan: {vhid: %d, carpdev: lan0, addresses: %s, pass: carpdiem, advskew: %d%s}
`, n.name, lanVHID, addresses, skew, more))
}

// An advertFrame is where an advert of ours went.
type advertFrame struct{ src, dst, from, to string }

// sentTo returns where the adverts went that the node sent, in order.
func (t *tap) sentTo() []advertFrame {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []advertFrame
	for _, p := range t.from {
		eth, ok := p.LinkLayer().(*layers.Ethernet)
		if !ok {
			continue
		}
		switch ip := p.NetworkLayer().(type) {
		case *layers.IPv4:
			if ip.Protocol == 112 {
				all = append(all, advertFrame{eth.SrcMAC.String(), eth.DstMAC.String(), ip.SrcIP.String(), ip.DstIP.String()})
			}
		case *layers.IPv6:
			if ip.NextHeader == 112 {
				all = append(all, advertFrame{eth.SrcMAC.String(), eth.DstMAC.String(), ip.SrcIP.String(), ip.DstIP.String()})
			}
		}
	}
	return all
}

// unreachable matches ICMP errors.
func unreachable(p gopacket.Packet) bool {
	if i, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok {
		return i.TypeCode.Type() == layers.ICMPv4TypeDestinationUnreachable
	}
	i, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
	return ok && i.TypeCode.Type() < 128
}

// TestUnicastPeers: adverts of both families go to the peer alone, the peer is
// content with them, and a master keeps its role when the peer is gone.
func TestUnicastPeers(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	const peers = `, carppeer: {fw-a: [10.0.0.3, "fd00:1::3"], fw-b: [10.0.0.2, "fd00:1::2"]}`
	lanConfig(p.a, `[10.0.0.1/24, "fd00:1::1/64"]`, peers, 0)
	lanConfig(p.b, `[10.0.0.1/24, "fd00:1::1/64"]`, peers, 100)
	ofA, ofB := newTap(t, p.sw, p.a.lanPort), newTap(t, p.sw, p.b.lanPort)
	// A kernel asks no neighbour before its link-local address is settled, and
	// adverts to a peer whose MAC nobody knows go to everybody.
	nstest.Eventually(t, 10*time.Second, "a's link-local address settled", func() bool {
		return p.a.ns.Exec("ip", "-6", "addr", "show", "dev", "lan0", "scope", "link", "-tentative") != ""
	})
	p.a.start()
	p.b.start()
	p.a.waitState(30*time.Second, "MASTER", "lan")
	nstest.Eventually(t, 30*time.Second, "ten adverts of a accepted by b", func() bool { return p.b.group("lan").Received >= 10 })
	g := p.b.group("lan")
	if g.State != "BACKUP" || len(g.Masters) != 1 || g.Masters[0].Address != "10.0.0.2" || g.Masters[0].Address6 != "fd00:1::2" {
		t.Errorf("b: %s, masters %+v; want BACKUP and one master in two families", g.State, g.Masters)
	}
	if g.Packets["advert"] == 0 {
		t.Error("the shield of b has not judged the unicast adverts")
	}
	want4 := advertFrame{vMAC(lanVHID), mac(t, p.b.ns, "lan0").String(), "10.0.0.2", "10.0.0.3"}
	want6 := advertFrame{vMAC(lanVHID), mac(t, p.b.ns, "lan0").String(), "fd00:1::2", "fd00:1::3"}
	for _, f := range ofA.sentTo() {
		if f != want4 && f != want6 {
			t.Errorf("an advert went as %+v, want %+v or %+v", f, want4, want6)
		}
	}
	if n := ofB.count(unreachable); n != 0 {
		t.Errorf("b's kernel complained %d times about protocol 112", n)
	}

	// The peer is gone, and the kernel no longer knows its MAC.
	p.b.kill(unix.SIGKILL)
	p.sw.Exec("ip", "link", "set", p.b.lanPort, "down")
	p.a.ns.Exec("ip", "neigh", "flush", "dev", "lan0")
	sent := p.a.group("lan").Sent
	nstest.Eventually(t, 30*time.Second, "ten more adverts sent to nobody", func() bool { return p.a.group("lan").Sent >= sent+10 })
	if g := p.a.group("lan"); g.State != "MASTER" || g.SendErrors != 0 || g.Demotion != 0 {
		t.Errorf("without its peer a is %s with %d send errors, demotion %d; want MASTER, 0, 0", g.State, g.SendErrors, g.Demotion)
	}
	if got := p.a.log.transitions("lan"); len(got) != 2 {
		t.Errorf("transitions of a: %v, want BACKUP and MASTER", got)
	}

	p.sw.Exec("ip", "link", "set", p.b.lanPort, "up")
	p.b.ns.WaitUp("lan0")
	p.b.start()
	p.b.waitState(30*time.Second, "BACKUP", "lan")
	nstest.Eventually(t, 30*time.Second, "b hears a again", func() bool { return p.b.group("lan").Received >= 2 })
	p.a.kill(unix.SIGTERM)
	p.b.waitState(12*time.Second, "MASTER", "lan")
}

// TestAnotherMulticastGroup: mcast and dscp reach the wire, and a member with the
// default group does not hear that one.
func TestAnotherMulticastGroup(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	const to = `, mcast: 239.1.2.3, mcast6: "ff02::1:2:3", dscp: 4`
	lanConfig(p.a, `[10.0.0.1/24, "fd00:1::1/64"]`, to, 0)
	lanConfig(p.b, `[10.0.0.1/24, "fd00:1::1/64"]`, to, 100)
	ofA := newTap(t, p.sw, p.a.lanPort)
	p.a.start()
	p.b.start()
	p.a.waitState(30*time.Second, "MASTER", "lan")
	nstest.Eventually(t, 30*time.Second, "ten adverts of a accepted by b", func() bool { return p.b.group("lan").Received >= 10 })
	for _, f := range ofA.sentTo() {
		if got := f.dst + " " + f.to; got != "01:00:5e:01:02:03 239.1.2.3" && got != "33:33:00:02:00:03 ff02::1:2:3" {
			t.Errorf("an advert went to %s", got)
		}
	}
	if n := ofA.count(func(p gopacket.Packet) bool {
		ip, ok := p.NetworkLayer().(*layers.IPv4)
		return ok && ip.Protocol == 112 && ip.TOS != 0x10
	}); n != 0 {
		t.Errorf("%d adverts without the TOS 0x10 that dscp 4 is", n)
	}
	if g := p.b.group("lan"); g.State != "BACKUP" || g.Packets["advert"] == 0 {
		t.Errorf("b: %s, %d adverts judged by its shield; want BACKUP and some", g.State, g.Packets["advert"])
	}
	if out := p.b.ns.Exec("ip", "maddress", "show", "dev", "lan0"); !containsAll(out, "239.1.2.3", "ff02::1:2:3") {
		t.Errorf("not joined: %s", out)
	}
}
