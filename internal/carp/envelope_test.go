package carp

import (
	"encoding/hex"
	"net/netip"
	"testing"
)

// TestEnvelopes compares whole frames, read by hand against RFC 791, 1112, 2464
// and 8200.
func TestEnvelopes(t *testing.T) {
	advert := []byte{0xaa, 0xbb}
	ip := netip.MustParseAddr
	for _, tt := range []struct {
		name string
		e    Envelope
		want string
	}{
		{"to a unicast peer, with the TOS of OpenBSD",
			Envelope{Src: testMAC, Dst: MAC{2, 0, 0, 0, 0, 9}, From: ip("192.0.2.1"), To: ip("192.0.2.9"), TOS: 0x10},
			"020000000009" + "00005e000107" + "0800" +
				"45100016" + "00004000" + "ff70f75c" + "c0000201" + "c0000209" + "aabb"},
		{"to a unicast peer over IPv6",
			Envelope{Src: testMAC, Dst: MAC{2, 0, 0, 0, 0, 9}, From: ip("fe80::1"), To: ip("fe80::9")},
			"020000000009" + "00005e000107" + "86dd" + "60000000" + "0002" + "70" + "ff" +
				"fe800000000000000000000000000001" + "fe800000000000000000000000000009" + "aabb"},
		{"to another group", ToGroup(testMAC, ip("192.0.2.1"), ip("239.255.1.2"), 0),
			"01005e7f0102" + "00005e000107" + "0800" +
				"45000016" + "00004000" + "ff70c874" + "c0000201" + "efff0102" + "aabb"},
		{"to another IPv6 group", ToGroup(testMAC, ip("fe80::1"), ip("ff02::1:2"), DefaultTOS),
			"333300010002" + "00005e000107" + "86dd" + "6e000000" + "0002" + "70" + "ff" +
				"fe800000000000000000000000000001" + "ff020000000000000000000000010002" + "aabb"},
	} {
		if got := hex.EncodeToString(tt.e.AppendFrame(nil, advert)); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
	if MulticastMAC(Group4) != GroupMAC4 || MulticastMAC(Group6) != GroupMAC6 {
		t.Errorf("MACs of CARP's own groups: got %x and %x", MulticastMAC(Group4), MulticastMAC(Group6))
	}
}
