package sync

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketBuffer is what the window and its acks of a few peers need at most; a
// larger burst is a lost frame like any other.
const socketBuffer = 4 << 20

// conn is the link: a UDP socket, or what a test has instead.
type conn struct {
	pc  net.PacketConn
	udp *net.UDPConn // pc, if it is one: without an allocation per frame
}

func wrap(pc net.PacketConn) *conn {
	u, _ := pc.(*net.UDPConn)
	return &conn{pc, u}
}

// open binds the socket to the address and the device, and returns how many
// bytes of UDP payload fit a packet of it.
func open(dev string, local netip.AddrPort) (*conn, int, error) {
	payload := defaultPayload
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, dev)
	}}
	if dev != "" {
		ifi, err := net.InterfaceByName(dev)
		if err != nil {
			return nil, 0, fmt.Errorf("look up sync device %q: %w", dev, err)
		}
		payload = payloadOf(ifi.MTU, local.Addr())
	}
	pc, err := lc.ListenPacket(context.Background(), "udp", local.String())
	if err != nil {
		return nil, 0, fmt.Errorf("open sync socket on %q, %v: %w", dev, local, err)
	}
	return wrap(pc), payload, nil
}

func payloadOf(mtu int, a netip.Addr) int {
	header := 20 + 8
	if !a.Unmap().Is4() {
		header = 40 + 8
	}
	return min(max(mtu-header, 512), 1<<14)
}

func control(c syscall.RawConn, dev string) error {
	var err error
	if cerr := c.Control(func(fd uintptr) {
		if dev != "" {
			if err = unix.BindToDevice(int(fd), dev); err != nil {
				err = fmt.Errorf("bind to device %q: %w", dev, err)
				return
			}
		}
		// Beyond the sysctl's limit with CAP_NET_ADMIN, up to it without.
		for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o[0], socketBuffer) != nil {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o[1], socketBuffer))
			}
		}
	}); cerr != nil {
		return cerr
	}
	return err
}

func (c *conn) readFrom(b []byte) (int, netip.AddrPort, error) {
	if c.udp != nil {
		return c.udp.ReadFromUDPAddrPort(b)
	}
	n, a, err := c.pc.ReadFrom(b)
	if u, ok := a.(*net.UDPAddr); ok {
		return n, u.AddrPort(), err
	}
	return n, netip.AddrPort{}, err
}

func (c *conn) writeTo(b []byte, to netip.AddrPort) (int, error) {
	if c.udp != nil {
		return c.udp.WriteToUDPAddrPort(b, to)
	}
	return c.pc.WriteTo(b, net.UDPAddrFromAddrPort(to))
}

// interrupt ends a read that is waiting.
func (c *conn) interrupt() { _ = c.pc.SetReadDeadline(time.Unix(1, 0)) }

func (c *conn) close() error { return c.pc.Close() }
