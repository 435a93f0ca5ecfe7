package group

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/xcarp/xcarp/internal/nstest"
)

// A group may be about to join what another one's end has closed.
func TestAClosedCarpdevTakesNobodyIn(t *testing.T) {
	a, b := nstest.New(t, "a"), nstest.New(t, "b")
	nstest.Veth(t, a, "eth0", b, "eth0")
	a.Must(func() error {
		d, err := OpenCarpdev("eth0")
		if err != nil {
			return err
		}
		if err := d.Close(); err != nil {
			return err
		}
		for what, err := range map[string]error{
			"absorb IPv4": d.Absorb(true),
			"absorb IPv6": d.Absorb(false),
			"join":        d.Join(netip.MustParseAddr("224.0.0.99")),
		} {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: got %v, want %v", what, err, net.ErrClosed)
			}
		}
		return nil
	})
}
