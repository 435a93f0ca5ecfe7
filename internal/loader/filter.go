package loader

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// vmac is the virtual MAC of a vhid, as VRRP's: RFC 5798 section 7.3.
func vmac(vhid uint8) net.HardwareAddr {
	return net.HardwareAddr{0x00, 0x00, 0x5e, 0x00, 0x01, vhid}
}

// solicitedNode is the MAC of the multicast group that hears solicitations for the
// address: RFC 4291 section 2.7.1 and RFC 2464 section 7.
func solicitedNode(a netip.Addr) net.HardwareAddr {
	b := a.As16()
	return net.HardwareAddr{0x33, 0x33, 0xff, b[13], b[14], b[15]}
}

func filterEntry(index int, mac net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex:    index,
		Family:       unix.AF_BRIDGE,
		State:        netlink.NUD_PERMANENT,
		Flags:        netlink.NTF_SELF,
		HardwareAddr: mac,
	}
}

// admit has the device accept frames for the MAC. The entry outlives the process,
// as the role does. A device without such a filter is made promiscuous.
func (p *Port) admit(mac net.HardwareAddr) error {
	err := p.nl.NeighAdd(filterEntry(p.index, mac))
	if err == nil || errors.Is(err, unix.EEXIST) {
		return nil
	}
	p.log.Warn("device has no address filter, making it promiscuous", zap.Stringer("mac", mac), zap.Error(err))
	dev, err := p.nl.LinkByIndex(p.index)
	if err != nil {
		return err
	}
	if dev.Attrs().RawFlags&unix.IFF_PROMISC != 0 {
		return nil
	}
	if err := p.nl.SetPromiscOn(dev); err != nil {
		return fmt.Errorf("make promiscuous: %w", err)
	}
	return p.maps.updatePort(func(port *xdpPort) { port.Flags |= xdpPortFlagPORT_PROMISC })
}

// unadmit takes the MAC out of the device's filter, if it is there.
func unadmit(nl *netlink.Handle, index int, mac net.HardwareAddr) error {
	err := nl.NeighDel(filterEntry(index, mac))
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return fmt.Errorf("remove %s from the device's filter: %w", mac, err)
}
