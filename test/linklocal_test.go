package test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

func containsAll(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// advertiseRouter sends a router advertisement from fe80::1, as radvd does with
// AdvRASrcAddress, with the interface's own MAC as its source option. It reports
// whether the kernel took it; the fence drops without a word or with EPERM.
func (n *node) advertiseRouter(dev string) {
	n.tb.Helper()
	n.ns.Must(func() error {
		ifi, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		s, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		shared := net.ParseIP("fe80::1").To16()
		for _, opt := range [][3]int{
			{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255},
			{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, ifi.Index},
			{unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1},
		} {
			if err := unix.SetsockoptInt(s, opt[0], opt[1], opt[2]); err != nil {
				return err
			}
		}
		if err := unix.Bind(s, &unix.SockaddrInet6{Addr: [16]byte(shared), ZoneId: uint32(ifi.Index)}); err != nil {
			return err
		}
		ra := append([]byte{134, 0, 0, 0, 64, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1}, ifi.HardwareAddr...) // RFC 4861, 4.2
		all := [16]byte{0: 0xff, 1: 0x02, 15: 1}
		err = unix.Sendto(s, ra, 0, &unix.SockaddrInet6{Addr: all, ZoneId: uint32(ifi.Index)})
		if err == unix.EPERM || err == unix.ENOBUFS { // the fence
			return nil
		}
		return err
	})
}

// routerAdvert matches router advertisements.
func routerAdvert(p gopacket.Packet) bool {
	return p.Layer(layers.LayerTypeICMPv6RouterAdvertisement) != nil
}

// TestASharedLinkLocalIsTheGatewayOfHosts: hosts that learn their gateway by router
// advertisement keep it when the role moves. The same fe80::1 is shared on two
// carpdevs.
func TestASharedLinkLocalIsTheGatewayOfHosts(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, n := range []*node{p.a, p.b} {
		n.conf = n.write("xcarp.yaml", `node: `+n.name+`
preempt: true
groups:
  lan: {vhid: 2, carpdev: lan0, addresses: ["fe80::1/64", 10.0.0.1/24, "fd00:1::1/64"], pass: carpdiem}
  wan: {vhid: 1, carpdev: wan0, addresses: ["fe80::1/64"], pass: carpdiem}
advskew: {fw-a: 0, fw-b: 100}
bundle: [lan, wan]
`)
	}
	p.client.Exec("ip", "-6", "route", "del", "default")
	ofA, ofB := newTap(t, p.sw, p.a.lanPort), newTap(t, p.sw, p.b.lanPort)
	p.a.start()
	p.b.start()
	p.a.waitState(30*time.Second, "MASTER", "lan", "wan")
	p.b.waitState(30*time.Second, "BACKUP", "lan", "wan")
	nstest.Eventually(t, 15*time.Second, "a holds fe80::1 on both", func() bool { return p.a.holds("lan0", "fe80::1/128") && p.a.holds("wan0", "fe80::1/128") })
	if p.b.holds("lan0", "fe80::1/128") {
		t.Error("the backup holds fe80::1")
	}

	gateway := func(n *node) {
		t.Helper()
		n.advertiseRouter("lan0")
		nstest.Eventually(t, 10*time.Second, "the client has the default route via fe80::1", func() bool {
			return strings.Contains(p.client.Exec("ip", "-6", "route", "show", "default"), "via fe80::1 dev eth0 proto ra")
		})
		for _, at := range []struct {
			h    host
			vhid int
		}{{p.client, 2}, {p.server, 1}} {
			nstest.Eventually(t, 10*time.Second, at.h.Name+" reaches fe80::1 at its virtual MAC, a router", func() bool {
				_, _ = at.h.Run(t.Context(), "ping", "-c1", "-W1", "fe80::1%eth0")
				return containsAll(at.h.Exec("ip", "-6", "neigh", "show", "fe80::1", "dev", "eth0"), vMAC(at.vhid), "router")
			})
			if out, err := at.h.Run(t.Context(), "ping", "-c3", "-i0.2", "-W2", "fe80::1%eth0"); err != nil {
				t.Errorf("%s does not reach fe80::1: %v\n%s", at.h.Name, err, out)
			}
		}
		if out, err := p.client.Run(t.Context(), "ping", "-c3", "-i0.2", "-W2", "2001:db8:1::100"); err != nil {
			t.Errorf("the client does not reach the server through its gateway: %v\n%s", err, out)
		}
	}
	p.server.Exec("ip", "-6", "route", "replace", "fd00:1::/64", "via", "fe80::1", "dev", "eth0")
	gateway(p.a)
	if n := ofA.count(func(p gopacket.Packet) bool { return routerAdvert(p) && !fromVMAC(2)(p) }); n != 0 {
		t.Errorf("%d router advertisements of the master from another MAC than the virtual one", n)
	}
	p.b.advertiseRouter("lan0")
	if g := p.b.group("lan"); g.Packets["fence_nd"]+g.Packets["fence_source"] == 0 {
		t.Error("the fence of the backup has not held its router advertisement back")
	}
	if n := ofB.count(routerAdvert); n != 0 {
		t.Errorf("the backup sent %d router advertisements from the shared address", n)
	}

	p.a.kill(unix.SIGTERM)
	p.b.waitState(12*time.Second, "MASTER", "lan", "wan")
	nstest.Eventually(t, 15*time.Second, "b holds fe80::1, and a no more", func() bool {
		return p.b.holds("lan0", "fe80::1/128") && p.b.holds("wan0", "fe80::1/128") && !p.a.holds("lan0", "fe80::1/128")
	})
	gateway(p.b)
}
