package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

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

// listAddrs lists addresses, and again if they changed meanwhile.
func listAddrs(h *netlink.Handle, link netlink.Link, family int) (held []netlink.Addr, err error) {
	for range 10 {
		if held, err = h.AddrList(link, family); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return held, err
}

// addHostAddrs gives the device those of the addresses that it lacks. To write one
// again would be a change to the kernel, which tells us and the network's routers.
func addHostAddrs(h *netlink.Handle, ifindex int, addrs []netip.Addr) error {
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
	held, err := listAddrs(h, link, netlink.FAMILY_ALL)
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
	if len(addrs) == 0 {
		return nil
	}
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
	routes, err := lastRoutes(h, link, addrs)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range addrs {
		err := h.AddrDel(link, hostAddr(a))
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("remove %s from interface %d: %w", a, ifindex, err))
		}
	}
	for i := range routes {
		if err := h.RouteAdd(&routes[i]); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("put back route to %v on interface %d: %w", routes[i].Dst, ifindex, err))
		}
	}
	return errors.Join(errs...)
}

// lastRoutes returns the IPv4 routes that the kernel takes away with these
// addresses: all of the device, when it has no other IPv4 address (fib_disable_ip).
// A carpdev without an own address needs its connected route for good.
func lastRoutes(h *netlink.Handle, link netlink.Link, addrs []netip.Addr) ([]netlink.Route, error) {
	held, err := listAddrs(h, link, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of interface %d: %w", link.Attrs().Index, err)
	}
	goes := func(ip net.IP) bool {
		a, ok := netip.AddrFromSlice(ip)
		return ok && slices.Contains(addrs, a.Unmap())
	}
	if len(held) == 0 || slices.ContainsFunc(held, func(a netlink.Addr) bool { return !goes(a.IP) }) {
		return nil, nil
	}
	all, err := h.RouteListFiltered(netlink.FAMILY_V4,
		&netlink.Route{LinkIndex: link.Attrs().Index, Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list the routes of interface %d: %w", link.Attrs().Index, err)
	}
	all = slices.DeleteFunc(all, func(r netlink.Route) bool {
		return r.Table == unix.RT_TABLE_LOCAL || r.Protocol == unix.RTPROT_KERNEL || goes(r.Src)
	})
	for i := range all {
		all[i].Flags &= int(netlink.FLAG_ONLINK) // the others are what became of it
	}
	slices.SortStableFunc(all, func(a, b netlink.Route) int { return len(a.Gw) - len(b.Gw) }) // a gateway needs a route to it
	return all, nil
}
