package loader

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// Renew, and not Open, pays for the verifier, and only where the programs are of
// another build; afterwards they are new.
func TestRenewReplacesThePrograms(t *testing.T) {
	for name, o := range map[string]Options{"tcx": {}, "clsact": {clsact: true}} {
		t.Run(name, func(t *testing.T) { testRenew(t, o) })
	}
}

func testRenew(t *testing.T, o Options) {
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
	p := l.open(t, o)
	first, shielding := program(), p.Shielding()
	again := func() {
		t.Helper()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		p = l.open(t, o)
		if got := program(); got != first {
			t.Errorf("Open replaced program %d by %d", first, got)
		}
		l.node.Must(p.Renew)
		if got := p.Shielding(); got != shielding {
			t.Errorf("after Renew the shield is %q, was %q", got, shielding)
		}
	}
	again()
	if got := program(); got != first {
		t.Errorf("Renew replaced program %d of the same build by %d", first, got)
	}
	if err := p.maps.updatePort(func(port *xdpPort) { port.Programs[1]++ }); err != nil {
		t.Fatal(err)
	}
	again()
	if got := program(); got == first {
		t.Errorf("Renew left program %d of another build", first)
	}
	first = program()
	l.node.Must(p.Renew)
	again()
	if got := program(); got != first {
		t.Errorf("Renew replaced program %d again, by %d", first, got)
	}
	// Another version, which knows nothing of signatures, puts its own program there.
	var other xdpObjects
	if err := loadXdpObjects(&other, nil); err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, l := range p.links {
		if info, err := l.Info(); err == nil && info.XDP() != nil {
			if err := l.Update(other.CarpXdp); err != nil {
				t.Fatal(err)
			}
		}
	}
	first = program()
	again()
	if got := program(); got == first {
		t.Errorf("Renew left program %d, which another version attached", first)
	}
}
