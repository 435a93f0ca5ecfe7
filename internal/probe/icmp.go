package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Types of ICMP messages, RFC 792 and RFC 4443.
const (
	echoRequest, echoReply   = 8, 0
	echoRequest6, echoReply6 = 128, 129
	echoHeader               = 8 // type, code, checksum, identifier, sequence
)

// ICMP is a wire of echo requests to somebody who is not ours.
type ICMP struct {
	fd   int
	raw  bool // what is read begins with the IPv4 header, and may be anybody's
	six  bool
	id   uint16
	to   unix.Sockaddr
	out  [echoHeader + payloadLen]byte
	in   [128]byte
	want byte // type of an answer
}

// NewICMP opens a wire to an address: an unprivileged socket where the system
// allows one, else a raw one, which needs CAP_NET_RAW.
func NewICMP(to netip.Addr) (*ICMP, error) {
	w := &ICMP{id: uint16(os.Getpid()), want: echoReply, to: &unix.SockaddrInet4{}}
	w.out[0] = echoRequest
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if to.Is6() && !to.Is4In6() {
		zone := 0
		if to.Zone() != "" {
			dev, err := net.InterfaceByName(to.Zone())
			if err != nil {
				return nil, fmt.Errorf("zone %q: %w", to.Zone(), err)
			}
			zone = dev.Index
		}
		family, proto, w.six, w.want = unix.AF_INET6, unix.IPPROTO_ICMPV6, true, echoReply6
		w.out[0] = echoRequest6
		w.to = &unix.SockaddrInet6{Addr: to.As16(), ZoneId: uint32(zone)}
	} else {
		w.to = &unix.SockaddrInet4{Addr: to.Unmap().As4()}
	}
	var err error
	w.fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, proto)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		w.fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
		w.raw = true
	}
	if err != nil {
		return nil, fmt.Errorf("open a socket for ICMP (as root, or with net.ipv4.ping_group_range): %w", err)
	}
	if err := prepare(w.fd); err != nil {
		return nil, errors.Join(err, unix.Close(w.fd))
	}
	binary.BigEndian.PutUint16(w.out[4:], w.id)
	return w, nil
}

// Send implements Wire.
func (w *ICMP) Send(path int, seq uint64) {
	b := w.out[:]
	binary.BigEndian.PutUint16(b[6:], uint16(seq))
	putPayload(b[echoHeader:], path, seq)
	if !w.six { // the kernel fills in that of IPv6
		b[2], b[3] = 0, 0
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	_ = unix.Sendto(w.fd, b, 0, w.to)
}

// checksum is that of RFC 1071, over an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// Receive implements Wire.
func (w *ICMP) Receive() (int, uint64, bool) {
	n, err := unix.Read(w.fd, w.in[:])
	if err != nil {
		return 0, 0, false
	}
	b := w.in[:n]
	if w.raw && !w.six {
		if len(b) < 20 || len(b) < int(b[0]&0xf)*4 {
			return 0, 0, false
		}
		b = b[int(b[0]&0xf)*4:]
	}
	if len(b) < echoHeader || b[0] != w.want || w.raw && binary.BigEndian.Uint16(b[4:]) != w.id {
		return 0, 0, false
	}
	return payload(b[echoHeader:])
}

// Ours implements Wire.
func (w *ICMP) Ours() bool { return false }

// Request implements Wire; there is no far end of ours.
func (w *ICMP) Request() (int, uint64, bool) { return 0, 0, false }

// Reply implements Wire; there is no far end of ours.
func (w *ICMP) Reply() {}

// Close implements Wire.
func (w *ICMP) Close() error { return unix.Close(w.fd) }
