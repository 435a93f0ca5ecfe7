package ct

import (
	"fmt"
	"net/netip"
	"time"
)

// Tuple is one direction of a connection, as struct nf_conntrack_tuple.
type Tuple struct {
	Src, Dst netip.Addr
	Proto    uint8 // IPPROTO_TCP, _UDP, _ICMP or _ICMPV6

	// TCP and UDP: ports in host byte order. ICMP: SrcPort is the echo id and
	// DstPort is type<<8 | code.
	SrcPort, DstPort uint16
}

// Status is the part of enum ip_conntrack_status that a node can give another.
type Status uint32

// The bits that ctnetlink lets us set; all others are the kernel's own.
const (
	SeenReply Status = 1 << 1 // IPS_SEEN_REPLY
	Assured   Status = 1 << 2 // IPS_ASSURED
)

// TCPState is enum tcp_conntrack.
type TCPState uint8

// The states of a TCP connection as the kernel numbers them.
const (
	TCPNone TCPState = iota
	TCPSynSent
	TCPSynRecv
	TCPEstablished
	TCPFinWait
	TCPCloseWait
	TCPLastAck
	TCPTimeWait
	TCPClose
	TCPSynSent2
)

// TCP is the protocol information of a TCP connection: CTA_PROTOINFO_TCP.
type TCP struct {
	State                   TCPState
	WScaleOrig, WScaleReply uint8
	FlagsOrig, FlagsReply   uint8 // IP_CT_TCP_FLAG_*, without the mask
}

// Flow is one connection in the kernel's table, in terms that mean the same on
// every node: no ids, no counters, no pointers. It is comparable.
//
// NAT is not a field: Reply differs from the inverse of Orig exactly where the
// connection is translated (see SNAT and DNAT).
type Flow struct {
	Orig, Reply Tuple
	Status      Status
	Mark        uint32
	TCP         TCP           // zero unless Orig.Proto is TCP
	Timeout     time.Duration // what is left, in whole seconds
}

// Key identifies the flow: the original tuple.
func (f *Flow) Key() Tuple { return f.Orig }

// String returns the tuple for logs and errors.
func (t Tuple) String() string {
	return fmt.Sprintf("proto %d %v to %v", t.Proto,
		netip.AddrPortFrom(t.Src, t.SrcPort), netip.AddrPortFrom(t.Dst, t.DstPort))
}

// Inverse returns the tuple of the answer to t, without translation.
func (t Tuple) Inverse() Tuple {
	r := t
	r.Src, r.Dst = t.Dst, t.Src
	if t.isICMP() {
		r.DstPort = inverseICMP(t.Proto, t.DstPort)
		return r
	}
	r.SrcPort, r.DstPort = t.DstPort, t.SrcPort
	return r
}
