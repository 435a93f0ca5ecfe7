package ct

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// record is an entry as the kernel tells it.
type record struct {
	Flow
	id     uint32 // of this entry in this kernel
	status uint32 // all bits
}

// decode reads the body of a message about one entry: nfgenmsg, attributes. It
// returns false for what a Flow cannot hold: another protocol, another zone, or
// tuples that are missing or malformed. Attributes that it does not know are
// skipped.
func (r *record) decode(body []byte) bool {
	*r = record{}
	if len(body) < nfgenLen {
		return false
	}
	var orig, reply bool
	for b := body[nfgenLen:]; ; {
		typ, v, rest, ok := nextAttr(b)
		if !ok {
			break
		}
		b = rest
		switch typ {
		case ctaTupleOrig:
			orig = r.Orig.decode(v)
		case ctaTupleReply:
			reply = r.Reply.decode(v)
		case ctaStatus:
			r.status = be32(v)
			r.Status = Status(r.status) & (SeenReply | Assured)
		case ctaTimeout:
			r.Timeout = time.Duration(be32(v)) * time.Second
		case ctaMark:
			r.Mark = be32(v)
		case ctaID:
			r.id = be32(v)
		case ctaProtoinfo:
			r.TCP.decode(v)
		case ctaZone:
			if be16(v) != 0 {
				return false
			}
		}
	}
	if r.Orig.Proto != unix.IPPROTO_TCP {
		r.TCP = TCP{}
	}
	return orig && reply && r.Orig.Proto == r.Reply.Proto
}

func (t *Tuple) decode(b []byte) bool {
	*t = Tuple{}
	for {
		typ, v, rest, ok := nextAttr(b)
		if !ok {
			break
		}
		b = rest
		switch typ {
		case ctaTupleIP:
			t.decodeIP(v)
		case ctaTupleProto:
			t.decodeProto(v)
		case ctaTupleZone:
			if be16(v) != 0 {
				return false
			}
		}
	}
	return t.valid() == nil
}

func (t *Tuple) decodeIP(b []byte) {
	for {
		typ, v, rest, ok := nextAttr(b)
		if !ok {
			return
		}
		b = rest
		switch {
		case typ == ctaIPv4Src && len(v) == 4:
			t.Src = netip.AddrFrom4([4]byte(v))
		case typ == ctaIPv4Dst && len(v) == 4:
			t.Dst = netip.AddrFrom4([4]byte(v))
		case typ == ctaIPv6Src && len(v) == 16:
			t.Src = netip.AddrFrom16([16]byte(v))
		case typ == ctaIPv6Dst && len(v) == 16:
			t.Dst = netip.AddrFrom16([16]byte(v))
		}
	}
}

func (t *Tuple) decodeProto(b []byte) {
	for {
		typ, v, rest, ok := nextAttr(b)
		if !ok {
			return
		}
		b = rest
		switch typ {
		case ctaProtoNum:
			t.Proto = u8(v)
		case ctaProtoSrcPort, ctaICMPID, ctaICMPv6ID:
			t.SrcPort = be16(v)
		case ctaProtoDstPort:
			t.DstPort = be16(v)
		case ctaICMPID + 1, ctaICMPv6ID + 1:
			t.DstPort = uint16(u8(v))<<8 | t.DstPort&0xff
		case ctaICMPID + 2, ctaICMPv6ID + 2:
			t.DstPort = t.DstPort&0xff00 | uint16(u8(v))
		}
	}
}

func (t *TCP) decode(b []byte) {
	typ, b, _, ok := nextAttr(b)
	if !ok || typ != ctaProtoinfoTCP {
		return
	}
	for {
		typ, v, rest, ok := nextAttr(b)
		if !ok {
			return
		}
		b = rest
		switch typ {
		case ctaTCPState:
			t.State = TCPState(u8(v))
		case ctaTCPWScaleOrig:
			t.WScaleOrig = u8(v)
		case ctaTCPWScaleReply:
			t.WScaleReply = u8(v)
		case ctaTCPFlagsOrig:
			t.FlagsOrig = u8(v) & tcpFlagsMask
		case ctaTCPFlagsReply:
			t.FlagsReply = u8(v) & tcpFlagsMask
		}
	}
}

// decodeEvent reads a multicast message. It returns false for what is no event
// or no Flow.
func (e *Event) decode(h header, body []byte, r *record) bool {
	switch {
	case h.typ == ctDelete:
		e.Change = Destroy
	case h.typ != ctNew:
		return false
	case h.flags&unix.NLM_F_CREATE != 0:
		e.Change = New
	default:
		e.Change = Update
	}
	if !r.decode(body) {
		return false
	}
	e.Flow = r.Flow
	return true
}

// A value that is too short counts as zero: the kernel sends none.

func u8(b []byte) uint8 {
	if len(b) < 1 {
		return 0
	}
	return b[0]
}

func be16(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

func be32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
