package track

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// ARP asks whether a neighbour answers an ARP request (RFC 826), which also those
// do that answer no ping. The request names an own address of the interface, never
// a shared one, or none (RFC 5227).
type ARP struct {
	Addr netip.Addr // IPv4
	Dev  string
}

// An ARP frame, offsets in bytes:
//
//	 0 destination   6 source   12 0x0806
//	14 htype  16 ptype  18 hlen, plen  20 operation
//	22 sender MAC  28 sender IP  32 target MAC  38 target IP
const arpLen = 42

// Check implements Probe.
func (p ARP) Check(ctx context.Context) (Reading, error) {
	i, err := net.InterfaceByName(p.Dev)
	if err != nil {
		return Reading{}, fmt.Errorf("no interface %s", p.Dev)
	}
	if len(i.HardwareAddr) != 6 {
		return Reading{}, fmt.Errorf("%s is not an Ethernet interface", p.Dev)
	}
	conn, err := packet.Listen(i, packet.Raw, unix.ETH_P_ARP, nil)
	if err != nil {
		return Reading{}, fmt.Errorf("arp on %s: %w", p.Dev, cause(err))
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	begun := time.Now()
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if _, err := conn.WriteTo(p.request(i), &packet.Addr{HardwareAddr: broadcast}); err != nil {
		return Reading{}, fmt.Errorf("arp on %s: %w", p.Dev, cause(err))
	}
	buf := make([]byte, 1600)
	for {
		n, _, err := conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return Reading{}, fmt.Errorf("no answer from %s on %s within %v", p.Addr, p.Dev, time.Since(begun).Round(time.Millisecond))
		}
		if err != nil {
			return Reading{}, fmt.Errorf("arp on %s: %w", p.Dev, cause(err))
		}
		if p.answers(buf[:n], i.HardwareAddr) {
			return Reading{RTT: time.Since(begun)}, nil
		}
	}
}

// request is the question from the interface.
func (p ARP) request(i *net.Interface) []byte {
	sender := netip.IPv4Unspecified()
	addrs, _ := i.Addrs() // without one it is an ARP probe
	for _, a := range addrs {
		own, err := netip.ParsePrefix(a.String())
		if err == nil && own.Bits() < 32 && own.Contains(p.Addr) { // shared addresses are /32
			sender = own.Addr()
			break
		}
	}
	b := bytes.Repeat([]byte{0xff}, 6)
	b = append(b, i.HardwareAddr...)
	b = append(b, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
	b = append(b, i.HardwareAddr...)
	b = append(b, sender.AsSlice()...)
	b = append(b, make([]byte, 6)...)
	return append(b, p.Addr.AsSlice()...)
}

// answers reports whether the frame is the neighbour's answer to us.
func (p ARP) answers(b []byte, own net.HardwareAddr) bool {
	return len(b) >= arpLen &&
		binary.BigEndian.Uint16(b[20:]) == 2 &&
		bytes.Equal(b[28:32], p.Addr.AsSlice()) &&
		bytes.Equal(b[32:38], own)
}
