package track

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// TCP asks whether a connection is accepted. It is closed at once.
type TCP struct {
	Addr netip.AddrPort
	Dev  string // empty: where the routes lead
}

// Check implements Probe.
func (p TCP) Check(ctx context.Context) (Reading, error) {
	d := net.Dialer{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error { return bindTo(fd, p.Dev) })
	}}
	begun := time.Now()
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(zoned(p.Addr.Addr(), p.Dev), p.Addr.Port()).String())
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return Reading{}, fmt.Errorf("no answer from %s within %v", p.Addr, time.Since(begun).Round(time.Millisecond))
	case err != nil:
		return Reading{}, fmt.Errorf("connect to %s: %w", p.Addr, cause(err))
	}
	rtt := time.Since(begun)
	c.Close()
	return Reading{RTT: rtt}, nil
}
