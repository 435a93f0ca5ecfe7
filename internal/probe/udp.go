package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// UDP is a wire of one socket at each end, for IPv4 and IPv6. The near one is
// not connected: an ICMP error must not refuse the next probe.
type UDP struct {
	near, far int // far: -1 if it is not ours
	to        []unix.SockaddrInet6
	out       [][payloadLen]byte // by path, made beforehand
	in        [64]byte

	back    [64]byte // the last request at the far end
	backLen int
	from    unix.Sockaddr
}

// NewUDP opens the near end of a wire to the far ends given, one path each.
func NewUDP(to ...netip.AddrPort) (*UDP, error) {
	u := &UDP{far: -1, out: make([][payloadLen]byte, len(to))}
	for _, a := range to {
		sa := unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()} // IPv4 as ::ffff:a.b.c.d
		u.to = append(u.to, sa)
	}
	var err error
	if u.near, err = dualSocket(); err != nil {
		return nil, fmt.Errorf("open the near end of the probe: %w", err)
	}
	return u, nil
}

// Listen opens the far end, in the calling thread's namespace.
func (u *UDP) Listen(port uint16) error {
	fd, err := dualSocket()
	if err != nil {
		return fmt.Errorf("open the far end of the probe: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{Port: int(port)}); err != nil {
		return errors.Join(fmt.Errorf("listen for probes on port %d: %w", port, err), unix.Close(fd))
	}
	u.far = fd
	return nil
}

// dualSocket opens a socket for both families whose reads return now and then.
func dualSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err == nil {
		err = prepare(fd)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// probeBuffer is room for what comes in while an end stands still for seconds: a probe
// that found no room would be taken for one that the network lost. By default there is
// room for 256 on loopback, 64 ms of two paths, and for fewer that came through XDP.
const probeBuffer = 32 << 20

// prepare limits how long a read waits, so that a listener sees that it is over, and
// makes room for what a late reader finds.
func prepare(fd int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, probeBuffer) != nil {
		// What the system allows an ordinary user is less.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, probeBuffer); err != nil {
			return fmt.Errorf("make room for probes: %w", err)
		}
	}
	tv := unix.NsecToTimeval(int64(100 * time.Millisecond))
	return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

// Send implements Wire.
func (u *UDP) Send(path int, seq uint64) {
	b := u.out[path][:]
	putPayload(b, path, seq)
	_ = unix.Sendto(u.near, b, 0, &u.to[path])
}

// Receive implements Wire.
func (u *UDP) Receive() (int, uint64, bool) {
	n, err := unix.Read(u.near, u.in[:])
	if err != nil {
		return 0, 0, false
	}
	return payload(u.in[:n])
}

// Ours implements Wire.
func (u *UDP) Ours() bool { return u.far >= 0 }

// Request implements Wire.
func (u *UDP) Request() (int, uint64, bool) {
	var err error
	if u.backLen, u.from, err = unix.Recvfrom(u.far, u.back[:], 0); err != nil {
		return 0, 0, false
	}
	return payload(u.back[:u.backLen])
}

// Reply implements Wire.
func (u *UDP) Reply() { _ = unix.Sendto(u.far, u.back[:u.backLen], 0, u.from) }

// Close implements Wire.
func (u *UDP) Close() error {
	err := unix.Close(u.near)
	if u.far >= 0 {
		err = errors.Join(err, unix.Close(u.far))
	}
	return err
}
