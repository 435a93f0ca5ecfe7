package carp

import (
	"encoding/binary"
	"net/netip"
)

const (
	neighborAdvert = 136
	protoICMP6     = 58
	naRouter       = 0x80
	naOverride     = 0x20
)

// AppendAnnounce appends the whole frame that moves neighbours and switches to
// mac: a gratuitous ARP for an IPv4 address, an unsolicited neighbour
// advertisement for an IPv6 one. router is the R flag of the latter: whether
// this node forwards IPv6.
func AppendAnnounce(b []byte, mac MAC, addr netip.Addr, router bool) []byte {
	if addr.Is4() {
		return appendARP(b, mac, addr)
	}
	return appendNA(b, mac, addr, router)
}

// appendARP appends a gratuitous ARP in request form, as arprequest() of the
// BSDs: everybody updates from it, and some only from requests (RFC 5227,
// section 3, calls it an ARP Announcement).
func appendARP(b []byte, mac MAC, addr netip.Addr) []byte {
	b = appendEther(b, MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, etherARP)
	b = append(b, 0, 1, etherIP4>>8, etherIP4&0xff, 6, 4, 0, 1) // Ethernet, IPv4, request
	b = append(b, mac[:]...)
	b = appendAddrs(b, addr)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return appendAddrs(b, addr)
}

// appendNA appends an unsolicited neighbour advertisement to all nodes, from
// the address itself, with the override flag: RFC 4861, section 7.2.6.
func appendNA(b []byte, mac MAC, addr netip.Addr, router bool) []byte {
	all := netip.IPv6LinkLocalAllNodes()
	const n = 32 // type … flags, target, one option
	b = appendEther(b, MAC{0x33, 0x33, 0, 0, 0, 1}, mac, etherIP6)
	b = appendIP6(b, 0, n, protoICMP6, addr, all)
	at := len(b)
	flags := byte(naOverride)
	if router {
		flags |= naRouter
	}
	b = append(b, neighborAdvert, 0, 0, 0, flags, 0, 0, 0)
	b = appendAddrs(b, addr)
	b = append(b, 2, 1) // target link-layer address, 8 bytes
	b = append(b, mac[:]...)
	// The pseudo header: both addresses, the length, the next header.
	s := sum(0, b[at-32:])
	s = sum(s, []byte{0, n, 0, protoICMP6})
	binary.BigEndian.PutUint16(b[at+2:], ^s)
	return b
}
