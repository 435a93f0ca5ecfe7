package loader

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/nstest"
)

const (
	testVHID  = 7
	otherVHID = 9 // configured, always BACKUP
	noVHID    = 33
)

// rig holds programs and maps without a device.
type rig struct {
	port   *Port
	progs  map[string]*ebpf.Program
	pulses *Pulses
	sync   *Port // the sync device
}

func newRig(tb testing.TB) *rig {
	tb.Helper()
	nstest.RequireRoot(tb)
	newMaps := func(specs map[string]*ebpf.MapSpec, err error) *maps {
		m := &maps{byName: map[string]*ebpf.Map{}}
		for name, spec := range specs {
			if m.byName[name], err = ebpf.NewMap(spec); err != nil {
				break
			}
		}
		if err == nil {
			err = m.mmap()
		}
		if err != nil {
			tb.Fatal(err)
		}
		return m
	}
	node, m, of := newMaps(nodeSpecs()), newMaps(carpdev.mapSpecs()), newMaps(syncdev.mapSpecs())
	for _, m := range []*maps{m, of} {
		for name, one := range node.byName {
			c, err := one.Clone()
			if err != nil {
				tb.Fatal(err)
			}
			m.byName[name] = c
		}
	}
	r := &rig{
		port:  &Port{name: "test", kit: carpdev, maps: m, log: zap.NewNop()},
		sync:  &Port{name: "sync", kit: syncdev, maps: of, log: zap.NewNop()},
		progs: map[string]*ebpf.Program{},
	}
	var err error
	if r.pulses, err = newPulses(node); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		for _, p := range r.progs {
			p.Close()
		}
		r.port.Close()
		r.sync.Close()
		r.pulses.Close()
	})
	r.setPort(tb, 0)
	for a, vhid := range map[netip.Addr]uint8{shared4: testVHID, shared6: testVHID, netip.MustParseAddr("10.0.0.9"): otherVHID} {
		if err := m.addrMap(a).Put(key(a), xdpOwner{Vhid: uint32(vhid)}); err != nil {
			tb.Fatal(err)
		}
		m.flags(vhid).Store(uint32(xdpVhidFlagVHID_CONFIGURED))
	}
	return r
}

// prog loads a program when it is first asked for: under emulation that takes
// seconds.
func (r *rig) prog(tb testing.TB, name string) *ebpf.Program {
	tb.Helper()
	if r.progs[name] != nil {
		return r.progs[name]
	}
	for i, load := range []func() (*ebpf.CollectionSpec, error){loadXdp, loadIngress, loadEgress, loadPulse} {
		port := []*Port{r.port, r.port, r.port, r.sync}[i]
		spec, err := load()
		if err != nil {
			tb.Fatal(err)
		}
		if spec.Programs[name] == nil {
			continue
		}
		if r.progs[name], err = port.load(spec, name); err != nil {
			tb.Fatalf("%+v", err)
		}
	}
	return r.progs[name]
}

func (r *rig) setPort(tb testing.TB, flags xdpPortFlag) {
	tb.Helper()
	for _, port := range []*Port{r.port, r.sync} {
		err := port.maps.updatePort(func(p *xdpPort) {
			p.Layout = xdpLayoutLAYOUT
			p.Flags = flags
			copy(p.Mac[:], ownMAC)
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
}

func (r *rig) counter(tb testing.TB, vhid uint8, name string) uint64 {
	tb.Helper()
	all, err := r.port.Counters()
	if err != nil {
		tb.Fatal(err)
	}
	return all[vhid][name]
}

// skBuff is the part of struct __sk_buff that BPF_PROG_TEST_RUN takes.
type skBuff struct {
	_              [9]uint32 // len … priority; all zero
	IngressIfindex uint32
	Ifindex        uint32
	_              [37]uint32
}

// run gives the program one frame.
func (r *rig) run(tb testing.TB, prog string, ctx any, in []byte) (verdict int32, out []byte) {
	tb.Helper()
	for {
		opts := &ebpf.RunOptions{Data: in, DataOut: make([]byte, len(in)+256), Context: ctx}
		v, err := r.prog(tb, prog).Run(opts)
		if errors.Is(err, unix.EINTR) {
			continue // Go's preemption signal
		}
		if err != nil {
			tb.Fatalf("run %s: %v", prog, err)
		}
		return int32(v), opts.DataOut
	}
}

// states are those a role word can be in, and what the programs must take them for.
func states() []struct {
	name string
	word uint64
	is   carp.State
} {
	now := bootNow()
	soon, over := carp.BootTime(now+time.Hour), carp.BootTime(now-time.Millisecond)
	return []struct {
		name string
		word uint64
		is   carp.State
	}{
		{"INIT", word(carp.Role{State: carp.Init}), carp.Backup},
		{"BACKUP", word(carp.Role{State: carp.Backup}), carp.Backup},
		{"MASTER", word(carp.Role{State: carp.Master, Until: soon}), carp.Master},
		{"DRAIN", word(carp.Role{State: carp.Drain, Until: soon}), carp.Drain},
		{"MASTER over", word(carp.Role{State: carp.Master, Until: over}), carp.Backup},
		{"DRAIN over", word(carp.Role{State: carp.Drain, Until: over}), carp.Backup},
	}
}

// fate is what becomes of a frame.
type fate struct {
	action string
	reason string // "" is foreign: not counted
	vhid   uint8
	out    []byte // nil is the frame as it came
}

func pass(reason string, vhid uint8) fate { return fate{"pass", reason, vhid, nil} }
func drop(reason string, vhid uint8) fate { return fate{"drop", reason, vhid, nil} }

type frameCase struct {
	name                  string
	in                    []byte
	master, drain, backup fate
}

func always(name string, in []byte, f fate) frameCase { return frameCase{name, in, f, f, f} }

func (c *frameCase) want(s carp.State) fate {
	switch s {
	case carp.Master:
		return c.master
	case carp.Drain:
		return c.drain
	}
	return c.backup
}

const cutOff = "IPv4 header cut off"

// ingressCases are the rules for what comes in, the same for XDP and tc.
func ingressCases() []frameCase {
	vm := vmac(testVHID)
	request := arp(broadcast, clientMAC, 1, clientMAC, client4, noMAC, shared4)
	answer := arp(clientMAC, vm, 2, vm, shared4, clientMAC, client4)
	asked := func(name string, in, out []byte) frameCase {
		return frameCase{name, in, fate{"answer", "arp_answered", testVHID, out}, drop("arp_silent", testVHID), drop("arp_silent", testVHID)}
	}
	claimed := func(name, reason string, in []byte) frameCase {
		return frameCase{name, in, drop(reason, testVHID), pass(reason, testVHID), pass(reason, testVHID)}
	}
	solicited := func(name string, in, out []byte) frameCase {
		return frameCase{name, in, fate{"answer", "nd_answered", testVHID, out}, drop("nd_silent", testVHID), drop("nd_silent", testVHID)}
	}
	badND := func(name string, in []byte) frameCase {
		return frameCase{name, in, drop("nd_bad", testVHID), drop("nd_silent", testVHID), drop("nd_silent", testVHID)}
	}
	taken := func(name string, in []byte) frameCase {
		out := cat(ownMAC, in[6:])
		return frameCase{name, in, fate{"take", "vmac_taken", testVHID, out}, fate{"take", "vmac_taken", testVHID, out}, drop("vmac_silent", testVHID)}
	}
	group := solicitedNodeAddr(shared6)
	eth6 := func(src net.HardwareAddr, ip []byte) []byte {
		return ethernet(solicitedNode(shared6), src, 0x86dd, ip)
	}
	theNA := ethernet(clientMAC, vm, 0x86dd, icmp6(shared6, client6, 255, na(0x60, shared6, targetLLA(vm))))
	dadNA := ethernet(allNodes, vm, 0x86dd, icmp6(shared6, all6, 255, na(0x20, shared6, targetLLA(vm))))
	goodNS := eth6(clientMAC, icmp6(client6, group, 255, ns(shared6, sourceLLA(clientMAC))))
	nonce := []byte{14, 1, 1, 2, 3, 4, 5, 6}
	udp := []byte{0x30, 0x39, 0, 53, 0, 12, 0, 0, 'a', 'b', 'c', 'd'}
	advert := advert4(testVHID)
	ad6 := func(hops byte, payload []byte) []byte {
		return ethernet(carp6MAC, vm, 0x86dd, ipv6(own6, carp6, 112, hops, payload))
	}
	trailer := []byte{0xde, 0xad, 0xbe, 0xef, 1, 2}
	ad36 := cat(advertHeader(testVHID), trailer)
	cutTrailer := ethernet(carp4MAC, vm, 0x0800, ipv4(own4, carp4, 112, 255, ad36))
	withOptions := cat([]byte{0x46}, ipv4(own4, carp4, 112, 255, cat([]byte{1, 1, 1, 0}, advertHeader(testVHID)))[1:])
	unicast := func(dst net.HardwareAddr, ttl byte) []byte {
		return ethernet(dst, clientMAC, 0x0800, ipv4(client4, own4, 112, ttl, advertHeader(testVHID)))
	}
	return []frameCase{
		// ARP
		asked("ARP request for the shared address", request, answer),
		asked("ARP request to the virtual MAC", arp(vm, clientMAC, 1, clientMAC, client4, vm, shared4), answer),
		asked("ARP request to the own MAC", arp(ownMAC, clientMAC, 1, clientMAC, client4, noMAC, shared4), answer),
		asked("ARP probe", arp(broadcast, clientMAC, 1, clientMAC, none4, noMAC, shared4), arp(clientMAC, vm, 2, vm, shared4, clientMAC, none4)),
		always("ARP request for an address of another group that is not master",
			arp(broadcast, clientMAC, 1, clientMAC, client4, noMAC, netip.MustParseAddr("10.0.0.9")), drop("arp_silent", otherVHID)),
		{"ARP request from a multicast MAC", arp(broadcast, broadcast, 1, broadcast, client4, noMAC, shared4),
			drop("arp_bad", testVHID), drop("arp_silent", testVHID), drop("arp_silent", testVHID)},
		always("ARP request for somebody else", arp(broadcast, clientMAC, 1, clientMAC, client4, noMAC, own4), pass("", 0)),
		always("ARP answer of a neighbour", arp(ownMAC, clientMAC, 2, clientMAC, client4, ownMAC, own4), pass("", 0)),
		taken("ARP answer of a neighbour to the virtual MAC", arp(vm, clientMAC, 2, clientMAC, client4, vm, shared4)),
		claimed("gratuitous ARP request of another MAC", "arp_conflict", arp(broadcast, otherMAC, 1, otherMAC, shared4, noMAC, shared4)),
		claimed("gratuitous ARP answer of another MAC", "arp_conflict", arp(broadcast, otherMAC, 2, otherMAC, shared4, broadcast, shared4)),
		claimed("ARP request from the shared address by another MAC", "arp_conflict", arp(broadcast, otherMAC, 1, otherMAC, shared4, noMAC, client4)),
		claimed("announcement of the virtual MAC", "announce", arp(broadcast, vm, 1, vm, shared4, noMAC, shared4)),
		always("ARP of a token ring", edit(request, 15, 6), pass("arp_bad", 0)),
		always("ARP cut off", request[:41], pass("arp_bad", 0)),
		// Neighbour discovery
		solicited("solicitation", goodNS, theNA),
		solicited("solicitation without source link-layer address", eth6(clientMAC, icmp6(client6, group, 255, ns(shared6))), theNA),
		solicited("solicitation with a nonce, too", eth6(clientMAC, icmp6(client6, group, 255, ns(shared6, sourceLLA(clientMAC), nonce))), theNA),
		solicited("solicitation with eight options", eth6(clientMAC, icmp6(client6, group, 255,
			ns(shared6, nonce, nonce, nonce, nonce, nonce, nonce, nonce, nonce))), theNA),
		solicited("unicast solicitation to the virtual MAC", ethernet(vm, clientMAC, 0x86dd,
			icmp6(client6, shared6, 255, ns(shared6, sourceLLA(clientMAC)))), theNA),
		solicited("solicitation of duplicate address detection", eth6(clientMAC, icmp6(none6, group, 255, ns(shared6, nonce))), dadNA),
		badND("solicitation that a router forwarded", eth6(clientMAC, icmp6(client6, group, 254, ns(shared6, sourceLLA(clientMAC))))),
		badND("solicitation with a wrong checksum", edit(goodNS, 56, goodNS[56]^1)),
		badND("solicitation with a wrong option byte", edit(goodNS, 85, goodNS[85]^1)),
		badND("solicitation with an option of length 0", eth6(clientMAC, icmp6(client6, group, 255, ns(shared6, []byte{1, 0, 0, 0, 0, 0, 0, 0})))),
		badND("solicitation with an option that is longer than the packet", eth6(clientMAC, icmp6(client6, group, 255, ns(shared6, []byte{1, 2, 0, 0, 0, 0, 0, 0})))),
		badND("solicitation with nine options", eth6(clientMAC, icmp6(client6, group, 255,
			ns(shared6, nonce, nonce, nonce, nonce, nonce, nonce, nonce, nonce, nonce)))),
		badND("duplicate address detection with source link-layer address", eth6(clientMAC, icmp6(none6, group, 255, ns(shared6, sourceLLA(clientMAC))))),
		badND("duplicate address detection by unicast", eth6(clientMAC, icmp6(none6, shared6, 255, ns(shared6)))),
		badND("solicitation with code 1", eth6(clientMAC, icmp6(client6, group, 255, edit(ns(shared6), 1, 1)))),
		badND("solicitation from a multicast address", eth6(clientMAC, icmp6(all6, group, 255, ns(shared6)))),
		badND("solicitation shorter than its header says", goodNS[:84]),
		always("solicitation of somebody else", eth6(clientMAC, icmp6(client6, group, 255, ns(own6, sourceLLA(clientMAC)))), pass("", 0)),
		always("solicitation cut off before the target", goodNS[:70], pass("", 0)),
		claimed("advertisement of the shared address by another MAC", "nd_conflict", ethernet(allNodes, otherMAC, 0x86dd, icmp6(shared6, all6, 255, na(0x20, shared6, targetLLA(otherMAC))))),
		// Frames for a virtual MAC
		taken("IPv4 to the virtual MAC", ethernet(vm, clientMAC, 0x0800, ipv4(client4, own4, 17, 64, udp))),
		taken("IPv4 to the virtual MAC and the shared address", ethernet(vm, clientMAC, 0x0800, ipv4(client4, shared4, 17, 64, udp))),
		taken("IPv6 to the virtual MAC", ethernet(vm, clientMAC, 0x86dd, ipv6(client6, own6, 17, 64, udp))),
		taken("jumbo frame to the virtual MAC", ethernet(vm, clientMAC, 0x0800, ipv4(client4, own4, 17, 64, make([]byte, 3000)))),
		taken("another protocol to the virtual MAC", ethernet(vm, clientMAC, 0x88cc, udp)),
		taken("nothing but a header to the virtual MAC", ethernet(vm, clientMAC, 0x88cc, []byte{0})),
		always("frame to the virtual MAC of a group that is not master", ethernet(vmac(otherVHID), clientMAC, 0x0800, ipv4(client4, own4, 17, 64, udp)), drop("vmac_silent", otherVHID)),
		always("frame to the virtual MAC of a group that is not ours", ethernet(vmac(noVHID), clientMAC, 0x0800, ipv4(client4, own4, 17, 64, udp)), pass("vmac_unknown", 0)),
		always("frame to the virtual MAC of VRRP for IPv6", ethernet(net.HardwareAddr{0, 0, 0x5e, 0, 2, testVHID}, clientMAC, 0x0800, ipv4(client4, own4, 17, 64, udp)), pass("", 0)),
		// Strangers
		always("frame to the own MAC", ethernet(ownMAC, clientMAC, 0x0800, ipv4(client4, own4, 17, 64, udp)), pass("", 0)),
		always("IPv6 frame to the own MAC", ethernet(ownMAC, clientMAC, 0x86dd, ipv6(client6, own6, 17, 64, udp)), pass("", 0)),
		always("multicast", ethernet(net.HardwareAddr{1, 0, 0x5e, 0, 0, 1}, clientMAC, 0x0800, ipv4(client4, netip.MustParseAddr("224.0.0.1"), 2, 1, udp)), pass("", 0)),
		always("router advertisement", ethernet(allNodes, otherMAC, 0x86dd, icmp6(own6, all6, 255, make([]byte, 16))), pass("", 0)),
		always(cutOff, ethernet(ownMAC, clientMAC, 0x0800, []byte{0x45, 0, 0}), pass("", 0)),
		// Adverts
		always("advert", advert, pass("advert", testVHID)),
		always("advert of a group that is not ours", advert4(noVHID), pass("advert_vhid", 0)),
		always("advert with trailer, summed as a whole", ethernet(carp4MAC, vm, 0x0800, ipv4(own4, carp4, 112, 255, advertHeader(testVHID, trailer...))), pass("advert", testVHID)),
		always("advert with an odd trailer, summed as a whole", ethernet(carp4MAC, vm, 0x0800, ipv4(own4, carp4, 112, 255, advertHeader(testVHID, 1, 2, 3))), pass("advert", testVHID)),
		always("advert with trailer, header summed only", ethernet(carp4MAC, vm, 0x0800, ipv4(own4, carp4, 112, 255, ad36)), pass("advert", testVHID)),
		always("advert with IP options", ethernet(carp4MAC, vm, 0x0800, withOptions), pass("advert", testVHID)),
		always("padded advert", append(append([]byte(nil), advert...), 0, 0, 0, 0), pass("advert", testVHID)),
		always("advert by unicast", unicast(ownMAC, 255), pass("advert", testVHID)),
		always("advert by unicast, forwarded", unicast(ownMAC, 63), drop("badttl", testVHID)),
		always("advert that we would forward", ethernet(otherMAC, clientMAC, 0x0800, ipv4(client4, own4, 112, 63, advertHeader(testVHID))), pass("", 0)),
		always("advert that was forwarded", ethernet(carp4MAC, vm, 0x0800, ipv4(own4, carp4, 112, 254, advertHeader(testVHID))), drop("badttl", testVHID)),
		always("advert with a wrong checksum", edit(advert, 36, 101), drop("badsum", testVHID)),
		always("advert with trailer and a wrong checksum", edit(ethernet(carp4MAC, vm, 0x0800, ipv4(own4, carp4, 112, 255, advertHeader(testVHID, trailer...))), 75, 9), drop("badsum", testVHID)),
		always("advert shorter than a header", ethernet(carp4MAC, vm, 0x0800, ipv4(own4, carp4, 112, 255, advertHeader(testVHID)[:35])), drop("badlen", testVHID)),
		always("advert longer than its frame", advert[:len(advert)-1], drop("badlen", testVHID)),
		always("advert whose trailer is cut off", cutTrailer[:len(cutTrailer)-1], drop("badlen", testVHID)),
		always("first fragment of an advert", edit(advert, 20, 0x20), drop("badfrag", testVHID)),
		always("second fragment of an advert", edit(advert, 21, 5), pass("fragment", 0)),
		always("VRRPv3", edit(advert, 34, 0x31), pass("advert_version", 0)),
		always("VRRPv2 with two addresses", edit(advert, 37, 2), pass("advert_version", 0)),
		always("protocol 112 without a payload", ethernet(carp4MAC, vm, 0x0800, ipv4(own4, carp4, 112, 255, nil)), pass("runt", 0)),
		always("IPv6 advert", ad6(255, advertHeader(testVHID)), pass("advert", testVHID)),
		always("IPv6 advert that was forwarded", ad6(254, advertHeader(testVHID)), drop("badttl", testVHID)),
		always("IPv6 advert with a wrong checksum", ad6(255, edit(advertHeader(testVHID), 2, 101)), drop("badsum", testVHID)),
		always("IPv6 advert shorter than a header", ad6(255, advertHeader(testVHID)[:35]), drop("badlen", testVHID)),
		// Tags
		always("ARP request in a VLAN", ethernet(broadcast, clientMAC, 0x8100, cat([]byte{0, 5}, request[12:])), pass("vlan", 0)),
		always("frame to the virtual MAC in a VLAN", ethernet(vm, clientMAC, 0x8100, cat([]byte{0, 5, 8, 0}, ipv4(client4, own4, 17, 64, udp))), pass("vlan", 0)),
		always("QinQ", ethernet(vm, clientMAC, 0x88a8, cat([]byte{0, 5, 0x81, 0, 0, 6, 8, 0}, ipv4(client4, own4, 17, 64, udp))), pass("vlan", 0)),
	}
}

// check runs one case in one state and compares verdict, frame and counter.
func (r *rig) check(t *testing.T, prog string, ctx any, c frameCase, is carp.State, verdicts map[string]int32) {
	t.Helper()
	want := c.want(is)
	if want.out == nil {
		want.out = c.in
	}
	var before uint64
	if want.reason != "" {
		before = r.counter(t, want.vhid, want.reason)
	}
	got, out := r.run(t, prog, ctx, c.in)
	if got != verdicts[want.action] {
		t.Errorf("verdict: got %d, want %d (%s)", got, verdicts[want.action], want.action)
	}
	if want.action != "drop" && !bytes.Equal(out, want.out) {
		t.Errorf("frame:\n got %s\nwant %s", hex.EncodeToString(out), hex.EncodeToString(want.out))
	}
	if want.reason == "" {
		return
	}
	if n := r.counter(t, want.vhid, want.reason) - before; n != 1 {
		t.Errorf("counter %s of vhid %d grew by %d, want 1", want.reason, want.vhid, n)
	}
}

var (
	xdpVerdicts = map[string]int32{"pass": 2, "take": 2, "drop": 1, "answer": 3}
	tcVerdicts  = map[string]int32{"pass": -1, "take": -1, "drop": 2, "answer": 7}
)

func TestIngressVerdicts(t *testing.T) {
	r := newRig(t)
	for _, prog := range []struct {
		name     string
		verdicts map[string]int32
	}{
		{xdpProgCarpXdp, xdpVerdicts},
		{xdpProgCarpXdpFrags, xdpVerdicts},
		{ingressProgCarpIngress, tcVerdicts},
	} {
		t.Run(prog.name, func(t *testing.T) {
			for _, s := range states() {
				r.port.maps.word(testVHID).Store(s.word)
				t.Run(s.name, func(t *testing.T) {
					for _, c := range ingressCases() {
						if c.name == cutOff && prog.name == ingressProgCarpIngress {
							continue // BPF_PROG_TEST_RUN refuses such an skb
						}
						t.Run(c.name, func(t *testing.T) {
							r.check(t, prog.name, nil, c, s.is, prog.verdicts)
						})
					}
				})
			}
		})
	}
}

func TestRouterSaysSoInItsAdvertisements(t *testing.T) {
	r := newRig(t)
	r.setPort(t, xdpPortFlagPORT_ROUTER)
	r.port.maps.word(testVHID).Store(states()[2].word)
	in := ethernet(solicitedNode(shared6), clientMAC, 0x86dd, icmp6(client6, solicitedNodeAddr(shared6), 255, ns(shared6)))
	want := ethernet(clientMAC, vmac(testVHID), 0x86dd, icmp6(shared6, client6, 255, na(0xe0, shared6, targetLLA(vmac(testVHID)))))
	if v, out := r.run(t, xdpProgCarpXdp, nil, in); v != 3 || !bytes.Equal(out, want) {
		t.Errorf("verdict %d, frame\n got %x\nwant %x", v, out, want)
	}
}

// With the answers left to tc, XDP keeps the role's silence and hands the rest up.
func TestAnswersAreHandedUp(t *testing.T) {
	r := newRig(t)
	r.setPort(t, xdpPortFlagPORT_ANSWER_TC|xdpPortFlagPORT_XDP)
	up := func(name string, in []byte, silent string) frameCase {
		return frameCase{name, in, pass("handed_up", testVHID), drop(silent, testVHID), drop(silent, testVHID)}
	}
	for _, s := range states() {
		r.port.maps.word(testVHID).Store(s.word)
		for _, c := range []frameCase{
			up("ARP", arp(broadcast, clientMAC, 1, clientMAC, client4, noMAC, shared4), "arp_silent"),
			up("ND", ethernet(solicitedNode(shared6), clientMAC, 0x86dd, icmp6(client6, solicitedNodeAddr(shared6), 255, ns(shared6))), "nd_silent"),
		} {
			t.Run(s.name+" "+c.name, func(t *testing.T) { r.check(t, xdpProgCarpXdp, nil, c, s.is, xdpVerdicts) })
		}
	}
	// What XDP has let through it has counted: tc behind it does not again.
	r.run(t, ingressProgCarpIngress, nil, advert4(testVHID))
	if n := r.counter(t, testVHID, "advert"); n != 0 {
		t.Errorf("tc counted %d adverts behind XDP, want 0", n)
	}
}

// egressCases are the fence.
func egressCases() []frameCase {
	vm := vmac(testVHID)
	udp := []byte{0x30, 0x39, 0, 53, 0, 12, 0, 0, 'a', 'b', 'c', 'd'}
	sends4 := ethernet(clientMAC, ownMAC, 0x0800, ipv4(shared4, client4, 17, 64, udp))
	sends6 := ethernet(clientMAC, ownMAC, 0x86dd, ipv6(shared6, client6, 17, 64, udp))
	group := solicitedNodeAddr(client6)
	eth6 := func(src net.HardwareAddr, ip []byte) []byte { return ethernet(clientMAC, src, 0x86dd, ip) }
	rewritten := func(name, out, fence string, in, want []byte) frameCase {
		return frameCase{name, in, fate{"pass", out, testVHID, want}, drop(fence, testVHID), drop(fence, testVHID)}
	}
	nd := func(name string, in, want []byte) frameCase {
		return frameCase{name, in, fate{"pass", "out_nd", testVHID, want}, drop("fence_nd", testVHID), drop("fence_source", testVHID)}
	}
	goodbye := func(src netip.Addr) []byte {
		return ethernet(carp4MAC, ownMAC, 0x0800, ipv4(src, carp4, 112, 255, advertHeader(testVHID)))
	}
	rs := func(mac net.HardwareAddr) []byte {
		return icmp6(shared6, all6, 255, cat([]byte{133, 0, 0, 0, 0, 0, 0, 0}, sourceLLA(mac)))
	}
	ra := func(mac net.HardwareAddr) []byte {
		return icmp6(shared6, all6, 255, cat([]byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0},
			[]byte{5, 1, 0, 0, 0, 0, 5, 0xdc}, sourceLLA(mac)))
	}
	return []frameCase{
		{"advert from the virtual MAC", advert4(testVHID), pass("out_vmac", testVHID), drop("fence_vmac", testVHID), drop("fence_vmac", testVHID)},
		{"announcement from the virtual MAC", arp(broadcast, vm, 1, vm, shared4, noMAC, shared4), pass("out_arp", testVHID), drop("fence_vmac", testVHID), drop("fence_vmac", testVHID)},
		{"frame of another protocol from the virtual MAC", ethernet(clientMAC, vm, 0x88cc, udp), pass("out_vmac", testVHID), drop("fence_vmac", testVHID), drop("fence_vmac", testVHID)},
		always("advert from the virtual MAC of a group that is not master", advert4(otherVHID), drop("fence_vmac", otherVHID)),
		always("frame from the virtual MAC of a group that is not ours", ethernet(clientMAC, vmac(noVHID), 0x0800, ipv4(own4, client4, 17, 64, udp)), pass("", 0)),
		always("goodbye from the own MAC and address", goodbye(own4), pass("", 0)),
		{"goodbye from the own MAC and the shared address", goodbye(shared4), pass("", 0), pass("", 0), drop("fence_source", testVHID)},
		{"IPv4 from the shared address", sends4, pass("", 0), pass("", 0), drop("fence_source", testVHID)},
		{"IPv6 from the shared address", sends6, pass("", 0), pass("", 0), drop("fence_source", testVHID)},
		{"IPv4 fragment from the shared address", edit(sends4, 21, 5), pass("", 0), pass("", 0), drop("fence_source", testVHID)},
		always("IPv4 from the own address", ethernet(clientMAC, ownMAC, 0x0800, ipv4(own4, client4, 17, 64, udp)), pass("", 0)),
		always("IPv4 from the own to the shared address", ethernet(vm, ownMAC, 0x0800, ipv4(own4, shared4, 17, 64, udp)), pass("", 0)),
		always("IPv6 from the own address", eth6(ownMAC, ipv6(own6, client6, 17, 64, udp)), pass("", 0)),
		rewritten("ARP request from the shared address", "out_arp", "fence_arp",
			arp(broadcast, ownMAC, 1, ownMAC, shared4, noMAC, client4), arp(broadcast, vm, 1, vm, shared4, noMAC, client4)),
		rewritten("ARP answer for the shared address", "out_arp", "fence_arp",
			arp(clientMAC, ownMAC, 2, ownMAC, shared4, clientMAC, client4), arp(clientMAC, vm, 2, vm, shared4, clientMAC, client4)),
		always("ARP request from the own address for the shared one", arp(broadcast, ownMAC, 1, ownMAC, own4, noMAC, shared4), pass("", 0)),
		nd("solicitation from the shared address",
			eth6(ownMAC, icmp6(shared6, group, 255, ns(client6, sourceLLA(ownMAC)))), eth6(vm, icmp6(shared6, group, 255, ns(client6, sourceLLA(vm))))),
		nd("solicitation without option from the shared address",
			eth6(ownMAC, icmp6(shared6, group, 255, ns(client6))), eth6(vm, icmp6(shared6, group, 255, ns(client6)))),
		nd("advertisement from the shared address",
			eth6(ownMAC, icmp6(shared6, client6, 255, na(0x60, shared6, targetLLA(ownMAC)))), eth6(vm, icmp6(shared6, client6, 255, na(0x60, shared6, targetLLA(vm))))),
		nd("router solicitation from the shared address", eth6(ownMAC, rs(ownMAC)), eth6(vm, rs(vm))),
		nd("router advertisement from the shared address", eth6(ownMAC, ra(ownMAC)), eth6(vm, ra(vm))),
		rewritten("advertisement of the shared address from the own one", "out_nd", "fence_nd",
			eth6(ownMAC, icmp6(own6, client6, 255, na(0x60, shared6, targetLLA(ownMAC)))), eth6(vm, icmp6(own6, client6, 255, na(0x60, shared6, targetLLA(vm))))),
		always("solicitation of the shared address from the own one", eth6(ownMAC, icmp6(own6, group, 255, ns(shared6, sourceLLA(ownMAC)))), pass("", 0)),
		always("advertisement of the own address", eth6(ownMAC, icmp6(own6, client6, 255, na(0x60, own6, targetLLA(ownMAC)))), pass("", 0)),
	}
}

func TestEgressVerdicts(t *testing.T) {
	r := newRig(t)
	for _, s := range states() {
		r.port.maps.word(testVHID).Store(s.word)
		t.Run(s.name, func(t *testing.T) {
			for _, c := range egressCases() {
				t.Run(c.name, func(t *testing.T) {
					r.check(t, egressProgCarpEgress, nil, c, s.is, tcVerdicts)
				})
			}
		})
	}
}

// A frame for a shared address that is not local must not be routed back out.
func TestHairpin(t *testing.T) {
	r := newRig(t)
	udp := make([]byte, 8)
	to4 := ethernet(vmac(testVHID), ownMAC, 0x0800, ipv4(client4, shared4, 17, 63, udp))
	to6 := ethernet(vmac(testVHID), ownMAC, 0x86dd, ipv6(client6, shared6, 17, 63, udp))
	lo := uint32(1)
	for _, s := range states() {
		r.port.maps.word(testVHID).Store(s.word)
		for _, c := range []frameCase{
			always("IPv4", to4, drop("hairpin", testVHID)),
			always("IPv6", to6, drop("hairpin", testVHID)),
			always("to a stranger", ethernet(otherMAC, ownMAC, 0x0800, ipv4(client4, own4, 17, 63, udp)), pass("", 0)),
		} {
			t.Run(s.name+" "+c.name, func(t *testing.T) {
				r.check(t, egressProgCarpEgress, &skBuff{IngressIfindex: lo, Ifindex: lo}, c, s.is, tcVerdicts)
			})
		}
		r.check(t, egressProgCarpEgress, &skBuff{Ifindex: lo}, always("from here", to4, pass("", 0)), s.is, tcVerdicts)
	}
}

// The role ends at its deadline, in the kernel, with nobody telling it.
func TestRoleEndsByItself(t *testing.T) {
	r := newRig(t)
	in := arp(broadcast, clientMAC, 1, clientMAC, client4, noMAC, shared4)
	until := carp.BootTime(bootNow() + 300*time.Millisecond)
	if err := r.port.SetRole(testVHID, carp.Role{State: carp.Master, Until: until}); err != nil {
		t.Fatal(err)
	}
	if v, _ := r.run(t, xdpProgCarpXdp, nil, in); v != 3 && carp.BootTime(bootNow()).Before(until) {
		t.Fatalf("verdict %d before the deadline, want 3", v)
	}
	nstest.Eventually(t, 5*time.Second, "the deadline passes", func() bool { return !carp.BootTime(bootNow()).Before(until) })
	if v, _ := r.run(t, xdpProgCarpXdp, nil, in); v != 1 {
		t.Errorf("verdict %d after the deadline, want 1", v)
	}
	if s := r.port.Role(testVHID).State; s != carp.Backup {
		t.Errorf("role after the deadline is %v, want BACKUP", s)
	}
}
