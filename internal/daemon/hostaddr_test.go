package daemon

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/xcarp/xcarp/internal/nstest"
)

// TestTheLastAddressLeavesTheRoutes: without an own address on the carpdev the
// kernel would take its routes away with the shared one.
func TestTheLastAddressLeavesTheRoutes(t *testing.T) {
	a, b := nstest.New(t, "a"), nstest.New(t, "b")
	nstest.Veth(t, a, "eth0", b, "eth0")
	a.Exec("ip", "route", "add", "10.0.0.0/24", "dev", "eth0")
	a.Exec("ip", "route", "add", "default", "via", "10.0.0.254", "dev", "eth0", "metric", "7")
	a.Exec("ip", "route", "add", "10.9.0.0/24", "via", "10.0.0.9", "table", "99")
	before := a.Exec("ip", "route", "show", "table", "all", "dev", "eth0", "type", "unicast")
	addrs := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00:1::1")}
	a.Must(func() error {
		h, err := netlink.NewHandle(unixNetlinkRoute)
		if err != nil {
			return err
		}
		defer h.Close()
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		if err := addHostAddrs(h, ifi.Index, addrs); err != nil {
			return err
		}
		if out := a.Exec("ip", "addr", "show", "dev", "eth0"); !strings.Contains(out, "10.0.0.1/32") {
			t.Errorf("not added:\n%s", out)
		}
		return removeHostAddrs(h, ifi.Index, addrs)
	})
	if out := a.Exec("ip", "addr", "show", "dev", "eth0"); strings.Contains(out, "10.0.0.1") {
		t.Errorf("not removed:\n%s", out)
	}
	if after := a.Exec("ip", "route", "show", "table", "all", "dev", "eth0", "type", "unicast"); after != before {
		t.Errorf("routes after the shared address is gone:\n%s\nwant\n%s", after, before)
	}
}
