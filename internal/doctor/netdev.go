package doctor

import (
	"encoding/binary"
	"errors"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Of linux/netdev.h, since Linux 6.3.
const (
	netdevCmdDevGet      = 1
	netdevADevIfindex    = 1
	netdevADevXDPFeature = 3
)

// genlHeader is command, version and two bytes that must be zero: nl.Genlmsg leaves
// what lies behind it in memory there, which the kernel refuses.
type genlHeader [nl.SizeofGenlmsg]byte

// Len and Serialize implement nl.NetlinkRequestData.
func (h genlHeader) Len() int { return len(h) }

// Serialize is described at Len.
func (h genlHeader) Serialize() []byte { return h[:] }

// xdpActs asks the kernel what the driver of an interface can do with XDP.
func xdpActs(index int) (uint64, error) {
	family, err := netlink.GenlFamilyGet("netdev")
	if err != nil {
		return 0, err
	}
	req := nl.NewNetlinkRequest(int(family.ID), 0)
	req.AddData(genlHeader{netdevCmdDevGet, uint8(family.Version)})
	req.AddData(nl.NewRtAttr(netdevADevIfindex, nl.Uint32Attr(uint32(index))))
	answers, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return 0, err
	}
	for _, b := range answers {
		if len(b) < nl.SizeofGenlmsg {
			continue
		}
		attrs, err := nl.ParseRouteAttr(b[nl.SizeofGenlmsg:])
		if err != nil {
			return 0, err
		}
		for _, a := range attrs {
			if a.Attr.Type == netdevADevXDPFeature && len(a.Value) >= 8 {
				return binary.NativeEndian.Uint64(a.Value), nil
			}
		}
	}
	return 0, errors.New("the kernel does not say")
}
