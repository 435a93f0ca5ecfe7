package test

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

const (
	shareFlows = 300
	shareSlack = 0.2 // of a third
)

// A trio is three routers that share the address of the LAN, each the best for one
// vhid, with taps where each speaks to the LAN and to the WAN.
type trio struct {
	*pair
	nodes    []*node
	lan, wan []*tap // of the nodes
	hosts    *tap   // of all requesters
}

func newTrio(t *testing.T, balance string, more ...string) *trio {
	p := newPair(t)
	s := &trio{pair: p, nodes: []*node{p.a, p.b, p.newNode("c", 4)}}
	for _, n := range s.nodes {
		n.write("xcarp.yaml", fmt.Sprintf(`node: %s
key_file: %s
preempt: true
ready: {settle: 0s}
groups:
  lan:
    carpdev: lan0
    addresses: [10.0.0.1/24, "fd00:1::1/64"]
    balance: %s
    carpnodes: {fw-a: {1: 0, 2: 100, 3: 200}, fw-b: {1: 200, 2: 0, 3: 100}, fw-c: {1: 100, 2: 200, 3: 0}}
%s`, n.name, filepath.Join(n.dir, "xcarp.key"), balance, strings.Join(more, "\n")))
		s.lan = append(s.lan, newTap(t, p.sw, n.lanPort))
		s.wan = append(s.wan, newTap(t, p.sw, n.wanPort))
		n.start()
	}
	s.hosts = newTap(t, p.client.NS, "eth0")
	for i, n := range s.nodes {
		n.waitState(30*time.Second, "MASTER", fmt.Sprintf("lan/%d", i+1))
		n.waitState(30*time.Second, "BACKUP", s.others(i)...)
	}
	return s
}

// others are the elections that are not the node's own.
func (s *trio) others(i int) (names []string) {
	for j := range s.nodes {
		if j != i {
			names = append(names, fmt.Sprintf("lan/%d", j+1))
		}
	}
	return names
}

// requester is one of many neighbours.
func requester(i int) net.HardwareAddr { return net.HardwareAddr{2, 0xcc, 0, 0, byte(i >> 8), byte(i)} }

// whoHas is an ARP request of a requester.
func whoHas(t *testing.T, from net.HardwareAddr, addr netip.Addr) []byte {
	return serialize(t,
		&layers.Ethernet{SrcMAC: from, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: layers.ARPRequest, SourceHwAddress: from, SourceProtAddress: asker4.AsSlice(),
			DstHwAddress: make([]byte, 6), DstProtAddress: addr.AsSlice(),
		})
}

// An answer is what a requester was told, and by which node.
type answer struct {
	node int
	mac  string
}

// answers collects what the nodes told each requester about the address.
func (s *trio) answers(addr netip.Addr) map[string][]answer {
	all := map[string][]answer{}
	for i, tap := range s.lan {
		tap.each(func(p gopacket.Packet) {
			a, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP)
			if !ok || a.Operation != layers.ARPReply {
				return
			}
			if spa, _ := netip.AddrFromSlice(a.SourceProtAddress); spa == addr {
				to := net.HardwareAddr(a.DstHwAddress).String()
				all[to] = append(all[to], answer{i, net.HardwareAddr(a.SourceHwAddress).String()})
			}
		})
	}
	return all
}

// each shows every frame that the node sent.
func (t *tap) each(f func(gopacket.Packet)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.from {
		f(p)
	}
}

// round has every requester ask once, and waits until the nodes that live have
// answered what was asked behind all of it. They ask in portions: with XDP a veth
// holds 256 frames, and what does not fit is lost on the way to a node.
func (s *trio) round(t *testing.T, living ...int) map[string]answer {
	t.Helper()
	for _, tap := range s.lan {
		tap.forget()
	}
	const portion = 50
	for i := range shareFlows {
		s.hosts.send(whoHas(t, requester(i), shared4))
		if i%portion == portion-1 {
			s.settle(t, i/portion, living...)
		}
	}
	s.settle(t, shareFlows/portion, living...)
	got := map[string]answer{}
	all := s.answers(shared4)
	for i := range shareFlows {
		who := requester(i).String()
		if len(all[who]) != 1 {
			t.Fatalf("%s got %d answers, want 1: %v", who, len(all[who]), all[who])
		}
		got[who] = all[who][0]
	}
	return got
}

// settle asks each of the nodes for its own address, and waits for the answer: then it
// has seen all that was asked before. n tells one time from another.
func (s *trio) settle(t *testing.T, n int, living ...int) {
	t.Helper()
	for _, i := range living {
		own := netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + i)})
		asker := net.HardwareAddr{2, 0xcd, 0, 0, byte(n), byte(i)}
		nstest.Eventually(t, 15*time.Second, "an answer of "+s.nodes[i].name, func() bool {
			s.hosts.send(whoHas(t, asker, own))
			return len(s.answers(own)[asker.String()]) > 0
		})
	}
}

// shares counts how many each node has, and wants a third of them give or take.
func shares[K comparable, V any](t *testing.T, got map[K]V, node func(V) int) []int {
	t.Helper()
	n := make([]int, 3)
	for _, v := range got {
		n[node(v)]++
	}
	for i, n := range n {
		if third := float64(shareFlows) / 3; float64(n) < (1-shareSlack)*third || float64(n) > (1+shareSlack)*third {
			t.Errorf("node %d has %d of %d", i, n, shareFlows)
		}
	}
	return n
}

// die kills the second node and waits until others are MASTER in its place.
func (s *trio) die(t *testing.T) (took time.Duration) {
	t.Helper()
	began := time.Now()
	s.nodes[1].kill(unix.SIGKILL)
	s.nodes[0].waitState(15*time.Second, "MASTER", "lan/2") // it has the better advskew of the two
	return time.Since(began)
}

func TestFault59_ARPBalance(t *testing.T) {
	t.Parallel()
	s := newTrio(t, "arp")
	before := s.round(t, 0, 1, 2)
	for who, a := range before {
		if want := vMAC(a.node + 1); a.mac != want {
			t.Errorf("%s was told %s by node %d, want %s", who, a.mac, a.node, want)
		}
	}
	n := shares(t, before, func(a answer) int { return a.node })
	if again := s.round(t, 0, 1, 2); !maps.Equal(before, again) {
		t.Error("the second round differs from the first")
	}
	took := s.die(t)
	after := s.round(t, 0, 2)
	moved := 0
	for who, was := range before {
		is := after[who]
		if was.node != 1 && is != was {
			t.Errorf("%s had %v and has %v: its node lives", who, was, is)
		}
		if is.mac != was.mac {
			t.Errorf("%s knew %s and is told %s", who, was.mac, is.mac)
		}
		if is != was {
			moved++
		}
	}
	if moved != n[1] {
		t.Errorf("%d requesters moved, want the %d of the dead node", moved, n[1])
	}
	// A host of the LAN talks to the shared address and through it, whoever it got.
	s.pings(t)
	if told := s.client.neighbour(t, "fd00:1::1"); told != vMAC(1) && told != vMAC(2) && told != vMAC(3) {
		t.Errorf("the client was told %s of the IPv6 address", told)
	}
	// It comes back and has its share again; who had it in between keeps the kernel's
	// address, for it is MASTER of its own.
	s.nodes[1].start()
	s.nodes[1].waitState(30*time.Second, "MASTER", "lan/2")
	s.nodes[0].waitState(30*time.Second, "BACKUP", "lan/2")
	if back := s.round(t, 0, 1, 2); !maps.Equal(before, back) {
		t.Error("the round after the return differs from the first")
	}
	for _, n := range s.nodes {
		nstest.Eventually(t, 10*time.Second, "the address on "+n.name, func() bool { return n.holds("lan0", "10.0.0.1/32") })
	}
	figure(t, "shares", "%d/%d/%d of %d", n[0], n[1], n[2], shareFlows)
	figure(t, "moved", "%d", moved)
	figure(t, "took ms", "%d", took.Milliseconds())
}

// pings has a host of the LAN talk to the shared addresses: who answers has to find
// the host without telling it another MAC.
func (s *trio) pings(t *testing.T) {
	t.Helper()
	for _, addr := range []string{"10.0.0.1", "fd00:1::1"} {
		told := s.client.neighbour(t, addr)
		for _, n := range s.nodes {
			n.ns.Exec("ip", "neigh", "flush", "dev", "lan0")
		}
		if out, err := s.client.Run(t.Context(), "ping", "-c1", "-W10", addr); err != nil {
			t.Errorf("ping of %s: %v: %s", addr, err, out)
		}
		if now := s.client.Exec("ip", "neigh", "show", addr, "dev", "eth0"); !strings.Contains(now, told) {
			t.Errorf("the client knew %s as %s, and now: %s", addr, told, now)
		}
	}
}

// A pairing is a flow, by its two addresses.
type pairing struct{ src, dst netip.Addr }

func flowOf(i int) pairing {
	return pairing{netip.AddrFrom4([4]byte{10, 0, 0, byte(101 + i%100)}), netip.AddrFrom4([4]byte{203, 0, 113, byte(100 + i/100)})}
}

// datagram is one of a flow, to whichever MAC.
func datagram(t *testing.T, to net.HardwareAddr, f pairing, port layers.UDPPort) []byte {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: f.src.AsSlice(), DstIP: f.dst.AsSlice()}
	udp := &layers.UDP{SrcPort: 4000, DstPort: port}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	return serialize(t, &layers.Ethernet{SrcMAC: requester(0), DstMAC: to, EthernetType: layers.EthernetTypeIPv4}, ip, udp, gopacket.Payload("once"))
}

// forwarded lists which nodes forwarded the datagrams of each flow to the port.
func (s *trio) forwarded(port layers.UDPPort) map[pairing][]int {
	all := map[pairing][]int{}
	for i, tap := range s.wan {
		tap.each(func(p gopacket.Packet) {
			udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
			if !ok || udp.DstPort != port {
				return
			}
			ip := p.NetworkLayer().(*layers.IPv4)
			src, _ := netip.AddrFromSlice(ip.SrcIP.To4())
			dst, _ := netip.AddrFromSlice(ip.DstIP.To4())
			all[pairing{src, dst}] = append(all[pairing{src, dst}], i)
		})
	}
	return all
}

// through has each living node forward a datagram to each destination that is
// addressed to it alone, again until it has: then it has worked off what came before.
func (s *trio) through(t *testing.T, port layers.UDPPort, living ...int) {
	t.Helper()
	for _, i := range living {
		own := mac(t, s.nodes[i].ns, "lan0")
		for k := range 3 {
			f := flowOf(100 * k)
			f.src = netip.AddrFrom4([4]byte{10, 0, 0, byte(90 + i)})
			nstest.Eventually(t, 15*time.Second, s.nodes[i].name+" forwards", func() bool {
				s.hosts.send(datagram(t, own, f, port))
				return slices.Contains(s.forwarded(port)[f], i)
			})
		}
	}
}

// flows sends one datagram of every flow to the group and returns who forwarded it.
func (s *trio) flows(t *testing.T, group net.HardwareAddr, living ...int) map[pairing]int {
	t.Helper()
	const port, behind = 5000, 5001
	for _, tap := range s.wan {
		tap.forget()
	}
	for i := range shareFlows {
		s.hosts.send(datagram(t, group, flowOf(i), port))
	}
	s.through(t, behind, living...)
	got := map[pairing]int{}
	all := s.forwarded(port)
	for i := range shareFlows {
		f := flowOf(i)
		if len(all[f]) != 1 {
			t.Fatalf("%v was forwarded %d times, want once: by %v", f, len(all[f]), all[f])
		}
		got[f] = all[f][0]
	}
	return got
}

func TestFault59_IPBalance(t *testing.T) {
	for balance, group := range map[string]net.HardwareAddr{
		"ip":         {0x01, 0, 0x5e, 0, 1, 1},
		"ip-stealth": {0x00, 0, 0x5e, 0, 1, 1},
	} {
		t.Run(balance, func(t *testing.T) {
			t.Parallel()
			s := newTrio(t, balance)
			for _, a := range []string{"203.0.113.101/24", "203.0.113.102/24"} {
				s.server.Addr("eth0", a)
			}
			if got := s.client.neighbour(t, "10.0.0.1"); got != group.String() {
				t.Errorf("the client was told %s, want %s", got, group)
			}
			s.pings(t)
			s.through(t, 5002, 0, 1, 2) // each has resolved the destinations
			before := s.flows(t, group, 0, 1, 2)
			n := shares(t, before, func(i int) int { return i })
			if again := s.flows(t, group, 0, 1, 2); !maps.Equal(before, again) {
				t.Error("the second round differs from the first")
			}
			took := s.die(t)
			after := s.flows(t, group, 0, 2)
			moved := 0
			for f, was := range before {
				if was != 1 && after[f] != was {
					t.Errorf("%v went by node %d and goes by %d: its node lives", f, was, after[f])
				}
				if after[f] != was {
					moved++
				}
			}
			if moved != n[1] {
				t.Errorf("%d flows moved, want the %d of the dead node", moved, n[1])
			}
			figure(t, "shares", "%d/%d/%d of %d", n[0], n[1], n[2], shareFlows)
			figure(t, "moved", "%d", moved)
			figure(t, "took ms", "%d", took.Milliseconds())
		})
	}
}

// TestFault59_SyncLinkAlone cuts all sync links of three nodes that share the load:
// each doubts itself, or none where pulses say that nobody has taken over, and nothing
// moves, nor when the links are back.
func TestFault59_SyncLinkAlone(t *testing.T) {
	t.Parallel()
	for _, detect := range []string{"off", "default"} {
		t.Run("detect "+detect, func(t *testing.T) {
			t.Parallel()
			syncLinkAlone(t, detect)
		})
	}
}

func syncLinkAlone(t *testing.T, detect string) {
	s := newTrio(t, "arp", "sync: {dev: sync0, nodes: {fw-a: 172.30.0.2, fw-b: 172.30.0.3, fw-c: 172.30.0.4}}", "detect: "+detect)
	nstest.Eventually(t, 30*time.Second, "all in sync", func() bool {
		return !slices.ContainsFunc(s.nodes, func(n *node) bool {
			st := n.status()
			return st == nil || len(st.Sync) != 2 || !st.Sync[0].InSync || !st.Sync[1].InSync
		})
	})
	before := map[string]time.Time{}
	for i, n := range s.nodes {
		name := fmt.Sprintf("lan/%d", i+1)
		n.waitState(30*time.Second, "MASTER", name)
		// Of both families, for a few seconds: then it has heard the others as an owner.
		nstest.Eventually(t, 30*time.Second, name+" has been MASTER for a while", func() bool { return n.group(name).Sent >= 8 })
		before[name] = n.group(name).Since
	}
	state := func(up string) {
		for _, n := range s.nodes {
			s.sw.Exec("bridge", "link", "set", "dev", n.syncPort, "state", up)
		}
	}
	doubts := func(want int) func() bool {
		return func() bool {
			for i, n := range s.nodes {
				if n.group(fmt.Sprintf("lan/%d", i+1)).Demotions["sync"] != want {
					return false
				}
			}
			return true
		}
	}
	state("0")
	if detect == "off" {
		nstest.Eventually(t, 20*time.Second, "all doubt themselves", doubts(1))
	} else {
		nstest.Eventually(t, 20*time.Second, "no sessions", func() bool {
			return !slices.ContainsFunc(s.nodes, func(n *node) bool { st := n.status(); return st.Sync[0].Up || st.Sync[1].Up })
		})
		begin := time.Now()
		nstest.Eventually(t, 20*time.Second, "a while without", func() bool { // of which 3 s would be too long
			if !doubts(0)() {
				t.Fatalf("%v after the last session was lost somebody doubts himself", time.Since(begin))
			}
			return time.Since(begin) > 6*time.Second
		})
	}
	state("3")
	nstest.Eventually(t, 30*time.Second, "nobody doubts himself", doubts(0))
	for i, n := range s.nodes {
		name := fmt.Sprintf("lan/%d", i+1)
		if g := n.group(name); g.State != "MASTER" || g.Since.Sub(before[name]).Abs() > time.Second {
			t.Errorf("%s of %s is %s since %v (%s), want MASTER since %v", name, n.name, g.State, g.Since, g.Reason, before[name])
		}
	}
}
