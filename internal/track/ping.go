package track

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Ping asks whether an address answers an ICMP or ICMPv6 echo request (RFC 792,
// RFC 4443). Request and answer carry a number of their own, so that nobody
// answers who did not see the request.
type Ping struct {
	Addr netip.Addr
	Dev  string // empty: where the routes lead
}

// Check implements Probe.
func (p Ping) Check(ctx context.Context) (Reading, error) {
	network, protocol := "ip4:icmp", 1
	var request, answer icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if p.Addr.Is6() {
		network, protocol = "ip6:ipv6-icmp", 58
		request, answer = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error { return errors.Join(onlyEchoReply(fd, protocol), bindTo(fd, p.Dev)) })
	}}
	c, err := d.DialContext(ctx, network, zoned(p.Addr, p.Dev).String())
	if err != nil {
		return Reading{}, fmt.Errorf("ping %s: %w", p.Addr, cause(err))
	}
	defer c.Close()
	conn := c.(*net.IPConn)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	var secret [16]byte
	_, _ = rand.Read(secret[:]) // never fails
	echo := &icmp.Echo{ID: int(binary.BigEndian.Uint16(secret[:])), Seq: 1, Data: secret[2:]}
	b, err := (&icmp.Message{Type: request, Body: echo}).Marshal(nil) // the kernel adds the checksum of ICMPv6
	if err != nil {
		return Reading{}, fmt.Errorf("ping %s: %w", p.Addr, err)
	}
	begun := time.Now()
	if _, err := conn.Write(b); err != nil {
		return Reading{}, fmt.Errorf("ping %s: %w", p.Addr, cause(err))
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := conn.ReadFromIP(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return Reading{}, fmt.Errorf("no answer from %s within %v", p.Addr, time.Since(begun).Round(time.Millisecond))
		}
		if err != nil {
			return Reading{}, fmt.Errorf("ping %s: %w", p.Addr, cause(err))
		}
		m, err := icmp.ParseMessage(protocol, buf[:n])
		if err != nil || m.Type != answer {
			continue
		}
		if e, ok := m.Body.(*icmp.Echo); ok && e.ID == echo.ID && e.Seq == echo.Seq && bytes.Equal(e.Data, echo.Data) {
			return Reading{RTT: time.Since(begun)}, nil
		}
	}
}

// onlyEchoReply keeps the router's other ICMP traffic out of the socket.
func onlyEchoReply(fd, protocol int) error {
	if protocol == 1 {
		return unix.SetsockoptInt(fd, unix.SOL_RAW, 1 /* ICMP_FILTER */, int(^uint32(1)))
	}
	f := unix.ICMPv6Filter{}
	for i := range f.Data {
		f.Data[i] = 0xffffffff // blocked, linux/icmpv6.h
	}
	const reply = 129
	f.Data[reply/32] &^= 1 << (reply % 32)
	return unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, 1 /* ICMPV6_FILTER */, &f)
}

func bindTo(fd int, dev string) error {
	if dev == "" {
		return nil
	}
	return unix.BindToDevice(fd, dev)
}

// control runs f on the descriptor of a socket that is being opened.
func control(c syscall.RawConn, f func(fd int) error) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}

// zoned gives a link-local address its link.
func zoned(a netip.Addr, dev string) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return a.WithZone(dev)
	}
	return a
}

// cause is what the kernel said, without the addresses that net puts before it.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
