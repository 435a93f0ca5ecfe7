package config

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// System is what Check needs to know about a machine: a network namespace, to
// be exact.
type System struct {
	EUID       int
	Forward4   bool // net.ipv4.ip_forward
	Forward6   bool // net.ipv6.conf.all.forwarding
	Interfaces []Interface
	Programs   bool // whether users and files can be looked up
}

// Interface is one network interface.
type Interface struct {
	Name      string
	Kind      string // as netlink names it: device, veth, bridge, vlan, …
	Ethernet  bool   // frames have MAC addresses
	Loopback  bool
	Up        bool // administratively
	MTU       int  // bytes
	Addresses []netip.Prefix
	Routes    []netip.Prefix // connected ones: without a gateway
}

// Facts reads the System of the network namespace that the calling thread is in.
func Facts() (System, error) {
	sys := System{EUID: os.Geteuid(), Programs: true}
	var err error
	if sys.Forward4, err = sysctl("net/ipv4/ip_forward"); err != nil {
		return sys, err
	}
	if sys.Forward6, err = sysctl("net/ipv6/conf/all/forwarding"); err != nil {
		return sys, err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return sys, fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return sys, fmt.Errorf("list interfaces: %w", err)
	}
	at := map[int]int{} // interface index → position
	for _, l := range links {
		a := l.Attrs()
		at[a.Index] = len(sys.Interfaces)
		sys.Interfaces = append(sys.Interfaces, Interface{
			Name:     a.Name,
			Kind:     l.Type(),
			Ethernet: a.EncapType == "ether",
			Loopback: a.Flags&net.FlagLoopback != 0,
			Up:       a.Flags&net.FlagUp != 0,
			MTU:      a.MTU,
		})
	}
	addrs, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return sys, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := prefix(a.IPNet); ok {
			if i, ok := at[a.LinkIndex]; ok {
				sys.Interfaces[i].Addresses = append(sys.Interfaces[i].Addresses, p)
			}
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return sys, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			p, ok := prefix(r.Dst)
			if !ok || r.Gw != nil || r.Via != nil || len(r.MultiPath) > 0 || r.Type != unix.RTN_UNICAST {
				continue
			}
			if i, ok := at[r.LinkIndex]; ok {
				sys.Interfaces[i].Routes = append(sys.Interfaces[i].Routes, p)
			}
		}
	}
	return sys, nil
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, false
	}
	if bits == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, ones), true
}

// sysctl reads whether a switch below /proc/sys is on. One that the kernel does
// not have (no IPv6) is off.
func sysctl(key string) (bool, error) {
	b, err := os.ReadFile("/proc/sys/" + key)
	if os.IsNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read sysctl %s: %w", key, err)
	}
	return !bytes.Equal(bytes.TrimSpace(b), []byte("0")), nil
}
