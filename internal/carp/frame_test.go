package carp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"testing"
)

var (
	testAddrs = []netip.Addr{netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("2001:db8::100")}
	testMAC   = VirtualMAC(7)
)

func testAdvert(tb testing.TB) []byte {
	tb.Helper()
	a := Advert{VHID: 7, AdvBase: 1, AdvSkew: 100, Counter: 0x0102030405060708}
	NewKey("secret", 7, testAddrs, OpenBSD).Sign(&a)
	b, err := a.MarshalBinary()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// fix4 makes the IPv4 header checksum right again.
func fix4(f []byte) {
	ip := f[etherLen:]
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip[:ip4Len]))
}

func TestParseFrame(t *testing.T) {
	v4 := AppendFrame(nil, testMAC, netip.MustParseAddr("192.0.2.1"), testAdvert(t))
	v6 := AppendFrame(nil, testMAC, netip.MustParseAddr("fe80::1"), testAdvert(t))
	with := func(f []byte, change func(f []byte)) []byte {
		f = slices.Clone(f)
		change(f)
		return f
	}
	tagged := func(f []byte) []byte {
		return slices.Concat(f[:12], []byte{0x81, 0, 0, 5}, f[12:])
	}
	for _, tt := range []struct {
		name  string
		frame []byte
		want  Drop
	}{
		{"an IPv4 advert", v4, Accepted},
		{"an IPv6 advert", v6, Accepted},
		{"with a VLAN tag", tagged(v4), Accepted},
		{"IPv6 with a VLAN tag", tagged(v6), Accepted},
		{"with two tags", tagged(tagged(v4)), DropNotCARP},
		{"padded by Ethernet", append(slices.Clone(v4), make([]byte, 10)...), Accepted},
		{"nothing", nil, DropHeader},
		{"half an Ethernet header", v4[:13], DropHeader},
		{"half a tag", tagged(v4)[:15], DropHeader},
		{"half an IPv4 header", v4[:etherLen+19], DropHeader},
		{"half an IPv6 header", v6[:etherLen+39], DropHeader},
		{"ARP", AppendAnnounce(nil, testMAC, testAddrs[0], false), DropNotCARP},
		{"a neighbour advertisement", AppendAnnounce(nil, testMAC, testAddrs[1], false), DropNotCARP},
		{"another IPv4 protocol", with(v4, func(f []byte) { f[etherLen+9] = 17; fix4(f) }), DropNotCARP},
		{"a wrong IPv4 checksum", with(v4, func(f []byte) { f[etherLen+10]++ }), DropHeader},
		{"IPv4 header length 4", with(v4, func(f []byte) { f[etherLen] = 0x44; fix4(f) }), DropHeader},
		{"a fragment", with(v4, func(f []byte) { f[etherLen+6] = 0x20; fix4(f) }), DropHeader},
		{"IPv4 length beyond the frame", with(v4, func(f []byte) { f[etherLen+3]++; fix4(f) }), DropHeader},
		{"IPv6 length beyond the frame", with(v6, func(f []byte) { f[etherLen+5]++ }), DropHeader},
		{"TTL 254", with(v4, func(f []byte) { f[etherLen+8] = 254; fix4(f) }), DropTTL},
		{"hop limit 254", with(v6, func(f []byte) { f[etherLen+7] = 254 }), DropTTL},
		{"35 bytes in IPv4", with(v4, func(f []byte) { f[etherLen+3]--; fix4(f) }), DropLength},
		{"35 bytes in IPv6", with(v6, func(f []byte) { f[etherLen+5]-- }), DropLength},
		{"a wrong checksum", with(v6, func(f []byte) { f[etherLen+ip6Len+20]++ }), DropSum},
		{"VRRPv3", with(v4, func(f []byte) { f[etherLen+ip4Len] += 0x10; f[etherLen+ip4Len+6] -= 0x10 }), DropVersion},
		{"VRRPv2", with(v4, func(f []byte) { f[etherLen+ip4Len+3]--; f[etherLen+ip4Len+7]++ }), DropVersion},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, got := ParseFrame(tt.frame)
			if got != tt.want {
				t.Fatalf("got %v, want %v", got, tt.want)
			}
			if got == Accepted && (r.MAC != testMAC || r.VHID != 7 || r.AdvSkew != 100 || r.Trailer != nil) {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func TestATrailerIsKept(t *testing.T) {
	b := append(testAdvert(t), 0xde, 0xad, 0xbe)
	for _, from := range []string{"192.0.2.1", "fe80::1"} {
		r, why := ParseFrame(AppendFrame(nil, testMAC, netip.MustParseAddr(from), b))
		if why != Accepted {
			t.Fatalf("from %s: %v", from, why)
		}
		if want := []byte{0xde, 0xad, 0xbe}; !bytes.Equal(r.Trailer, want) {
			t.Errorf("from %s: trailer %x, want %x", from, r.Trailer, want)
		}
	}
}

// TestFrames compares whole frames. The bytes were read by hand against the
// pictures in RFC 791, 8200, 826 and 4861, and by tshark in the group's tests.
func TestFrames(t *testing.T) {
	advert := []byte{0xaa, 0xbb}
	for _, tt := range []struct {
		name string
		got  []byte
		want string
	}{
		{"an IPv4 advert", AppendFrame(nil, testMAC, netip.MustParseAddr("192.0.2.1"), advert),
			"01005e000012" + "00005e000107" + "0800" +
				"45e00016" + "00004000" + "ff70d883" + "c0000201" + "e0000012" + "aabb"},
		{"an IPv6 advert", AppendFrame(nil, testMAC, netip.MustParseAddr("fe80::1"), advert),
			"333300000012" + "00005e000107" + "86dd" +
				"6e000000" + "0002" + "70" + "ff" +
				"fe800000000000000000000000000001" + "ff020000000000000000000000000012" + "aabb"},
		{"a gratuitous ARP", AppendAnnounce(nil, testMAC, testAddrs[0], true),
			"ffffffffffff" + "00005e000107" + "0806" + "0001080006040001" +
				"00005e000107" + "c0000264" + "000000000000" + "c0000264"},
		{"an unsolicited NA", AppendAnnounce(nil, testMAC, testAddrs[1], true),
			"333300000001" + "00005e000107" + "86dd" + "60000000" + "0020" + "3a" + "ff" +
				"20010db8000000000000000000000100" + "ff020000000000000000000000000001" +
				"8800" + "XXXX" + "a0000000" + "20010db8000000000000000000000100" + "0201" + "00005e000107"},
	} {
		got := hex.EncodeToString(tt.got)
		if i := bytes.Index([]byte(tt.want), []byte("XXXX")); i >= 0 {
			got = got[:i] + "XXXX" + got[i+4:] // tshark verifies it
		}
		if got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

// TestNAChecksum sums up as RFC 4443, section 2.3 says, in another way.
func TestNAChecksum(t *testing.T) {
	f := AppendAnnounce(nil, testMAC, testAddrs[1], false)[etherLen:]
	pseudo := slices.Concat(f[8:40], []byte{0, 0, 0, byte(len(f) - ip6Len), 0, 0, 0, 58}, f[ip6Len:])
	n := 0
	for i := 0; i < len(pseudo); i += 2 {
		n += int(pseudo[i])<<8 | int(pseudo[i+1])
	}
	if got := n%0xffff == 0; !got {
		t.Errorf("sum: got %#x, want a multiple of 0xffff", n)
	}
	if f[ip6Len+4] != 0x20 {
		t.Errorf("flags of a host: got %#x, want override alone", f[ip6Len+4])
	}
}

func FuzzParseFrame(f *testing.F) {
	f.Add(AppendFrame(nil, testMAC, netip.MustParseAddr("192.0.2.1"), testAdvert(f)))
	f.Add(AppendFrame(nil, testMAC, netip.MustParseAddr("fe80::1"), append(testAdvert(f), 1, 2, 3)))
	f.Add(AppendAnnounce(nil, testMAC, testAddrs[1], true))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, why := ParseFrame(b)
		if why != Accepted {
			return
		}
		// What was accepted means the same when it is sent again.
		payload, err := r.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		again, why := ParseFrame(AppendFrame(nil, r.MAC, r.From, payload))
		if why != Accepted {
			t.Fatalf("sent again: %v", why)
		}
		trailer := bytes.Equal(r.Trailer, again.Trailer)
		r.Trailer, again.Trailer = nil, nil
		if !trailer || !equalReceived(r, again) {
			t.Errorf("sent again: got %+v, want %+v", again, r)
		}
	})
}

func equalReceived(a, b Received) bool {
	return a.MAC == b.MAC && a.From == b.From && a.VHID == b.VHID && a.AdvBase == b.AdvBase &&
		a.AdvSkew == b.AdvSkew && a.Demotion == b.Demotion && a.Counter == b.Counter && a.Digest == b.Digest
}

func FuzzAdvert(f *testing.F) {
	f.Add(testAdvert(f))
	f.Add(append(testAdvert(f), 9))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a Advert
		if err := a.UnmarshalBinary(b); err != nil {
			return
		}
		got, err := a.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		// Type and checksum are not fields.
		want := slices.Clone(b)
		want[0] = 0x21
		copy(want[6:8], got[6:8])
		if !bytes.Equal(got, want) {
			t.Errorf("got %x, want %x", got, want)
		}
		if sum(0, got[:AdvertLen]) != 0xffff {
			t.Errorf("checksum of %x is wrong", got)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	f := AppendFrame(nil, testMAC, netip.MustParseAddr("192.0.2.1"), testAdvert(b))
	b.ReportAllocs()
	for b.Loop() {
		if _, why := ParseFrame(f); why != Accepted {
			b.Fatal(why)
		}
	}
}
