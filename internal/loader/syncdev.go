package loader

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// syncdev is what the sync device gets: pulses are answered there as well.
var syncdev = &kit{
	load: loadPulse,
	xdp:  []string{pulseProgCarpSyncXdp, pulseProgCarpSyncXdpFrags},
	hooks: []hook{
		{pinIngress, pulseProgCarpSyncIngress, "", loadPulse, ebpf.AttachTCXIngress, link.Head(), netlink.HANDLE_MIN_INGRESS},
	},
	links:  []string{pinXDP, pinIngress},
	yields: true,
}

// ErrCarpdev means that a device needs nothing for pulses: its programs as a carpdev
// answer them.
var ErrCarpdev = errors.New("is a carpdev")

// Sync is the sync device with its programs.
type Sync struct {
	port *Port
}

// AttachSync attaches the programs that answer pulses to the sync device, or adopts
// them. A foreign XDP program stays, and tc ingress answers. It has to run in the
// network namespace of the interface, as Recheck.
func (p *Pulses) AttachSync(ifname string, o Options) (*Sync, error) {
	if o.Mode == "" {
		o.Mode = Auto
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	root, err := pinRoot(o.PinDir)
	if err == nil && isPort(portDir(root, ifname)) {
		err = ErrCarpdev
	}
	if err != nil {
		return nil, fmt.Errorf("attach to sync device %q: %w", ifname, err)
	}
	s := &Sync{&Port{name: ifname, kit: syncdev, opts: o, log: o.Log.With(zap.String("syncdev", ifname))}}
	if err := s.port.open(o); err != nil {
		return nil, errors.Join(fmt.Errorf("attach to sync device %q: %w", ifname, err), s.port.Close())
	}
	return s, nil
}

// DetachSync takes the programs off a device that is no longer the sync device.
func DetachSync(pinDir, ifname string) (removed []string, err error) {
	root, err := findRoot(pinDir)
	if root == "" {
		return nil, err
	}
	if removed, err = detachPort(syncDir(root, ifname)); err != nil {
		return removed, fmt.Errorf("detach %s: %w", ifname, err)
	}
	return removed, nil
}

// Mode is how the programs are attached.
func (s *Sync) Mode() Mode { return s.port.Mode() }

// Answer says who answers: "xdp" or "tc".
func (s *Sync) Answer() string { return s.port.Answer() }

// HardwareAddr is the device's own MAC, where asks go to.
func (s *Sync) HardwareAddr() net.HardwareAddr { return s.port.HardwareAddr() }

// Renew replaces programs of another version, as Port.Renew.
func (s *Sync) Renew() error { return s.port.Renew() }

// Recheck looks again at what can change, as Port.Recheck.
func (s *Sync) Recheck() error { return s.port.Recheck() }

// Counters returns pulses by reason.
func (s *Sync) Counters() (map[string]uint64, error) {
	all, err := s.port.Counters()
	return all[0], err
}

// Close lets go: pulses are answered further on.
func (s *Sync) Close() error { return s.port.Close() }

// Undo takes off again what AttachSync attached, as Port.Undo.
func (s *Sync) Undo() error { return s.port.Undo() }
