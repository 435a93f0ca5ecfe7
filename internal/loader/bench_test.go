package loader

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/xcarp/xcarp/internal/carp"
)

// BenchmarkFrame reports what the programs cost per frame. A frame is not restored
// between repetitions, so that only what the program leaves of the same kind can be
// repeated. ARP is asked for in BACKUP, since an answer is no request; and the
// device's own MAC is the virtual one here, so that a taken frame can be taken again.
func BenchmarkFrame(b *testing.B) {
	udp := make([]byte, 26)
	foreign := ethernet(ownMAC, clientMAC, 0x0800, ipv4(client4, own4, 17, 64, udp))
	for _, bb := range []struct {
		name, prog string
		state      carp.State
		in         []byte
	}{
		{"xdp/foreign IPv4", xdpProgCarpXdp, carp.Master, foreign},
		{"xdp/foreign IPv6", xdpProgCarpXdp, carp.Master, ethernet(ownMAC, clientMAC, 0x86dd, ipv6(client6, own6, 17, 64, udp))},
		{"xdp/virtual MAC in BACKUP", xdpProgCarpXdp, carp.Backup, ethernet(vmac(testVHID), clientMAC, 0x0800, ipv4(client4, own4, 17, 64, udp))},
		{"xdp/virtual MAC in MASTER", xdpProgCarpXdp, carp.Master, ethernet(vmac(testVHID), clientMAC, 0x0800, ipv4(client4, own4, 17, 64, udp))},
		{"xdp/ARP in BACKUP", xdpProgCarpXdp, carp.Backup, arp(broadcast, clientMAC, 1, clientMAC, client4, noMAC, shared4)},
		{"xdp/advert", xdpProgCarpXdp, carp.Backup, advert4(testVHID)},
		{"ingress/foreign IPv4", ingressProgCarpIngress, carp.Master, foreign},
		{"egress/foreign IPv4", egressProgCarpEgress, carp.Master, foreign},
		{"egress/shared source", egressProgCarpEgress, carp.Master, ethernet(clientMAC, ownMAC, 0x0800, ipv4(shared4, client4, 17, 64, udp))},
		{"pass", "", 0, foreign},
	} {
		b.Run(bb.name, func(b *testing.B) {
			r := newRig(b)
			if err := r.port.maps.updatePort(func(p *xdpPort) { copy(p.Mac[:], vmac(testVHID)) }); err != nil {
				b.Fatal(err)
			}
			for _, s := range states() {
				if s.name == bb.state.String() {
					r.port.maps.word(testVHID).Store(s.word)
				}
			}
			var prog *ebpf.Program
			if bb.prog != "" {
				prog = r.prog(b, bb.prog)
			} else { // the harness alone
				var objs passObjects
				if err := loadPassObjects(&objs, nil); err != nil {
					b.Fatal(err)
				}
				defer objs.Close()
				prog = objs.Pass
			}
			var ns, n float64
			for b.Loop() {
				const repeat = 10000
				_, d, err := prog.Benchmark(bb.in, repeat, nil)
				if err != nil {
					b.Fatal(err)
				}
				ns, n = ns+float64(d.Nanoseconds()), n+1
			}
			b.ReportMetric(ns/n, "ns/frame")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkForged reports what a forged advert costs: right vhid, TTL and checksum,
// wrong digest. Runs of a foreign frame and of a genuine advert lie between.
func BenchmarkForged(b *testing.B) {
	r := newRig(b)
	key := testKey()
	for _, bb := range []struct {
		name  string
		addrs int
	}{{"one address", 1}, {"eight addresses", 8}} {
		b.Run(bb.name, func(b *testing.B) {
			var addrs []netip.Addr
			for i := range bb.addrs {
				addrs = append(addrs, netip.AddrFrom16([16]byte{0x20, 1, 15: byte(i)}))
			}
			if bb.addrs == 1 {
				addrs[0] = shared4
			}
			key = carp.NewKey(testPassword, testVHID, addrs, carp.OpenBSD)
			trailer := carp.NewTrailerKey([32]byte{1}, "lan", testVHID)
			r.setShield(b, Shield{Digests: key.DigestStates(), Trailers: []TrailerKey{{ID: trailer.ID(), TrailerState: trailer.State()}}})
			signed36 := advertHeader(testVHID)
			frames := []struct {
				unit string
				in   []byte
				ns   float64
			}{
				{unit: "ns/forged", in: advert4(testVHID)},
				{unit: "ns/forged-trailer", in: framed4(append(signed36, cat([]byte{'X', 'C', 1, trailer.ID()}, make([]byte, 44))...))},
				{unit: "ns/genuine", in: framed4(signed(b, key, 1))},
				{unit: "ns/foreign", in: ethernet(ownMAC, clientMAC, 0x0800, ipv4(client4, own4, 17, 64, make([]byte, 26)))},
			}
			n := 0.0
			for b.Loop() {
				for i := range frames {
					_, d, err := r.prog(b, xdpProgCarpXdp).Benchmark(frames[i].in, 2000, nil)
					if err != nil {
						b.Fatal(err)
					}
					frames[i].ns += float64(d.Nanoseconds())
				}
				n++
			}
			for _, f := range frames {
				b.ReportMetric(f.ns/n, f.unit)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
