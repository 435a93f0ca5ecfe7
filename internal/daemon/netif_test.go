package daemon

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// A question that the kernel does not answer says nothing about the link.
func TestALinkIsDownOnlyWhenTheKernelSaysSo(t *testing.T) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	up, gone := &carpdev{name: "lo", ifindex: lo.Attrs().Index}, &carpdev{name: "nowhere0", ifindex: 1 << 30}
	var devs carpdevs
	devs.Add(up)
	devs.Add(gone)
	f, err := newHostFacts(zap.NewNop(), map[netip.Addr]bool{}, &devs, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	up.SetUp(true)
	gone.SetUp(true)
	f.readLinks()
	if !gone.Down() {
		t.Error("a link that is not there counts as up")
	}

	up.SetUp(true)
	gone.SetUp(true)
	f.handle.Close() // from here on each question needs a socket of its own
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	f.readLinks()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if up.Down() {
		t.Error("a link counts as down that could not be read")
	}
}
