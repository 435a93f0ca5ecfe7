package config

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/xcarp/xcarp/internal/nstest"
)

func prefixes(s ...string) (all []netip.Prefix) {
	for _, p := range s {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

// ready is a machine on which the configuration pair works.
func ready() System {
	eth := func(name string, own ...string) Interface {
		return Interface{Name: name, Kind: "device", Ethernet: true, Up: true, MTU: 1500, Addresses: prefixes(own...)}
	}
	return System{Forward4: true, Forward6: true, Interfaces: []Interface{
		{Name: "lo", Kind: "device", Loopback: true, Up: true, MTU: 65536, Addresses: prefixes("127.0.0.1/8", "::1/128")},
		eth("eth0", "203.0.113.2/24", "2001:db8::2/64", "fe80::2/64"),
		eth("eth1", "10.0.0.2/24"),
		eth("eth2", "172.30.0.1/30"),
	}}
}

func TestCheck(t *testing.T) {
	const noRoute = `no address and no connected route on eth1 for the subnet of `
	for _, c := range []struct {
		name     string
		old, new string // in the configuration pair
		change   func(*System)
		want     string
	}{
		{"all is well", "", "", func(*System) {}, ""},
		{"no root", "", "", func(s *System) { s.EUID = 1000 },
			"xcarp.yaml: not running as root: attaching programs and changing addresses needs it: use sudo, or the systemd unit"},
		{"no forwarding", "", "", func(s *System) { s.Forward4 = false },
			"xcarp.yaml: warning: net.ipv4.ip_forward is 0, so this node routes nothing: sysctl -w net.ipv4.ip_forward=1 if it is a router"},
		{"no IPv6 forwarding", "", "", func(s *System) { s.Forward6 = false },
			"xcarp.yaml: warning: net.ipv6.conf.all.forwarding is 0, so this node routes no IPv6: sysctl -w net.ipv6.conf.all.forwarding=1 if it is a router"},
		{"no such carpdev", "carpdev: eth1", "carpdev: eth7", func(s *System) {},
			`xcarp.yaml:7:27: carpdev: no interface "eth7": there are eth0, eth1, eth2`},
		{"misspelt carpdev", "", "", func(s *System) { s.Interfaces[2].Name = "enp1s0" }, `xcarp.yaml:7:27: carpdev: no interface "eth1": there are eth0, enp1s0, eth2`},
		{"swapped letters", "carpdev: eth1", "carpdev: epn1s0", func(s *System) { s.Interfaces[2].Name = "enp1s0" },
			`xcarp.yaml:7:27: carpdev: no interface "epn1s0": did you mean "enp1s0"?`},
		{"no such sync.dev", "dev: eth2", "dev: eth9", func(*System) {}, `xcarp.yaml:3:13: sync.dev: no interface "eth9": there are eth0, eth1, eth2`},
		{"loopback as carpdev", "carpdev: eth1", "carpdev: lo", func(*System) {},
			`xcarp.yaml:7:27: carpdev lo is the loopback interface: name the interface to the network of the addresses`},
		{"tunnel as carpdev", "", "", func(s *System) { s.Interfaces[2].Ethernet = false },
			`xcarp.yaml:7:27: carpdev eth1 is not an Ethernet interface: CARP needs one: the virtual MAC has no meaning elsewhere`},
		{"carpdev down", "", "", func(s *System) { s.Interfaces[2].Up = false }, `xcarp.yaml:7:27: warning: carpdev eth1 is down: ip link set eth1 up`},
		{"no subnet", "mode: next-hop", "mode: local", func(s *System) { s.Interfaces[2].Addresses = nil },
			"xcarp.yaml:7:58: " + noRoute + "10.0.0.1/24: give eth1 an own address in it, or: ip route add 10.0.0.0/24 dev eth1\n" +
				"xcarp.yaml:7:45: " + noRoute + "10.0.0.9/24: give eth1 an own address in it, or: ip route add 10.0.0.0/24 dev eth1"},
		{"no subnet, next-hop", "10.0.0.9/24, ", "", func(s *System) { s.Interfaces[2].Addresses = nil },
			"xcarp.yaml:7:45: warning: no address and no connected route on eth1 for the subnet of 10.0.0.1/24: give eth1 an own address in it, or: ip route add 10.0.0.0/24 dev eth1"},
		{"a connected route will do", "mode: next-hop", "mode: local", func(s *System) {
			s.Interfaces[2].Addresses, s.Interfaces[2].Routes = nil, prefixes("10.0.0.0/24")
		}, ""},
		{"a default route will not", "10.0.0.9/24, ", "", func(s *System) {
			s.Interfaces[2].Addresses, s.Interfaces[2].Routes = nil, prefixes("0.0.0.0/0")
		}, "xcarp.yaml:7:45: warning: no address and no connected route on eth1 for the subnet of 10.0.0.1/24: give eth1 an own address in it, or: ip route add 10.0.0.0/24 dev eth1"},
		{"a host route will not", "10.0.0.9/24, ", "", func(s *System) {
			s.Interfaces[2].Addresses, s.Interfaces[2].Routes = nil, prefixes("10.0.0.1/32")
		}, "xcarp.yaml:7:45: warning: no address and no connected route on eth1 for the subnet of 10.0.0.1/24: give eth1 an own address in it, or: ip route add 10.0.0.0/24 dev eth1"},
		{"the shared address while master is no subnet", "10.0.0.9/24, ", "", func(s *System) { s.Interfaces[2].Addresses = prefixes("10.0.0.1/32") },
			"xcarp.yaml:7:45: warning: no address and no connected route on eth1 for the subnet of 10.0.0.1/24: give eth1 an own address in it, or: ip route add 10.0.0.0/24 dev eth1"},
		{"the shared address while master does no harm", "", "", func(s *System) {
			s.Interfaces[2].Addresses = prefixes("10.0.0.2/24", "10.0.0.1/32")
		}, ""},
		{"the shared address for good", "", "", func(s *System) { s.Interfaces[2].Addresses = prefixes("10.0.0.1/24") },
			"xcarp.yaml:7:58: shared address 10.0.0.1 is configured on eth1 permanently: ip addr del 10.0.0.1/24 dev eth1, also in the network configuration: xcarp adds it while MASTER"},
		{"link-local needs nothing", `"2001:db8::1/64"`, `"fe80::1/64"`, func(s *System) { s.Interfaces[1].Addresses = prefixes("203.0.113.2/24") }, ""},
		{"sync address elsewhere", "dev: eth2", "dev: eth0", func(*System) {},
			"xcarp.yaml:3:13: warning: sync.dev eth0 is also the carpdev of group \"wan\": use a link of its own: when one fails, the other tells a dead node from a dead link\n" +
				"xcarp.yaml:3:33: our sync address 172.30.0.1 is not on eth0: it is on eth2; set sync.dev to eth2 or give each node its address on eth0"},
		{"sync address missing", "", "", func(s *System) { s.Interfaces[3].Addresses = nil },
			"xcarp.yaml:3:33: our sync address 172.30.0.1 is not on eth2: ip addr add 172.30.0.1/30 dev eth2"},
		{"peer in another subnet", "fw-b: 172.30.0.2", "fw-b: 172.30.9.2", func(*System) {},
			"xcarp.yaml:3:51: warning: sync address 172.30.9.2 of fw-b is not in a subnet of eth2: put both into one subnet, or make sure that a route leads there"},
		{"carppeer on the link", "mode: next-hop", "carppeer: {fw-a: 10.0.0.3, fw-b: 10.0.0.2}", func(*System) {}, ""},
		{"carppeer is ourselves", "mode: next-hop", "carppeer: 10.0.0.2", func(*System) {},
			"xcarp.yaml:7:98: carppeer 10.0.0.2 is our own address on eth1: name the other member; by node, if the file is the same on all: {fw-a: 10.0.0.3, fw-b: 10.0.0.2}"},
		{"carppeer behind a router", "mode: next-hop", "carppeer: 10.7.0.3", func(*System) {},
			"xcarp.yaml:7:98: carppeer 10.7.0.3 is in no subnet of eth1: name an address there: an advert that crossed a router is refused"},
		{"carppeer without an own address", "mode: next-hop", "carppeer: 10.0.0.3", func(s *System) {
			s.Interfaces[2].Addresses, s.Interfaces[2].Routes = nil, prefixes("10.0.0.0/24")
		}, "xcarp.yaml:7:98: warning: eth1 has no own address of the family of carppeer 10.0.0.3: give it one: the other member needs an address to send to"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := load(t, strings.Replace(pair, c.old, c.new, 1))
			if err != nil {
				t.Fatal(err)
			}
			sys := ready()
			c.change(&sys)
			var got []string
			for _, p := range Check(cfg, sys) {
				p.File = "xcarp.yaml"
				got = append(got, p.Error())
			}
			if s := strings.Join(got, "\n"); s != c.want {
				t.Errorf("got\n%s\nwant\n%s", s, c.want)
			}
		})
	}
}

func TestCheckRepeatsTheWarningsOfLoad(t *testing.T) {
	cfg, err := load(t, g("")+"bundle: [g]\n")
	if err != nil {
		t.Fatal(err)
	}
	found := Check(cfg, System{})
	if len(found) == 0 || !found[0].Warning || !strings.Contains(found[0].Message, "bundle") {
		t.Errorf("got %v", found)
	}
}

func TestFacts(t *testing.T) {
	a, b := nstest.New(t, "a"), nstest.New(t, "b")
	nstest.Veth(t, a, "eth0", b, "eth0")
	a.Addr("eth0", "10.0.0.2/24")
	a.Addr("eth0", "2001:db8::2/64")
	a.Exec("ip", "route", "add", "10.9.0.0/24", "dev", "eth0")
	a.Exec("ip", "route", "add", "default", "via", "10.0.0.254")
	a.Exec("ip", "-6", "route", "add", "2001:db8:9::/64", "dev", "eth0")
	a.Sysctl("net/ipv4/ip_forward", "1")

	var sys System
	a.Must(func() (err error) {
		sys, err = Facts()
		return err
	})
	if sys.EUID != 0 || !sys.Forward4 || sys.Forward6 || len(sys.Interfaces) < 2 {
		t.Fatalf("got %+v", sys)
	}
	lo := sys.Interfaces[slices.IndexFunc(sys.Interfaces, func(i Interface) bool { return i.Name == "lo" })]
	if !lo.Loopback || !lo.Up || lo.Ethernet {
		t.Errorf("lo: %+v", lo)
	}
	eth := sys.Interfaces[slices.IndexFunc(sys.Interfaces, func(i Interface) bool { return i.Name == "eth0" })]
	if eth.Loopback || !eth.Up || !eth.Ethernet || eth.Kind != "veth" || eth.MTU != 1500 {
		t.Errorf("eth0: %+v", eth)
	}
	for _, p := range prefixes("10.0.0.2/24", "2001:db8::2/64") {
		if !slices.Contains(eth.Addresses, p) {
			t.Errorf("no %v in %v", p, eth.Addresses)
		}
	}
	for _, p := range prefixes("10.0.0.0/24", "10.9.0.0/24", "2001:db8::/64", "2001:db8:9::/64") {
		if !slices.Contains(eth.Routes, p) {
			t.Errorf("no %v in %v", p, eth.Routes)
		}
	}
	if slices.ContainsFunc(eth.Routes, func(p netip.Prefix) bool { return p.Bits() == 0 }) {
		t.Errorf("a default route with a gateway in %v", eth.Routes)
	}
}
