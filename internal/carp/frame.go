package carp

import (
	"encoding/binary"
	"net/netip"
)

// MAC is an Ethernet address.
type MAC [6]byte

// VirtualMAC returns 00:00:5e:00:01:vhid, the address that moves from master
// to master. (ucarp advertises from 00:00:5e:00:00:vhid: never filter on it.)
func VirtualMAC(vhid uint8) MAC { return MAC{0x00, 0x00, 0x5e, 0x00, 0x01, vhid} }

// Where adverts go: INADDR_CARP_GROUP and its IPv6 sister, and their MACs.
var (
	Group4    = netip.AddrFrom4([4]byte{224, 0, 0, 18})
	Group6    = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 0x12})
	GroupMAC4 = MAC{0x01, 0x00, 0x5e, 0x00, 0x00, 0x12}
	GroupMAC6 = MAC{0x33, 0x33, 0x00, 0x00, 0x00, 0x12}
)

const (
	etherLen  = 14
	ip4Len    = 20
	ip6Len    = 40
	etherIP4  = 0x0800
	etherARP  = 0x0806
	etherVLAN = 0x8100
	etherIP6  = 0x86dd
	protoCARP = 112
	ttl       = 255
)

// Received is an advert as it came: form is checked, belief is not.
type Received struct {
	Advert
	MAC  MAC        // Ethernet source
	From netip.Addr // IP source

	// Payload is what follows the IP header; it shares the memory of the frame.
	Payload []byte
}

// VRRP reports whether the payload is of a version of VRRP: RFC 3768, RFC 5798. A
// frame with one was refused as another version.
func (r *Received) VRRP() bool {
	return len(r.Payload) >= 4 && (r.Payload[0]>>4 == 2 && r.Payload[3] != authLen || r.Payload[0]>>4 == 3)
}

// AppendFrame appends the frame of an advert from the address from to CARP's own
// group of its family.
func AppendFrame(b []byte, src MAC, from netip.Addr, advert []byte) []byte {
	e := ToGroup(src, from, netip.Addr{}, DefaultTOS)
	return e.AppendFrame(b, advert)
}

func appendEther(b []byte, dst, src MAC, proto uint16) []byte {
	b = append(b, dst[:]...)
	b = append(b, src[:]...)
	return binary.BigEndian.AppendUint16(b, proto)
}

func appendIP6(b []byte, class uint8, n int, next uint8, from, to netip.Addr) []byte {
	b = append(b, 0x60|class>>4, class<<4, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(b, next, ttl)
	return appendAddrs(b, from, to)
}

func appendAddrs(b []byte, addrs ...netip.Addr) []byte {
	for _, a := range addrs {
		if a.Is4() {
			v := a.As4()
			b = append(b, v[:]...)
			continue
		}
		v := a.As16()
		b = append(b, v[:]...)
	}
	return b
}

// ParseFrame reads a received Ethernet frame, with one VLAN tag at most. The
// checks are those of ip_carp.c up to the version; those that need to know us
// (vhid, echo, digest) are the caller's. The trailer shares b.
func ParseFrame(b []byte) (r Received, why Drop) {
	if len(b) < etherLen {
		return r, DropHeader
	}
	r.MAC = MAC(b[6:])
	proto := binary.BigEndian.Uint16(b[12:])
	b = b[etherLen:]
	if proto == etherVLAN {
		if len(b) < 4 {
			return r, DropHeader
		}
		proto = binary.BigEndian.Uint16(b[2:])
		b = b[4:]
	}
	switch proto {
	case etherIP4:
		b, why = r.parseIP4(b)
	case etherIP6:
		b, why = r.parseIP6(b)
	default:
		return r, DropNotCARP
	}
	if why != Accepted {
		return r, why
	}
	r.Payload = b
	// The version first: VRRP is shorter, and its checksum is another. The type
	// is not in the digest, and no other one has ever been sent.
	if len(b) >= 4 && (b[0] != carpVersion<<4|carpType || b[3] != authLen) {
		return r, DropVersion
	}
	if len(b) < AdvertLen {
		return r, DropLength
	}
	if sum(0, b[:AdvertLen]) != 0xffff {
		return r, DropSum
	}
	r.decode(b)
	return r, Accepted
}

// parseIP4 takes the IPv4 header off. The length is the header's: what
// Ethernet pads is not ours.
func (r *Received) parseIP4(b []byte) ([]byte, Drop) {
	if len(b) < ip4Len {
		return nil, DropHeader
	}
	if b[9] != protoCARP {
		return nil, DropNotCARP
	}
	head := int(b[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || head < ip4Len || total < head || total > len(b) || sum(0, b[:head]) != 0xffff {
		return nil, DropHeader
	}
	if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 { // more fragments, or an offset
		return nil, DropHeader
	}
	r.From = netip.AddrFrom4([4]byte(b[12:]))
	if b[8] != ttl {
		return nil, DropTTL
	}
	return b[head:total], Accepted
}

// parseIP6 takes the IPv6 header off. Nobody sends adverts behind extension
// headers.
func (r *Received) parseIP6(b []byte) ([]byte, Drop) {
	if len(b) < ip6Len {
		return nil, DropHeader
	}
	if b[6] != protoCARP {
		return nil, DropNotCARP
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	if b[0]>>4 != 6 || ip6Len+n > len(b) {
		return nil, DropHeader
	}
	r.From = netip.AddrFrom16([16]byte(b[8:]))
	if b[7] != ttl {
		return nil, DropTTL
	}
	return b[ip6Len : ip6Len+n], Accepted
}
