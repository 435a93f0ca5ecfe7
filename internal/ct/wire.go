package ct

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// A ctnetlink message, from linux/netlink.h, linux/netfilter/nfnetlink.h and
// linux/netfilter/nfnetlink_conntrack.h:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+---------------------------------------------------------------+
//	|                length, these 16 bytes included                |  nlmsghdr,
//	+-------------------------------+-------------------------------+  host
//	|      subsystem<<8 | verb      |             flags             |  byte
//	+-------------------------------+-------------------------------+  order
//	|                           sequence                            |
//	+---------------------------------------------------------------+
//	|                            port id                            |
//	+---------------+---------------+-------------------------------+
//	|    family     |   version 0   |  resource id, big endian, 0   |  nfgenmsg
//	+---------------+---------------+-------------------------------+
//	|       attribute length        |  nested<<15 | attribute type  |  host order
//	+-------------------------------+-------------------------------+
//	|          value, big endian, padded to four bytes …            |
//	+---------------------------------------------------------------+
const (
	nlmsgLen = 16
	nfgenLen = 4
	attrLen  = 4

	attrNested   = 1 << 15
	attrTypeMask = 1<<14 - 1 // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
)

// enum cntl_msg_types, under NFNL_SUBSYS_CTNETLINK.
const (
	subsys   = 1
	ctNew    = subsys << 8
	ctGet    = subsys<<8 | 1
	ctDelete = subsys<<8 | 2
	ctStats  = subsys<<8 | 5 // IPCTNL_MSG_CT_GET_STATS
)

// enum ctattr_type.
const (
	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaProtoinfo  = 4
	ctaNATSrc     = 6
	ctaTimeout    = 7
	ctaMark       = 8
	ctaID         = 12
	ctaNATDst     = 13
	ctaZone       = 18
)

// enum ctattr_tuple, ctattr_ip, ctattr_l4proto.
const (
	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaTupleZone  = 3

	ctaIPv4Src = 1
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoNum     = 1
	ctaProtoSrcPort = 2
	ctaProtoDstPort = 3
	ctaICMPID       = 4 // then type, code
	ctaICMPv6ID     = 7 // then type, code
)

// enum ctattr_protoinfo, ctattr_protoinfo_tcp.
const (
	ctaProtoinfoTCP = 1

	ctaTCPState       = 1
	ctaTCPWScaleOrig  = 2
	ctaTCPWScaleReply = 3
	ctaTCPFlagsOrig   = 4 // struct nf_ct_tcp_flags {flags, mask}
	ctaTCPFlagsReply  = 5
)

// enum ctattr_nat, ctattr_protonat.
const (
	ctaNATv4Min = 1
	ctaNATv4Max = 2
	ctaNATProto = 3
	ctaNATv6Min = 4
	ctaNATv6Max = 5

	ctaProtonatMin = 1
	ctaProtonatMax = 2
)

// The rest of enum ip_conntrack_status that matters here: on a change the
// kernel refuses a status in which these differ from its own.
const (
	statusExpected  = 1 << 0
	statusConfirmed = 1 << 3
)

// IP_CT_TCP_FLAG_*.
const (
	tcpWindowScale = 0x01
	tcpSACKPerm    = 0x02
	tcpCloseInit   = 0x04
	tcpBeLiberal   = 0x08

	// What is true on another node, too. The higher bits speak of window
	// fields that ctnetlink does not carry: a copied MAXACK_SET would call
	// a zero the highest acknowledgement seen.
	tcpFlagsMask = tcpWindowScale | tcpSACKPerm | tcpCloseInit | tcpBeLiberal
	// What every injected connection gets.
	tcpFlagsInjected = tcpWindowScale | tcpSACKPerm | tcpBeLiberal
)

// header is what we use of an nlmsghdr.
type header struct {
	typ, flags uint16
	seq, port  uint32
}

// next splits the first message off a datagram. It returns false at the end and
// at the first message that does not fit.
func next(b []byte) (h header, body, rest []byte, ok bool) {
	if len(b) < nlmsgLen {
		return header{}, nil, nil, false
	}
	n := int(binary.NativeEndian.Uint32(b))
	if n < nlmsgLen || n > len(b) {
		return header{}, nil, nil, false
	}
	h = header{
		typ:   binary.NativeEndian.Uint16(b[4:]),
		flags: binary.NativeEndian.Uint16(b[6:]),
		seq:   binary.NativeEndian.Uint32(b[8:]),
		port:  binary.NativeEndian.Uint32(b[12:]),
	}
	return h, b[nlmsgLen:n], b[min(align(n), len(b)):], true
}

// nextAttr splits the first attribute off; as next.
func nextAttr(b []byte) (typ uint16, val, rest []byte, ok bool) {
	if len(b) < attrLen {
		return 0, nil, nil, false
	}
	n := int(binary.NativeEndian.Uint16(b))
	if n < attrLen || n > len(b) {
		return 0, nil, nil, false
	}
	return binary.NativeEndian.Uint16(b[2:]) & attrTypeMask, b[attrLen:n], b[min(align(n), len(b)):], true
}

func align(n int) int { return (n + 3) &^ 3 }

// errno returns what an NLMSG_ERROR body says: 0 is an acknowledgement.
func errno(body []byte) unix.Errno {
	if len(body) < 4 {
		return unix.EBADMSG
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
}
