package daemon

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/nstest"
)

// An address that moves from one group to another of the same carpdev never leaves
// the kernel: the flows that are masqueraded behind it would go with it.
func TestAnAddressThatMovesStays(t *testing.T) {
	a, b := nstest.New(t, "a"), nstest.New(t, "b")
	nstest.Veth(t, a, "eth0", b, "eth0")
	a.Addr("eth0", "10.0.0.2/24")
	one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.9")
	for _, tt := range []struct {
		name string
		gone func(k *keeper, ifindex int)
	}{
		{"its group has another one", func(k *keeper, ifindex int) { k.Own("old", ifindex, []netip.Addr{two}, true, carp.Master) }},
		{"its group has gone", func(k *keeper, ifindex int) { k.Disown("old") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var k *keeper
			var ifindex int
			a.Must(func() error {
				ifi, err := net.InterfaceByName("eth0")
				if err != nil {
					return err
				}
				ifindex = ifi.Index
				k, err = newKeeper(zap.NewNop(), time.Now)
				return err
			})
			t.Cleanup(func() { k.handle.Close() })
			k.Own("old", ifindex, []netip.Addr{one}, true, carp.Master)
			k.locked(func() { k.settle([]string{"old"}) })
			monitor := a.Exec("ip", "-o", "addr", "show", "dev", "eth0", "to", "10.0.0.1")
			if !strings.Contains(monitor, "10.0.0.1/32") {
				t.Fatalf("the address was not added: %s", monitor)
			}
			k.Own("new", ifindex, []netip.Addr{one}, true, carp.Master)
			tt.gone(k, ifindex)
			if out := a.Exec("ip", "-o", "addr", "show", "dev", "eth0", "to", "10.0.0.1"); out != monitor {
				t.Errorf("the address is %q, want %q", out, monitor)
			}
			k.Disown("new")
			k.Disown("old")
			if out := a.Exec("ip", "-o", "addr", "show", "dev", "eth0"); strings.Contains(out, "10.0.0.1/") || strings.Contains(out, "10.0.0.9/") {
				t.Errorf("nobody has the addresses, and they are there: %s", out)
			}
		})
	}
}
