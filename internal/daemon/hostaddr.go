package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hostAddr is a shared address as the kernel of its master holds it: with the
// full prefix length, so that it is never the primary address of a subnet (the
// kernel takes the secondaries away with their primary) and brings no route of
// its own, and without duplicate address detection, which would keep it from
// being used while the old master may still answer.
func hostAddr(a netip.Addr) *netlink.Addr {
	bits := a.BitLen()
	return &netlink.Addr{
		IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, bits)},
		Flags: unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE,
	}
}

// addHostAddrs gives the device those of the addresses that it lacks. To write one
// again would be a change to the kernel, which tells us and the network's routers.
func addHostAddrs(h *netlink.Handle, ifindex int, addrs []netip.Addr) error {
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
	held, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list the addresses of interface %d: %w", ifindex, err)
	}
	has := map[netip.Addr]bool{}
	for _, l := range held {
		if a, ok := netip.AddrFromSlice(l.IP); ok {
			has[a.Unmap()] = true
		}
	}
	var errs []error
	for _, a := range addrs {
		if has[a] {
			continue
		}
		if err := h.AddrAdd(link, hostAddr(a)); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("add %s to interface %d: %w", a, ifindex, err))
		}
	}
	return errors.Join(errs...)
}

// removeHostAddrs takes the addresses from the device; one that is not there is
// no error, nor is a device that is gone.
func removeHostAddrs(h *netlink.Handle, ifindex int, addrs []netip.Addr) error {
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
	var errs []error
	for _, a := range addrs {
		err := h.AddrDel(link, hostAddr(a))
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("remove %s from interface %d: %w", a, ifindex, err))
		}
	}
	return errors.Join(errs...)
}
