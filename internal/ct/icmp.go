package ct

import "golang.org/x/sys/unix"

func (t Tuple) isICMP() bool {
	return t.Proto == unix.IPPROTO_ICMP || t.Proto == unix.IPPROTO_ICMPV6
}

// inverseICMP returns type<<8 | code of the answer to a message of that type
// and code, as invmap in nf_conntrack_proto_icmp.c and _icmpv6.c. Types that
// have no answer stay: the kernel keeps no connection for them.
func inverseICMP(proto uint8, typeCode uint16) uint16 {
	typ, code := typeCode>>8, typeCode&0xff
	if proto == unix.IPPROTO_ICMPV6 {
		switch typ {
		case 128, 139: // echo request, node information query
			typ++
		case 129, 140:
			typ--
		}
		return typ<<8 | code
	}
	switch typ {
	case 8: // echo request
		typ = 0
	case 0:
		typ = 8
	case 13, 15, 17: // timestamp, information, address mask request
		typ++
	case 14, 16, 18:
		typ--
	}
	return typ<<8 | code
}
