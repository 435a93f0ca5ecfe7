package daemon

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/nstest"
)

// Of several vhids that share an address any one that is MASTER is enough for the
// kernel to have it, and it goes with the last.
func TestTheLastMasterTakesTheSharedAddress(t *testing.T) {
	a, b := nstest.New(t, "a"), nstest.New(t, "b")
	nstest.Veth(t, a, "eth0", b, "eth0")
	addrs := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00:1::1")}
	a.Must(func() error {
		k, err := newKeeper(zap.NewNop(), time.Now)
		if err != nil {
			return err
		}
		defer k.handle.Close()
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		own := func(vhid int, state carp.State) {
			k.Own(fmt.Sprintf("lan/%d", vhid), ifi.Index, addrs, true, state)
		}
		role := func(vhid int, s carp.State) { k.follow([]roleOf{{fmt.Sprintf("lan/%d", vhid), s}}) }
		for _, step := range []struct {
			what string
			do   func()
			has  bool
		}{
			{"three backups", func() { own(1, carp.Backup); own(2, carp.Backup); own(3, carp.Backup) }, false},
			{"one becomes MASTER", func() { role(1, carp.Master) }, true},
			{"another, too", func() { role(2, carp.Master) }, true},
			{"the first yields", func() { role(1, carp.Drain); role(1, carp.Backup) }, true},
			{"one that never was anything is down", func() { role(3, carp.Init) }, true},
			{"and is gone", func() { k.Disown("lan/3") }, true},
			{"the last drains", func() { role(2, carp.Drain) }, true},
			{"and yields", func() { role(2, carp.Backup) }, false},
			{"it is MASTER again, and the other, too", func() { role(2, carp.Master); role(1, carp.Master) }, true},
			{"it goes", func() { k.Disown("lan/2") }, true},
			{"the other goes, too", func() { k.Disown("lan/1") }, false},
		} {
			step.do()
			out := a.Exec("ip", "addr", "show", "dev", "eth0")
			for _, addr := range addrs {
				if got := strings.Contains(out, addr.String()+"/"); got != step.has {
					t.Errorf("%s: the kernel has %s: %v, want %v", step.what, addr, got, step.has)
				}
			}
		}
		if k.trap != nil {
			k.trap.Remove()
			k.trap.Close()
		}
		return nil
	})
}
