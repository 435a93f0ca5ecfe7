package loader

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Frames are built here byte by byte and independently of the programs: these are
// the headers as in the RFCs, with right checksums unless a case breaks them.

var (
	ownMAC    = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x01}
	clientMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x99}
	otherMAC  = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x77}
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	noMAC     = net.HardwareAddr{0, 0, 0, 0, 0, 0}
	allNodes  = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	carp4MAC  = net.HardwareAddr{0x01, 0, 0x5e, 0, 0, 0x12}
	carp6MAC  = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 0x12}

	shared4 = netip.MustParseAddr("10.0.0.1")
	client4 = netip.MustParseAddr("10.0.0.99")
	own4    = netip.MustParseAddr("10.0.0.2")
	carp4   = netip.MustParseAddr("224.0.0.18")
	shared6 = netip.MustParseAddr("2001:db8::1:2345")
	client6 = netip.MustParseAddr("2001:db8::99")
	own6    = netip.MustParseAddr("fe80::1")
	carp6   = netip.MustParseAddr("ff02::12")
	all6    = netip.MustParseAddr("ff02::1")
	none4   = netip.IPv4Unspecified()
	none6   = netip.IPv6Unspecified()
)

func cat(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func ethernet(dst, src net.HardwareAddr, proto uint16, payload []byte) []byte {
	return cat(dst, src, binary.BigEndian.AppendUint16(nil, proto), payload)
}

func arp(dst, src net.HardwareAddr, op uint16, sha net.HardwareAddr, spa netip.Addr, tha net.HardwareAddr, tpa netip.Addr) []byte {
	b := ethernet(dst, src, 0x0806, cat([]byte{0, 1, 8, 0, 6, 4, 0, byte(op)}, sha, spa.AsSlice(), tha, tpa.AsSlice()))
	return append(b, make([]byte, 60-len(b))...) // padded as on the wire
}

// checksum is the Internet checksum, RFC 1071.
func checksum(parts ...[]byte) uint16 {
	b := cat(parts...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func ipv4(src, dst netip.Addr, proto, ttl byte, payload []byte) []byte {
	h := cat([]byte{0x45, 0x10}, binary.BigEndian.AppendUint16(nil, uint16(20+len(payload))),
		[]byte{0x12, 0x34, 0, 0, ttl, proto, 0, 0}, src.AsSlice(), dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, payload...)
}

func ipv6(src, dst netip.Addr, next, hops byte, payload []byte) []byte {
	return cat([]byte{0x60, 0, 0, 0}, binary.BigEndian.AppendUint16(nil, uint16(len(payload))),
		[]byte{next, hops}, src.AsSlice(), dst.AsSlice(), payload)
}

func icmp6(src, dst netip.Addr, hops byte, body []byte) []byte {
	body = append([]byte(nil), body...)
	n := uint32(len(body))
	pseudo := cat(src.AsSlice(), dst.AsSlice(), binary.BigEndian.AppendUint32(nil, n), []byte{0, 0, 0, 58})
	binary.BigEndian.PutUint16(body[2:], checksum(pseudo, body))
	return ipv6(src, dst, 58, hops, body)
}

func ns(target netip.Addr, options ...[]byte) []byte {
	return cat([]byte{135, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice(), cat(options...))
}

func na(flags byte, target netip.Addr, options ...[]byte) []byte {
	return cat([]byte{136, 0, 0, 0, flags, 0, 0, 0}, target.AsSlice(), cat(options...))
}

func sourceLLA(mac net.HardwareAddr) []byte { return cat([]byte{1, 1}, mac) }
func targetLLA(mac net.HardwareAddr) []byte { return cat([]byte{2, 1}, mac) }

// solicitedNodeAddr is ff02::1:ffXX:XXXX.
func solicitedNodeAddr(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, b[13], b[14], b[15]})
}

// advertHeader is a CARP header with a right checksum over itself and the trailer.
func advertHeader(vhid byte, trailer ...byte) []byte {
	b := cat([]byte{0x21, vhid, 100, 7, 0, 1, 0, 0}, []byte("counter!"), []byte("20 bytes of digest.."), trailer)
	binary.BigEndian.PutUint16(b[6:], checksum(b))
	return b
}

func advert4(vhid byte) []byte {
	return ethernet(carp4MAC, vmac(vhid), 0x0800, ipv4(own4, carp4, 112, 255, advertHeader(vhid)))
}

// edit returns a copy of the frame with the byte at the offset changed.
func edit(frame []byte, at int, to byte) []byte {
	frame = append([]byte(nil), frame...)
	frame[at] = to
	return frame
}
