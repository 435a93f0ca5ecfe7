package loader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/xcarp/xcarp/internal/carp"
)

// Three vhids share shared4 and shared6; the first one is the leader of the others.
var shareVHIDs = []uint8{testVHID, 11, 12}

// share makes shareVHIDs share, with MASTER here of those that are named.
func (r *rig) share(tb testing.TB, s Share, masters ...uint8) {
	tb.Helper()
	s.VHIDs = shareVHIDs
	v := xdpShare{Count: uint32(len(s.VHIDs)), Key: s.Key}
	copy(v.Vhid[:], s.VHIDs)
	flags := xdpVhidFlagVHID_CONFIGURED
	if s.Frames {
		v.Flags |= xdpShareFlagSHARE_FRAMES
		flags |= xdpVhidFlagVHID_HIDDEN
	}
	if s.Multicast {
		v.Flags |= xdpShareFlagSHARE_MULTICAST
	}
	if s.SourceIP {
		v.Flags |= xdpShareFlagSHARE_SOURCE_IP
	}
	if err := r.port.maps.byName[xdpMapShares].Put(uint32(testVHID), v); err != nil {
		tb.Fatal(err)
	}
	for _, vhid := range s.VHIDs {
		r.port.maps.flags(vhid).Store(uint32(flags))
		r.port.maps.word(vhid).Store(states()[1].word)
	}
	r.port.maps.flags(testVHID).Or(uint32(xdpVhidFlagVHID_LEADER))
	for _, vhid := range masters {
		r.port.maps.word(vhid).Store(states()[2].word)
	}
}

// carpHash is carp_hash of ip_carp.c, written once more.
func carpHash(key [2]uint32, mac net.HardwareAddr) uint32 {
	a := 0x9e3779b9 + binary.LittleEndian.Uint32(mac)
	b := key[0] + uint32(binary.LittleEndian.Uint16(mac[4:]))
	c := key[1]
	for _, s := range [][3]int{{13, 8, 13}, {12, 16, 5}, {3, 10, 15}} {
		a = (a - b - c) ^ c>>s[0]
		b = (b - c - a) ^ a<<s[1]
		c = (c - a - b) ^ b>>s[2]
	}
	return c
}

// The vectors of load sharing in carp/testdata/vectors, which were computed from the
// source of the BSDs: hash and slot of a MAC, slot of a flow, among three.
var (
	macVectors = []struct {
		mac  net.HardwareAddr
		hash uint32
		slot int
	}{
		{net.HardwareAddr{2, 0, 0, 0, 0, 1}, 2480661777, 0},
		{net.HardwareAddr{2, 0, 0, 0, 0, 3}, 1691655446, 2},
		{net.HardwareAddr{2, 0, 0, 0, 0, 5}, 3476590877, 2},
		{net.HardwareAddr{2, 0, 0, 0, 0, 7}, 2230727474, 2},
	}
	flowVectors = []struct {
		src, dst string
		slot     int
	}{
		{"192.0.2.10", "198.51.100.1", 2},
		{"192.0.2.12", "198.51.100.1", 1},
		{"2001:db8::11", "2001:db8:1::1", 2},
	}
)

// answeredBy returns the vhid that answers a MAC's request when all are MASTER here.
func (r *rig) answeredBy(t *testing.T, prog string, mac net.HardwareAddr, ip netip.Addr) uint8 {
	t.Helper()
	in := arp(broadcast, mac, 1, mac, ip, noMAC, shared4)
	_, out := r.run(t, prog, nil, in)
	vhid := out[11]
	if want := arp(mac, vmac(vhid), 2, vmac(vhid), shared4, mac, ip); !bytes.Equal(out, want) {
		t.Fatalf("answer\n got %x\nwant %x", out, want)
	}
	return vhid
}

func TestFramesShareHashIsThatOfTheBSDs(t *testing.T) {
	r := newRig(t)
	key := carp.BalanceKey("mekmitasdigoat")
	r.share(t, Share{Key: key}, shareVHIDs...)
	for _, c := range macVectors {
		if got := carpHash(key, c.mac); got != c.hash {
			t.Errorf("%s: hash in Go %d, want %d", c.mac, got, c.hash)
		}
		for _, prog := range []string{xdpProgCarpXdp, ingressProgCarpIngress} {
			if got := r.answeredBy(t, prog, c.mac, client4); got != shareVHIDs[c.slot] {
				t.Errorf("%s: %s answers with vhid %d, want %d", c.mac, prog, got, shareVHIDs[c.slot])
			}
		}
	}
}

// Any MAC: the programs and Go compute the same, and there are three parts.
func TestFramesShareOfEveryMAC(t *testing.T) {
	r := newRig(t)
	key := carp.BalanceKey("mekmitasdigoat")
	r.share(t, Share{Key: key}, shareVHIDs...)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		mac := make(net.HardwareAddr, 6)
		binary.LittleEndian.PutUint32(mac, rng.Uint32())
		binary.LittleEndian.PutUint16(mac[4:], uint16(rng.Uint32()))
		mac[0] &^= 1
		want := shareVHIDs[carpHash(key, mac)%3]
		if got := r.answeredBy(t, xdpProgCarpXdp, mac, client4); got != want {
			t.Fatalf("%s: answered by vhid %d, want %d", mac, got, want)
		}
	}
}

// neighbours are one of each part by MAC, in the order of shareVHIDs.
func neighbours(key [2]uint32) (macs [3]net.HardwareAddr) {
	for i := byte(1); i != 0; i++ {
		mac := net.HardwareAddr{2, 0, 0, 0, 3, i}
		macs[carpHash(key, mac)%3] = mac
	}
	return macs
}

func TestFramesShareAnswers(t *testing.T) {
	r := newRig(t)
	key := carp.BalanceKey("")
	macs := neighbours(key)
	asksARP := func(mac net.HardwareAddr) []byte { return arp(broadcast, mac, 1, mac, client4, noMAC, shared4) }
	asksND := func(mac net.HardwareAddr) []byte {
		return ethernet(solicitedNode(shared6), mac, 0x86dd, icmp6(client6, solicitedNodeAddr(shared6), 255, ns(shared6, sourceLLA(mac))))
	}
	for _, prog := range []struct {
		name     string
		verdicts map[string]int32
	}{{xdpProgCarpXdp, xdpVerdicts}, {ingressProgCarpIngress, tcVerdicts}} {
		for i, mine := range shareVHIDs {
			r.share(t, Share{Key: key}, mine)
			for j, theirs := range shareVHIDs {
				answer, nd := drop("arp_silent", theirs), drop("nd_silent", theirs)
				if i == j {
					vm := vmac(mine)
					answer = fate{"answer", "arp_answered", mine, arp(macs[j], vm, 2, vm, shared4, macs[j], client4)}
					nd = fate{"answer", "nd_answered", mine,
						ethernet(macs[j], vm, 0x86dd, icmp6(shared6, client6, 255, na(0x60, shared6, targetLLA(vm))))}
				}
				name := fmt.Sprintf("%s/master of %d, neighbour of %d", prog.name, mine, theirs)
				t.Run(name+", ARP", func(t *testing.T) {
					r.check(t, prog.name, nil, always("", asksARP(macs[j]), answer), carp.Master, prog.verdicts)
				})
				t.Run(name+", ND", func(t *testing.T) {
					r.check(t, prog.name, nil, always("", asksND(macs[j]), nd), carp.Master, prog.verdicts)
				})
			}
		}
	}
	t.Run("by source address", func(t *testing.T) {
		r.share(t, Share{Key: key, SourceIP: true}, shareVHIDs...)
		for i := range byte(9) {
			ip := netip.AddrFrom4([4]byte{10, 0, 0, 90 + i})
			want := shareVHIDs[binary.BigEndian.Uint32(ip.AsSlice())%3]
			if got := r.answeredBy(t, xdpProgCarpXdp, clientMAC, ip); got != want {
				t.Errorf("%s: answered by vhid %d, want %d", ip, got, want)
			}
		}
	})
	t.Run("claims", func(t *testing.T) {
		r.share(t, Share{Key: key}, 12)
		for name, c := range map[string]frameCase{
			"another MAC":      always("", arp(broadcast, otherMAC, 2, otherMAC, shared4, broadcast, shared4), drop("arp_conflict", testVHID)),
			"one of the parts": always("", arp(broadcast, vmac(11), 2, vmac(11), shared4, broadcast, shared4), drop("announce", testVHID)),
		} {
			t.Run(name, func(t *testing.T) { r.check(t, xdpProgCarpXdp, nil, c, carp.Master, xdpVerdicts) })
		}
	})
}

func TestFramesShareKeepsItsFrames(t *testing.T) {
	r := newRig(t)
	udp := []byte{0x30, 0x39, 0, 53, 0, 12, 0, 0, 'a', 'b', 'c', 'd'}
	frame := func(to net.HardwareAddr, src, dst netip.Addr) []byte {
		if src.Is4() {
			return ethernet(to, clientMAC, 0x0800, ipv4(src, dst, 17, 64, udp))
		}
		return ethernet(to, clientMAC, 0x86dd, ipv6(src, dst, 17, 64, udp))
	}
	for _, s := range []Share{{Frames: true}, {Frames: true, Multicast: true}} {
		group := vmac(testVHID)
		if s.Multicast {
			group = mcastMAC(testVHID)
		}
		for _, prog := range []struct {
			name     string
			verdicts map[string]int32
		}{{xdpProgCarpXdp, xdpVerdicts}, {ingressProgCarpIngress, tcVerdicts}} {
			run := func(name string, in []byte, f fate) {
				t.Run(fmt.Sprintf("%s/multicast %v/%s", prog.name, s.Multicast, name), func(t *testing.T) {
					r.check(t, prog.name, nil, always("", in, f), carp.Master, prog.verdicts)
				})
			}
			for _, c := range flowVectors {
				src, dst := netip.MustParseAddr(c.src), netip.MustParseAddr(c.dst)
				for i, mine := range shareVHIDs {
					r.share(t, s, mine)
					in := frame(group, src, dst)
					want := drop("vmac_other", shareVHIDs[c.slot])
					if i == c.slot {
						want = fate{"take", "vmac_taken", mine, cat(ownMAC, in[6:])}
					}
					run(fmt.Sprintf("%s to %s at the master of %d", src, dst, mine), in, want)
					run("and back", frame(group, dst, src), fate{want.action, want.reason, want.vhid, nil}.takenFrom(frame(group, dst, src)))
				}
			}
			r.share(t, s, testVHID)
			many := ethernet(mcastMAC(testVHID), clientMAC, 0x0800, ipv4(client4, netip.AddrFrom4([4]byte{224, 0, 1, testVHID}), 17, 64, udp))
			run("an IP group of the same MAC", many, pass("", 0))
			other := ethernet(net.HardwareAddr{1, 0, 0x5e, 0, 1, otherVHID}, clientMAC, 0x0800, ipv4(client4, own4, 17, 64, udp))
			run("the MAC of another vhid", other, pass("", 0))
			run("ARP is answered by the leader's master, from its own MAC", arp(broadcast, clientMAC, 1, clientMAC, client4, noMAC, shared4),
				fate{"answer", "arp_answered", testVHID, arp2(clientMAC, ownMAC, group, shared4, clientMAC, client4)})
			run("ND, too", ethernet(solicitedNode(shared6), clientMAC, 0x86dd, icmp6(client6, solicitedNodeAddr(shared6), 255, ns(shared6))),
				fate{"answer", "nd_answered", testVHID, ethernet(clientMAC, ownMAC, 0x86dd, icmp6(shared6, client6, 255, na(0x60, shared6, targetLLA(group))))})
			r.share(t, s, 11, 12)
			run("and by nobody else", arp(broadcast, clientMAC, 1, clientMAC, client4, noMAC, shared4), drop("arp_silent", testVHID))
		}
	}
}

// takenFrom completes what becomes of a frame that is taken.
func (f fate) takenFrom(in []byte) fate {
	if f.action == "take" {
		f.out = cat(ownMAC, in[6:])
	}
	return f
}

// arp2 is an answer that leaves from another MAC than it names.
func arp2(dst, src, sha net.HardwareAddr, spa netip.Addr, tha net.HardwareAddr, tpa netip.Addr) []byte {
	return cat(dst, src, arp(dst, sha, 2, sha, spa, tha, tpa)[12:])
}

// What the stack says of a shared address must not tell all neighbours of one part.
func TestFramesShareFence(t *testing.T) {
	r := newRig(t)
	key := carp.BalanceKey("")
	macs := neighbours(key)
	udp := []byte{0x30, 0x39, 0, 53, 0, 12, 0, 0, 'a', 'b', 'c', 'd'}
	const mine = 11
	hers, other := macs[1], macs[2]
	group := solicitedNodeAddr(client6)
	hidden := func(mac net.HardwareAddr) []byte {
		b := sourceLLA(mac)
		b[0] = 253
		return b
	}
	for _, s := range []Share{{Key: key}, {Frames: true, Multicast: true}, {Frames: true}} {
		told, from, advertFrom, by := vmac(mine), vmac(mine), vmac(mine), uint8(mine)
		masters := []uint8{mine}
		if s.Frames {
			told, from, advertFrom, by = vmac(testVHID), ownMAC, ownMAC, testVHID
			masters = append(masters, testVHID)
		}
		if s.Multicast {
			told = mcastMAC(testVHID)
		}
		r.share(t, s, masters...)
		run := func(name string, in []byte, f fate) {
			t.Run(fmt.Sprintf("%+v/%s", s, name), func(t *testing.T) {
				r.check(t, egressProgCarpEgress, nil, always("", in, f), carp.Master, tcVerdicts)
			})
		}
		ad := advert4(mine)
		run("advert", ad, fate{"pass", "out_vmac", mine, cat(ad[:6], advertFrom, ad[12:])})
		run("advert of another's part", advert4(12), drop("fence_vmac", 12))
		run("IPv4 from the shared address", ethernet(clientMAC, ownMAC, 0x0800, ipv4(shared4, client4, 17, 64, udp)), pass("", 0))
		run("IPv6 from the shared address", ethernet(clientMAC, ownMAC, 0x86dd, ipv6(shared6, client6, 17, 64, udp)), pass("", 0))
		run("ARP request", arp(broadcast, ownMAC, 1, ownMAC, shared4, noMAC, client4),
			fate{"pass", "out_arp", testVHID, arp(broadcast, ownMAC, 1, ownMAC, none4, noMAC, client4)})
		run("announcement", arp(broadcast, ownMAC, 1, ownMAC, shared4, noMAC, shared4), drop("fence_arp", testVHID))
		run("ARP answer", arp(hers, ownMAC, 2, ownMAC, shared4, hers, client4),
			fate{"pass", "out_arp", by, arp2(hers, from, told, shared4, hers, client4)})
		if !s.Frames {
			run("ARP answer to another's", arp(other, ownMAC, 2, ownMAC, shared4, other, client4), drop("fence_arp", 12))
			run("advertisement to another's", ethernet(other, ownMAC, 0x86dd, icmp6(shared6, client6, 255, na(0x60, shared6, targetLLA(ownMAC)))), drop("fence_nd", 12))
		}
		run("solicitation", ethernet(clientMAC, ownMAC, 0x86dd, icmp6(shared6, group, 255, ns(client6, sourceLLA(ownMAC)))),
			fate{"pass", "out_nd", testVHID, ethernet(clientMAC, ownMAC, 0x86dd, icmp6(shared6, group, 255, ns(client6, hidden(ownMAC))))})
		run("advertisement", ethernet(hers, ownMAC, 0x86dd, icmp6(shared6, client6, 255, na(0x60, shared6, targetLLA(ownMAC)))),
			fate{"pass", "out_nd", by, ethernet(hers, from, 0x86dd, icmp6(shared6, client6, 255, na(0x60, shared6, targetLLA(told))))})
		run("advertisement to all", ethernet(allNodes, ownMAC, 0x86dd, icmp6(shared6, all6, 255, na(0x20, shared6, targetLLA(ownMAC)))), fate{"drop", "", 0, nil})
		r.share(t, s)
		run("IPv4 from the shared address, master of nothing", ethernet(clientMAC, ownMAC, 0x0800, ipv4(shared4, client4, 17, 64, udp)), drop("fence_source", testVHID))
		run("ARP request, master of nothing", arp(broadcast, ownMAC, 1, ownMAC, shared4, noMAC, client4), drop("fence_arp", testVHID))
	}
}
