package loader

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// Renew, and not Open, pays for the verifier; afterwards the programs are new.
func TestRenewReplacesThePrograms(t *testing.T) {
	l := newLAN(t)
	program := func() uint32 {
		var id uint32
		l.node.Must(func() error {
			dev, err := netlink.LinkByName(nodeDev)
			if err == nil {
				id = dev.Attrs().Xdp.ProgId
			}
			return err
		})
		return id
	}
	if err := l.open(t, Options{}).Close(); err != nil {
		t.Fatal(err)
	}
	first := program()
	p := l.open(t, Options{})
	if got := program(); got != first {
		t.Errorf("Open replaced program %d by %d", first, got)
	}
	for range 2 {
		l.node.Must(p.Renew)
		if got := program(); got == first {
			t.Errorf("Renew left program %d", first)
		}
	}
}
