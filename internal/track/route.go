package track

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route asks whether the main table has a route for exactly this prefix, unicast,
// over a link that is up; Dev, if given, names that link.
type Route struct {
	Prefix netip.Prefix
	Dev    string
}

// Check implements Probe. A dump of the table of an Internet router takes seconds,
// so a lookup comes first; it fails to find a route behind which there are more
// special ones for the address that was looked up.
func (r Route) Check(context.Context) (Reading, error) {
	oif := 0
	if r.Dev != "" {
		l, err := netlink.LinkByName(r.Dev)
		if err != nil {
			return Reading{}, fmt.Errorf("no interface %s", r.Dev)
		}
		oif = l.Attrs().Index
	}
	for _, a := range r.within() {
		found, err := netlink.RouteGetWithOptions(a.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
		if err != nil {
			continue // no route at all
		}
		for i := range found {
			if r.matches(&found[i], oif) {
				return Reading{}, nil
			}
		}
	}
	found, err := r.dump(oif)
	for range 3 { // a table that changes meanwhile must be read again
		if found || !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
		found, err = r.dump(oif)
	}
	switch {
	case found:
		return Reading{}, nil
	case err != nil:
		return Reading{}, fmt.Errorf("list routes: %w", err)
	case r.Dev != "":
		return Reading{}, fmt.Errorf("no route %s by %s", r.Prefix, r.Dev)
	}
	return Reading{}, fmt.Errorf("no route %s", r.Prefix)
}

// dump looks through the whole main table.
func (r Route) dump(oif int) (found bool, err error) {
	family := netlink.FAMILY_V4
	if r.Prefix.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	err = netlink.RouteListFilteredIter(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE,
		func(k netlink.Route) bool {
			found = found || r.matches(&k, oif)
			return !found
		})
	return found, err
}

// within returns addresses to look up; documentation addresses for a default route
// (RFC 5737, RFC 3849), which nobody has a route of their own for.
func (r Route) within() []netip.Addr {
	switch {
	case r.Prefix.Bits() > 0:
		return []netip.Addr{r.Prefix.Addr()}
	case r.Prefix.Addr().Is4():
		return []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1}), netip.AddrFrom4([4]byte{198, 51, 100, 1})}
	}
	return []netip.Addr{netip.MustParseAddr("2001:db8:ffff::1")}
}

// matches reports whether the kernel's route is the one, and works.
func (r Route) matches(k *netlink.Route, oif int) bool {
	p := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if r.Prefix.Addr().Is6() {
		p = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if k.Dst != nil {
		p = prefix(k.Dst)
	}
	if p != r.Prefix || k.Table != unix.RT_TABLE_MAIN || k.Type != unix.RTN_UNICAST {
		return false
	}
	const dead = unix.RTNH_F_DEAD | unix.RTNH_F_LINKDOWN
	if len(k.MultiPath) == 0 {
		return k.Flags&dead == 0 && (oif == 0 || k.LinkIndex == oif)
	}
	for _, hop := range k.MultiPath {
		if hop.Flags&dead == 0 && (oif == 0 || hop.LinkIndex == oif) {
			return true
		}
	}
	return false
}

func prefix(n *net.IPNet) netip.Prefix {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok {
		return netip.Prefix{}
	}
	if bits == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, ones)
}
