package group

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
)

// conn is a packet socket with the memberships that keep the adverts coming.
type conn struct {
	*packet.Conn
	members []io.Closer
}

// Listen opens a packet socket for the adverts of one vhid on an interface. It
// joins the groups of both families: at the NIC, whose filter drops others,
// and by IGMP and MLD, or a snooping switch keeps them from us.
func Listen(ifname string, vhid uint8) (net.PacketConn, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("listen for adverts on %q: %w", ifname, err)
	}
	filter, err := bpf.Assemble(filter(vhid))
	if err != nil {
		return nil, fmt.Errorf("assemble the filter for vhid %d: %w", vhid, err)
	}
	pc, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: filter})
	if err != nil {
		return nil, fmt.Errorf("listen for adverts on %q: %w", ifname, err)
	}
	c := &conn{Conn: pc}
	if err := ignoreOutgoing(pc); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for adverts on %q: %w", ifname, err), c.Close())
	}
	for _, mac := range []carp.MAC{carp.GroupMAC4, carp.GroupMAC6} {
		if err := pc.JoinGroup(mac[:]); err != nil {
			return nil, errors.Join(fmt.Errorf("join %v on %q: %w", net.HardwareAddr(mac[:]), ifname, err), c.Close())
		}
	}
	for _, g := range []netip.Addr{carp.Group4, carp.Group6} {
		m, err := join(ifi.Index, g)
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.ENODEV) {
			continue // a kernel or an interface without IPv6
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("join %v on %q: %w", g, ifname, err), c.Close())
		}
		c.members = append(c.members, m)
	}
	return c, nil
}

// ignoreOutgoing keeps the kernel from copying every frame that leaves the carpdev
// for a socket that wants none of them.
func ignoreOutgoing(pc *packet.Conn) error {
	raw, err := pc.SyscallConn()
	if err != nil {
		return err
	}
	var opt error
	err = raw.Control(func(fd uintptr) {
		opt = unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	})
	return errors.Join(err, opt)
}

// Close closes the socket and leaves the groups.
func (c *conn) Close() error {
	return errors.Join(c.Conn.Close(), members(c.members).Close())
}

// JoinAddrs joins the solicited-node groups of the IPv6 addresses on an
// interface, so that solicitations for them reach this node. Close leaves.
func JoinAddrs(ifname string, addrs []netip.Addr) (io.Closer, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("join solicited-node groups on %q: %w", ifname, err)
	}
	var ms members
	for _, a := range addrs {
		if !a.Is6() || a.Is4In6() {
			continue
		}
		g := solicitedNode(a)
		m, err := join(ifi.Index, g)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("join %v on %q: %w", g, ifname, err), ms.Close())
		}
		ms = append(ms, m)
	}
	return ms, nil
}

// solicitedNode returns ff02::1:ffXX:XXXX of an address: RFC 4291, section 2.7.1.
func solicitedNode(a netip.Addr) netip.Addr {
	v := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: v[13], 14: v[14], 15: v[15]})
}

// members are memberships that end with their sockets.
type members []io.Closer

// Close leaves all groups.
func (ms members) Close() error {
	var errs []error
	for _, m := range ms {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// fd is a socket that is held for its membership and never read.
type fd int

// Close implements io.Closer.
func (f fd) Close() error { return unix.Close(int(f)) }

// join joins a multicast group on an interface, also on one without addresses.
func join(ifindex int, g netip.Addr) (io.Closer, error) {
	family := unix.AF_INET6
	if g.Is4() {
		family = unix.AF_INET
	}
	s, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	if g.Is4() {
		err = unix.SetsockoptIPMreqn(s, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP,
			&unix.IPMreqn{Multiaddr: g.As4(), Ifindex: int32(ifindex)})
	} else {
		err = unix.SetsockoptIPv6Mreq(s, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
			&unix.IPv6Mreq{Multiaddr: g.As16(), Interface: uint32(ifindex)})
	}
	if err != nil {
		return nil, errors.Join(err, fd(s).Close())
	}
	return fd(s), nil
}

// filter passes protocol 112 with the vhid. It refuses what this host sends
// (type 4, PACKET_OUTGOING, and the loopback types after it) and frames of a
// VLAN on top of the interface: with their tag taken off by the NIC they look
// like ours.
func filter(vhid uint8) []bpf.Instruction {
	return []bpf.Instruction{
		/*  0 */ bpf.LoadExtension{Num: bpf.ExtType},
		/*  1 */ bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 14},
		/*  2 */ bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		/*  3 */ bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 12},
		/*  4 */ bpf.LoadAbsolute{Off: 12, Size: 2},
		/*  5 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IPV6, SkipTrue: 6},
		/*  6 */ bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 9},
		/*  7 */ bpf.LoadAbsolute{Off: 23, Size: 1},
		/*  8 */ bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 112, SkipTrue: 7},
		/*  9 */ bpf.LoadMemShift{Off: 14},
		/* 10 */ bpf.LoadIndirect{Off: 14 + 1, Size: 1},
		/* 11 */ bpf.Jump{Skip: 3},
		/* 12 */ bpf.LoadAbsolute{Off: 20, Size: 1},
		/* 13 */ bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 112, SkipTrue: 2},
		/* 14 */ bpf.LoadAbsolute{Off: 14 + 40 + 1, Size: 1},
		/* 15 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(vhid), SkipTrue: 1},
		/* 16 */ bpf.RetConstant{Val: 0},
		/* 17 */ bpf.RetConstant{Val: 0xffff},
	}
}
