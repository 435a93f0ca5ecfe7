package sync

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/xcarp/xcarp/internal/ct"
)

// A record is the state of one flow, or that it is gone:
//
//	 0      1                                          only if not deleted
//	+------+-----+-----+-------+-------+ +------------+-------+------------------+---------+
//	| bits | src | dst | sport | dport | | reply diff | mark4 | state wscale f f | timeout |
//	+------+-----+-----+-------+-------+ +------------+-------+------------------+---------+
//	  1      4|16  4|16    2       2       recNAT       recMark      TCP only      uvarint
//
// Addresses are 4 bytes, or 16 with recV6; numbers are big endian. The reply
// tuple is sent as its difference from the inverse of the original one: a byte
// that says which of source, destination and ports differ, then those. A plain
// UDP flow over IPv4 takes 14 or 15 bytes, TCP 20, with SNAT 7 more.
const (
	recProto   = 0x03 // index into recProtos
	recV6      = 0x04
	recDelete  = 0x08
	recNAT     = 0x10
	recMark    = 0x20
	recSeen    = 0x40 // ct.SeenReply
	recAssured = 0x80 // ct.Assured

	diffSrc   = 0x01
	diffDst   = 0x02
	diffSport = 0x04
	diffDport = 0x08

	maxRecord = 1 + 36 + 1 + 36 + 4 + 4 + binary.MaxVarintLen32
)

var recProtos = [4]uint8{protoTCP, protoUDP, protoICMP, protoICMPv6}

const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

var (
	errShort  = errors.New("record ends early")
	errRecord = errors.New("record has a value that no sender writes")
)

// encodable reports whether a record can hold the flow: a protocol we know, one
// address family, no zones.
func encodable(f *ct.Flow) bool {
	o, r := &f.Orig, &f.Reply
	v4 := o.Src.Is4()
	return protoIndex(o.Proto) >= 0 && r.Proto == o.Proto &&
		sameFamily(o.Src, v4) && sameFamily(o.Dst, v4) && sameFamily(r.Src, v4) && sameFamily(r.Dst, v4)
}

func sameFamily(a netip.Addr, v4 bool) bool {
	return a.IsValid() && a.Is4() == v4 && a.Zone() == ""
}

func protoIndex(p uint8) int {
	switch p {
	case protoTCP:
		return 0
	case protoUDP:
		return 1
	case protoICMP:
		return 2
	case protoICMPv6:
		return 3
	}
	return -1
}

// appendRecord appends the record of an encodable flow.
func appendRecord(b []byte, f *ct.Flow, del bool) []byte {
	at := len(b)
	bits := byte(protoIndex(f.Orig.Proto))
	v6 := !f.Orig.Src.Is4()
	if v6 {
		bits |= recV6
	}
	b = append(b, 0)
	b = appendAddr(b, f.Orig.Src)
	b = appendAddr(b, f.Orig.Dst)
	b = binary.BigEndian.AppendUint16(b, f.Orig.SrcPort)
	b = binary.BigEndian.AppendUint16(b, f.Orig.DstPort)
	if del {
		b[at] = bits | recDelete
		return b
	}
	if f.Status&ct.SeenReply != 0 {
		bits |= recSeen
	}
	if f.Status&ct.Assured != 0 {
		bits |= recAssured
	}
	if inv := f.Orig.Inverse(); f.Reply != inv {
		bits |= recNAT
		b = appendDiff(b, &f.Reply, &inv)
	}
	if f.Mark != 0 {
		bits |= recMark
		b = binary.BigEndian.AppendUint32(b, f.Mark)
	}
	if f.Orig.Proto == protoTCP {
		// RFC 7323 limits the scale to 14, so a nibble holds it.
		b = append(b, byte(f.TCP.State), min(f.TCP.WScaleOrig, 15)<<4|min(f.TCP.WScaleReply, 15),
			f.TCP.FlagsOrig, f.TCP.FlagsReply)
	}
	b[at] = bits
	sec := min(max(int64(f.Timeout/time.Second), 0), 1<<32-1)
	return binary.AppendUvarint(b, uint64(sec))
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		a4 := a.As4()
		return append(b, a4[:]...)
	}
	a16 := a.As16()
	return append(b, a16[:]...)
}

func appendDiff(b []byte, t, inv *ct.Tuple) []byte {
	at := len(b)
	b = append(b, 0)
	var diff byte
	if t.Src != inv.Src {
		diff |= diffSrc
		b = appendAddr(b, t.Src)
	}
	if t.Dst != inv.Dst {
		diff |= diffDst
		b = appendAddr(b, t.Dst)
	}
	if t.SrcPort != inv.SrcPort {
		diff |= diffSport
		b = binary.BigEndian.AppendUint16(b, t.SrcPort)
	}
	if t.DstPort != inv.DstPort {
		diff |= diffDport
		b = binary.BigEndian.AppendUint16(b, t.DstPort)
	}
	b[at] = diff
	return b
}

// parseRecord reads one record from the front of b into f, of which it sets
// every field, and returns the bytes it took. It checks form only.
func parseRecord(b []byte, f *ct.Flow) (del bool, n int, err error) {
	r := reader{b: b}
	bits := r.u8()
	v6 := bits&recV6 != 0
	*f = ct.Flow{}
	f.Orig.Proto = recProtos[bits&recProto]
	f.Orig.Src, f.Orig.Dst = r.addr(v6), r.addr(v6)
	f.Orig.SrcPort, f.Orig.DstPort = r.u16(), r.u16()
	if r.short {
		return false, 0, errShort
	}
	f.Reply = f.Orig.Inverse()
	if bits&recDelete != 0 {
		if bits&^(recProto|recV6|recDelete) != 0 {
			return false, 0, fmt.Errorf("delete with bits %#x: %w", bits, errRecord)
		}
		return true, len(b) - len(r.b), nil
	}
	if bits&recSeen != 0 {
		f.Status |= ct.SeenReply
	}
	if bits&recAssured != 0 {
		f.Status |= ct.Assured
	}
	if bits&recNAT != 0 {
		diff := r.u8()
		if r.short {
			return false, 0, errShort
		}
		if diff == 0 || diff > 0x0f {
			return false, 0, fmt.Errorf("reply differs in %#x: %w", diff, errRecord)
		}
		if diff&diffSrc != 0 {
			f.Reply.Src = r.addr(v6)
		}
		if diff&diffDst != 0 {
			f.Reply.Dst = r.addr(v6)
		}
		if diff&diffSport != 0 {
			f.Reply.SrcPort = r.u16()
		}
		if diff&diffDport != 0 {
			f.Reply.DstPort = r.u16()
		}
	}
	if bits&recMark != 0 {
		f.Mark = r.u32()
	}
	if f.Orig.Proto == protoTCP {
		f.TCP.State = ct.TCPState(r.u8())
		ws := r.u8()
		f.TCP.WScaleOrig, f.TCP.WScaleReply = ws>>4, ws&0x0f
		f.TCP.FlagsOrig, f.TCP.FlagsReply = r.u8(), r.u8()
		if !r.short && f.TCP.State > ct.TCPSynSent2 {
			return false, 0, fmt.Errorf("TCP state %d: %w", f.TCP.State, errRecord)
		}
	}
	sec := r.uvarint()
	if r.short {
		return false, 0, errShort
	}
	if sec > 1<<32-1 {
		return false, 0, fmt.Errorf("timeout of %d s: %w", sec, errRecord)
	}
	f.Timeout = time.Duration(sec) * time.Second
	return false, len(b) - len(r.b), nil
}
