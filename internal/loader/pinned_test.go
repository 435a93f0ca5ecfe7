package loader

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/xcarp/xcarp/internal/carp"
)

// Of what another version pinned the interface and the addresses are known all the
// same, and it goes if somebody insists.
func TestPinsOfAnotherVersionAreTakenOffByForce(t *testing.T) {
	requirePrograms(t, "sh", "tc", "bpftool")
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			l := newLAN(t)
			programs := func() string {
				return l.node.Exec("sh", "-c", "bpftool net show dev "+nodeDev+"; for way in ingress egress; do tc filter show dev "+nodeDev+" $way; done")
			}
			before := programs()
			p := l.open(t, m.o)
			l.set(t, carp.Master, time.Minute)
			if err := p.maps.updatePort(func(port *xdpPort) { port.Layout++ }); err != nil {
				t.Fatal(err)
			}
			p.Close()
			var ports []PinnedPort
			var index int
			var refused error
			l.node.Must(func() error {
				dev, err := netlink.LinkByName(nodeDev)
				if err != nil {
					return err
				}
				index = dev.Attrs().Index
				if ports, err = Pinned(l.dir); err != nil {
					return err
				}
				_, refused = Detach(l.dir, false)
				return nil
			})
			if len(ports) != 1 || ports[0].Ifindex != index || !ports[0].Foreign || len(ports[0].Roles) != 0 {
				t.Fatalf("got %+v, want a foreign port on interface %d without roles", ports, index)
			}
			for _, a := range []netip.Addr{shared4, shared6} {
				if !slices.Contains(ports[0].Addrs, a) {
					t.Errorf("got addresses %v, want %s", ports[0].Addrs, a)
				}
			}
			if !errors.Is(refused, ErrVersion) {
				t.Errorf("detach: got %v, want ErrVersion", refused)
			}
			if !isPort(portDir(l.dir, nodeDev)) {
				t.Error("a refused detach took pins off")
			}
			l.node.Must(func() error {
				_, err := Detach(l.dir, true)
				return err
			})
			if left := programs(); left != before {
				t.Errorf("left behind:\n%s\nwant\n%s", left, before)
			}
			if entries, err := os.ReadDir(l.dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("pins left: %v, %v", entries, err)
			}
		})
	}
}
