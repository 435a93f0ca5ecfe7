package carp

import (
	"encoding/binary"
	"net/netip"
)

// DefaultTOS is the type of service of adverts: DSCP 56, CS7, as
// net.inet.carp.dscp of FreeBSD has it. OpenBSD, NetBSD and ucarp send 0x10;
// nobody looks at it but switches and shapers.
const DefaultTOS = 56 << 2

// Envelope is how an advert travels.
type Envelope struct {
	Src, Dst MAC
	From, To netip.Addr // of one family
	TOS      uint8      // traffic class, in IPv6
}

// ToGroup returns the envelope of an advert to a multicast group; the group
// that is not valid stands for CARP's own one of the sender's family.
func ToGroup(src MAC, from, group netip.Addr, tos uint8) Envelope {
	if !group.IsValid() {
		group = Group6
		if from.Is4() {
			group = Group4
		}
	}
	return Envelope{Src: src, Dst: MulticastMAC(group), From: from, To: group, TOS: tos}
}

// MulticastMAC returns the Ethernet address of a multicast group: the low 23
// bits behind 01:00:5e (RFC 1112, section 6.4), the low 32 behind 33:33
// (RFC 2464, section 7).
func MulticastMAC(group netip.Addr) MAC {
	if group.Is4() {
		a := group.As4()
		return MAC{0x01, 0x00, 0x5e, a[1] & 0x7f, a[2], a[3]}
	}
	a := group.As16()
	return MAC{0x33, 0x33, a[12], a[13], a[14], a[15]}
}

// AppendFrame appends the whole Ethernet frame that carries an advert. In IPv4
// DF is set and the id is 0, as NetBSD does.
func (e *Envelope) AppendFrame(b, advert []byte) []byte {
	if e.From.Is4() {
		b = appendEther(b, e.Dst, e.Src, etherIP4)
		at := len(b)
		b = append(b, 0x45, e.TOS)
		b = binary.BigEndian.AppendUint16(b, uint16(ip4Len+len(advert)))
		b = append(b, 0, 0, 0x40, 0, ttl, protoCARP, 0, 0) // id, DF, checksum
		b = appendAddrs(b, e.From, e.To)
		binary.BigEndian.PutUint16(b[at+10:], ^sum(0, b[at:]))
		return append(b, advert...)
	}
	b = appendEther(b, e.Dst, e.Src, etherIP6)
	b = appendIP6(b, e.TOS, len(advert), protoCARP, e.From, e.To)
	return append(b, advert...)
}
