package loader

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/nstest"
)

func TestSetGroupKeepsTheRole(t *testing.T) {
	l := newLAN(t)
	p := l.open(t, Options{})
	l.set(t, carp.Master, time.Minute)
	want := p.Role(testVHID)
	second := netip.MustParseAddr("10.0.0.3")
	for range 2 {
		if err := p.SetGroup(testVHID, []netip.Addr{second, shared6}); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.Role(testVHID); got != want {
		t.Errorf("role: got %+v, want %+v", got, want)
	}
	vm := vmac(testVHID).String()
	if mac := l.resolve(t, second, 3*time.Second); mac != vm {
		t.Errorf("client learned %q for the new address, want %s", mac, vm)
	}
	if mac := l.resolve(t, shared4, 300*time.Millisecond); mac != "" {
		t.Errorf("client learned %s for the address that is no longer shared", mac)
	}
	// The address moves to a group that is not master, and back.
	if err := p.SetGroup(otherVHID, []netip.Addr{second}); err != nil {
		t.Fatal(err)
	}
	if mac := l.resolve(t, second, 300*time.Millisecond); mac != "" {
		t.Errorf("client learned %s for the address that moved to a backup", mac)
	}
	if err := errors.Join(p.DeleteGroup(otherVHID), p.SetGroup(testVHID, []netip.Addr{second, shared6})); err != nil {
		t.Fatal(err)
	}
	if err := p.DeleteGroup(testVHID); err != nil {
		t.Fatal(err)
	}
	if got := p.Role(testVHID); got.State != carp.Init {
		t.Errorf("role of a deleted group: %v", got.State)
	}
	if mac := l.resolve(t, second, 300*time.Millisecond); mac != "" {
		t.Errorf("client learned %s for an address of a deleted group", mac)
	}
}

// Two addresses may share a solicited-node group: it goes with the last of them.
func TestDeviceFilterFollowsTheGroups(t *testing.T) {
	nstest.RequireRoot(t)
	requirePrograms(t, "bridge")
	l := newLAN(t)
	p := l.open(t, Options{})
	twin := netip.MustParseAddr("2001:db8:1::1:2345")
	filter := func() string {
		return l.node.Exec("bridge", "fdb", "show", "dev", nodeDev)
	}
	vm, group := vmac(testVHID).String(), solicitedNode(shared6).String()
	for _, step := range []struct {
		addrs     []netip.Addr
		vm, group bool
	}{
		{[]netip.Addr{shared4}, true, false},
		{[]netip.Addr{shared6, twin}, true, true},
		{[]netip.Addr{twin}, true, true},
		{nil, true, false},
	} {
		if err := p.SetGroup(testVHID, step.addrs); err != nil {
			t.Fatal(err)
		}
		f := filter()
		if strings.Contains(f, vm) != step.vm || strings.Contains(f, group) != step.group {
			t.Errorf("with %v the filter is\n%swant %s %t, %s %t", step.addrs, f, vm, step.vm, group, step.group)
		}
	}
	if err := p.DeleteGroup(testVHID); err != nil {
		t.Fatal(err)
	}
	if f := filter(); strings.Contains(f, vm) {
		t.Errorf("after the group was deleted the filter is\n%s", f)
	}
}
