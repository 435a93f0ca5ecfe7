package ct

import "net/netip"

// SNAT returns the source that the answers are sent to, if the connection's
// source is translated: address, and port (of ICMP: echo id) in host byte order.
func (f *Flow) SNAT() (netip.Addr, uint16, bool) {
	if f.Orig.isICMP() {
		// The echo id stands in SrcPort in both directions.
		return f.Reply.Dst, f.Reply.SrcPort, f.Reply.Dst != f.Orig.Src || f.Reply.SrcPort != f.Orig.SrcPort
	}
	return f.Reply.Dst, f.Reply.DstPort, f.Reply.Dst != f.Orig.Src || f.Reply.DstPort != f.Orig.SrcPort
}

// DNAT returns the destination that the answers come from, if the connection's
// destination is translated. Of ICMP the port is 0 and means nothing.
func (f *Flow) DNAT() (netip.Addr, uint16, bool) {
	if f.Orig.isICMP() {
		return f.Reply.Src, 0, f.Reply.Src != f.Orig.Dst
	}
	return f.Reply.Src, f.Reply.SrcPort, f.Reply.Src != f.Orig.Dst || f.Reply.SrcPort != f.Orig.DstPort
}

// translated reports whether the kernel needs CTA_NAT_* for the flow.
func (f *Flow) translated() bool { return f.Reply != f.Orig.Inverse() }
