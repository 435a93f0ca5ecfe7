package loader

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

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
	err := listed(p.nl, p.ioctl, p.index, mac, true)
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
func unadmit(nl *netlink.Handle, ioctl socket, index int, mac net.HardwareAddr) error {
	err := listed(nl, ioctl, index, mac, false)
	for _, none := range []error{nil, unix.ENOENT, unix.EOPNOTSUPP, unix.EINVAL, unix.ENODEV} {
		if errors.Is(err, none) {
			return nil
		}
	}
	return fmt.Errorf("remove %s from the device's filter: %w", mac, err)
}

// listed puts the MAC onto the device's list or takes it off. The list counts how
// often a multicast one is on it, for the kernel's own memberships are there, too.
// Only the call for `ip maddr` counts ours apart from them: by netlink one that is
// there already could not be added, and one of the kernel's would be taken off.
func listed(nl *netlink.Handle, ioctl socket, index int, mac net.HardwareAddr, yes bool) error {
	if mac[0]&1 == 0 {
		if yes {
			return nl.NeighAdd(filterEntry(index, mac))
		}
		return nl.NeighDel(filterEntry(index, mac))
	}
	dev, err := nl.LinkByIndex(index)
	if err != nil {
		return unix.ENODEV
	}
	call := uint(unix.SIOCDELMULTI)
	if yes {
		call = unix.SIOCADDMULTI
	}
	var r struct { // ifreq
		name   [unix.IFNAMSIZ]byte
		family uint16 // AF_UNSPEC
		mac    [22]byte
	}
	copy(r.name[:unix.IFNAMSIZ-1], dev.Attrs().Name)
	copy(r.mac[:], mac)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(ioctl), uintptr(call), uintptr(unsafe.Pointer(&r))); errno != 0 {
		return errno
	}
	return nil
}

// socket is one for calls about interfaces, of the network namespace in which it was
// opened; 0 is none.
type socket int

func openSocket() (socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	return socket(fd), nil
}

// Close implements io.Closer.
func (s socket) Close() error { return unix.Close(int(s)) }
