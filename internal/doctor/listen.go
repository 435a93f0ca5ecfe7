package doctor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
)

// Heard is what was said on an interface while we listened.
type Heard struct {
	Routers  map[netip.Addr]Router // who says that he is a router, by source
	Speakers map[Speaker]int       // of protocol 112: adverts of each
}

// Router is the sender of router advertisements.
type Router struct {
	Lifetime time.Duration // for how long hosts are to use it; 0: not at all
}

// Speaker is a sender of CARP or VRRP.
type Speaker struct {
	From     netip.Addr
	VHID     uint8  // or virtual router id
	Protocol string // CARP, VRRPv2, VRRPv3
}

// heardMax bounds what somebody who makes up addresses can have us remember.
const heardMax = 256

const (
	icmpRouterSolicitation  = 133
	icmpRouterAdvertisement = 134
)

// interesting lets router advertisements and protocol 112 pass, and nothing else:
// a busy interface must not be copied to a process that counts adverts. The offsets
// are those behind an Ethernet header.
var interesting = []bpf.Instruction{
	0:  bpf.LoadAbsolute{Off: 12, Size: 2},
	1:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x0800, SkipTrue: 1},
	2:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x86dd, SkipTrue: 2, SkipFalse: 6},
	3:  bpf.LoadAbsolute{Off: 14 + 9, Size: 1}, // IPv4: the protocol
	4:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: 112, SkipTrue: 5, SkipFalse: 4},
	5:  bpf.LoadAbsolute{Off: 14 + 6, Size: 1}, // IPv6: the next header
	6:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: 112, SkipTrue: 3},
	7:  bpf.LoadAbsolute{Off: 14 + 40, Size: 1}, // ICMPv6: the type
	8:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: icmpRouterAdvertisement, SkipTrue: 1},
	9:  bpf.RetConstant{Val: 0},
	10: bpf.RetConstant{Val: 256},
}

// Listen hears what is said on the interfaces for the given time, and asks routers
// to speak. It needs CAP_NET_RAW. An interface that cannot be listened to is in the
// error and not in the result.
func Listen(ctx context.Context, devs []string, d time.Duration) (map[string]Heard, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
		all  = map[string]Heard{}
	)
	for _, dev := range slices.Compact(slices.Sorted(slices.Values(devs))) {
		conn, err := open(dev)
		if err != nil {
			errs = append(errs, fmt.Errorf("listen on %s: %w", dev, err))
			continue
		}
		wg.Go(func() {
			h, err := hear(ctx, conn)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("listen on %s: %w", dev, err))
				return
			}
			all[dev] = h
		})
		_ = solicit(dev) // without a link-local address there is nobody to be told
	}
	wg.Wait()
	return all, errors.Join(errs...)
}

// open listens to all protocols: only so does a socket get what this machine sends.
// A NIC filters multicast that nobody has joined, such as the adverts of others
// before a daemon runs here; so it is asked for all, until the socket is closed.
func open(dev string) (*packet.Conn, error) {
	ifi, err := net.InterfaceByName(dev)
	if err != nil {
		return nil, err
	}
	filter, err := bpf.Assemble(interesting)
	if err != nil {
		return nil, err
	}
	c, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: filter})
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err == nil {
		all := unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_ALLMULTI}
		err = errors.Join(raw.Control(func(fd uintptr) {
			err = unix.SetsockoptPacketMreq(int(fd), unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &all)
		}), err)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// hear reads until the context ends, and closes the connection.
func hear(ctx context.Context, conn *packet.Conn) (Heard, error) {
	defer conn.Close()
	h := Heard{Routers: map[netip.Addr]Router{}, Speakers: map[Speaker]int{}}
	if at, ok := ctx.Deadline(); ok {
		if err := conn.SetReadDeadline(at); err != nil {
			return h, err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	defer stop()
	b := make([]byte, 256)
	for {
		n, _, err := conn.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return h, nil
		}
		if err != nil {
			return h, err
		}
		h.note(b[:n])
	}
}

// note takes one frame.
func (h *Heard) note(b []byte) {
	if len(b) >= 14+40+16 && binary.BigEndian.Uint16(b[12:]) == 0x86dd && b[14+6] == 58 && b[14+40] == icmpRouterAdvertisement {
		from, _ := netip.AddrFromSlice(b[14+8 : 14+24])
		if len(h.Routers) >= heardMax {
			return
		}
		h.Routers[from] = Router{Lifetime: time.Duration(binary.BigEndian.Uint16(b[14+40+6:])) * time.Second}
		return
	}
	r, why := carp.ParseFrame(b)
	s := Speaker{From: r.From, VHID: r.VHID, Protocol: "CARP"}
	switch {
	case why == carp.DropVersion && r.VRRP():
		s.VHID, s.Protocol = r.Payload[1], fmt.Sprintf("VRRPv%d", r.Payload[0]>>4)
	case why != carp.Accepted:
		return
	}
	if _, known := h.Speakers[s]; known || len(h.Speakers) < heardMax {
		h.Speakers[s]++
	}
}

// solicit asks the routers of a link to advertise themselves: RFC 4861, section 4.1.
func solicit(dev string) error {
	ifi, err := net.InterfaceByName(dev)
	if err != nil {
		return err
	}
	c, err := net.ListenPacket("ip6:ipv6-icmp", "::%"+dev)
	if err != nil {
		return err
	}
	defer c.Close()
	p := ipv6.NewPacketConn(c)
	if err := errors.Join(p.SetMulticastHopLimit(255), p.SetMulticastInterface(ifi)); err != nil {
		return err
	}
	rs := []byte{icmpRouterSolicitation, 0, 0, 0, 0, 0, 0, 0} // the kernel fills in the checksum
	_, err = c.WriteTo(rs, &net.IPAddr{IP: net.IPv6linklocalallrouters, Zone: dev})
	return err
}
