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
)

// Listen opens a Carpdev for one vhid alone; closing the conn closes it.
func Listen(ifname string, vhid uint8) (net.PacketConn, error) {
	d, err := OpenCarpdev(ifname)
	if err != nil {
		return nil, err
	}
	c, err := d.Conn(vhid)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return only{c, d}, nil
}

// only is the one ear of a Carpdev.
type only struct {
	net.PacketConn
	dev *Carpdev
}

// Close implements net.PacketConn.
func (o only) Close() error { return errors.Join(o.PacketConn.Close(), o.dev.Close()) }

// advertBuffer is room for two adverts of every vhid, which come at once when one
// master has them all: a frame takes about 1 KiB of it. In bytes.
const advertBuffer = 4 << 20

// tune keeps the kernel from copying every frame that leaves the carpdev for a
// socket that wants none of them, and gives it room for a burst.
func tune(pc *packet.Conn) error {
	raw, err := pc.SyscallConn()
	if err != nil {
		return err
	}
	var opt error
	err = raw.Control(func(fd uintptr) {
		opt = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, advertBuffer),
		)
	})
	return errors.Join(err, opt)
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

// filter passes protocol 112 with one of the vhids. It refuses what this host
// sends (type 4, PACKET_OUTGOING, and the loopback types after it) and frames of
// a VLAN on top of the interface: with their tag taken off by the NIC they look
// like ours. VLAN 0 is no VLAN, but a tag that has a priority alone.
func filter(vhids []uint8) []bpf.Instruction {
	no := bpf.RetConstant{Val: 0}
	const vlanID = 0xfff
	f := []bpf.Instruction{
		/*  0 */ bpf.LoadExtension{Num: bpf.ExtType},
		/*  1 */ bpf.JumpIf{Cond: bpf.JumpLessThan, Val: unix.PACKET_OUTGOING, SkipTrue: 1},
		/*  2 */ no,
		/*  3 */ bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		/*  4 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 3},
		/*  5 */ bpf.LoadExtension{Num: bpf.ExtVLANTag},
		/*  6 */ bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: vlanID, SkipTrue: 1},
		/*  7 */ no,
		/*  8 */ bpf.LoadAbsolute{Off: 12, Size: 2},
		/*  9 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IPV6, SkipTrue: 8},
		/* 10 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipTrue: 1},
		/* 11 */ no,
		/* 12 */ bpf.LoadAbsolute{Off: 14 + 9, Size: 1},
		/* 13 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: 112, SkipTrue: 1},
		/* 14 */ no,
		/* 15 */ bpf.LoadMemShift{Off: 14},
		/* 16 */ bpf.LoadIndirect{Off: 14 + 1, Size: 1},
		/* 17 */ bpf.Jump{Skip: 4},
		/* 18 */ bpf.LoadAbsolute{Off: 14 + 6, Size: 1},
		/* 19 */ bpf.JumpIf{Cond: bpf.JumpEqual, Val: 112, SkipTrue: 1},
		/* 20 */ no,
		/* 21 */ bpf.LoadAbsolute{Off: 14 + 40 + 1, Size: 1},
	}
	for _, v := range vhids {
		f = append(f, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(v), SkipFalse: 1}, bpf.RetConstant{Val: 0xffff})
	}
	return append(f, no)
}
