package loader

import (
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// txInTime reports whether a frame sent by XDP_TX from the device leaves at once.
// On a veth it does only if the far end runs an XDP program in its driver: without
// one the kernel puts the frame into the far end's ring and tells nobody
// (veth_xdp_flush). A far end that cannot be looked at counts as one without.
func txInTime(dev netlink.Link) bool {
	if dev.Type() != "veth" {
		return true
	}
	peer, err := farEnd(dev)
	if err != nil {
		return false
	}
	x := peer.Attrs().Xdp
	return x != nil && x.Attached && x.AttachMode != nl.XDP_ATTACHED_SKB
}

// farEnd asks for the other end of a veth, in its own network namespace if it lives
// in another one.
func farEnd(dev netlink.Link) (netlink.Link, error) {
	a := dev.Attrs()
	if a.NetNsID < 0 {
		return netlink.LinkByIndex(a.ParentIndex)
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(a.ParentIndex)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(a.NetNsID))))
	answers, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return nil, err
	}
	if len(answers) == 0 {
		return nil, unix.ENODEV
	}
	return netlink.LinkDeserialize(nil, answers[0])
}
