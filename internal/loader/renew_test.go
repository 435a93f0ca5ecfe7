package loader

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
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
	// Another version, which knows nothing of signatures, replaces one of the programs.
	var other struct {
		xdp     xdpObjects
		egress  egressObjects
		ingress ingressObjects
	}
	for _, err := range []error{loadXdpObjects(&other.xdp, nil), loadEgressObjects(&other.egress, nil), loadIngressObjects(&other.ingress, nil)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	defer other.xdp.Close()
	defer other.egress.Close()
	defer other.ingress.Close()
	for _, r := range []struct {
		pin  string
		prog *ebpf.Program
	}{{pinXDP, other.xdp.CarpXdp}, {pinEgress, other.egress.CarpEgress}, {pinIngress, other.ingress.CarpIngress}} {
		pinned, err := link.LoadPinnedLink(filepath.Join(p.dir, r.pin), nil)
		if err == nil {
			err = errors.Join(pinned.Update(r.prog), pinned.Close())
		} else {
			at := slices.IndexFunc(hooks, func(h hook) bool { return h.pin == r.pin })
			l.node.Must(func() error { return p.attachFilter(hooks[at], r.prog) })
			err = nil
		}
		if err != nil {
			t.Fatal(err)
		}
		first = program()
		again()
		if got := program(); got == first {
			t.Errorf("Renew left program %d, though another version has replaced %s", first, r.pin)
		}
	}
	// On a kernel that refuses what verifies the light one is what this build attaches.
	pinned, err := link.LoadPinnedLink(filepath.Join(p.dir, pinXDP), nil)
	if err == nil {
		err = errors.Join(pinned.Update(other.xdp.CarpXdpLight), pinned.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	l.node.Must(func() error { p.signPrograms(); return nil })
	first, shielding = program(), Limit
	again()
	if got := program(); got != first {
		t.Errorf("Renew replaced the light program %d by %d", first, got)
	}
}
