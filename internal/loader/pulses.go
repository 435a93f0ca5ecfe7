package loader

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
)

const pathSize = int(unsafe.Sizeof(xdpPulsePath{}))

// Pulses is what the programs of all devices of a node know of pulses: whose asks
// they answer and for which groups, and what came back to ours. It stays pinned, as
// a Port does: asks go on being answered when the process that set this up is gone.
// See docs/pulses.md.
type Pulses struct {
	alive  sync.RWMutex
	maps   *maps               // the node's; nil after Close
	memory []byte              // the paths
	since  [Paths]atomic.Int64 // when each was set, ns since boot
	slots  sync.Mutex
	dir    string
	fresh  bool // nothing was pinned before
}

// OpenPulses opens what all ports below the pin directory share. Other builds' maps
// and programs for a sync device are taken off. It has to run in the network
// namespace of the interfaces.
func OpenPulses(pinDir string) (*Pulses, error) {
	p, err := openPulses(pinDir)
	if err != nil {
		return nil, fmt.Errorf("open pulses: %w", err)
	}
	return p, nil
}

func openPulses(pinDir string) (*Pulses, error) {
	root, err := pinRoot(pinDir)
	if err != nil {
		return nil, err
	}
	if _, err := detachNode(pinDir, nodeDir(root)); err != nil {
		return nil, err
	}
	dir := nodeDir(root)
	fresh := !exists(dir)
	m := &maps{byName: map[string]*ebpf.Map{}}
	if err := m.openNode(dir); err != nil {
		return nil, errors.Join(err, m.close())
	}
	p, err := newPulses(m)
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	p.dir, p.fresh = dir, fresh
	return p, nil
}

func newPulses(m *maps) (*Pulses, error) {
	paths := m.byName[xdpMapPulsePaths]
	memory, err := unix.Mmap(paths.FD(), 0, int(paths.MaxEntries())*pathSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap %s: %w", xdpMapPulsePaths, err)
	}
	return &Pulses{maps: m, memory: memory}, nil
}

// Close lets go. What is pinned goes on working.
func (p *Pulses) Close() error {
	p.alive.Lock()
	defer p.alive.Unlock()
	if p.maps == nil {
		return nil
	}
	err := errors.Join(unix.Munmap(p.memory), p.maps.close())
	p.maps, p.memory = nil, nil
	return err
}

// Undo takes off again what OpenPulses pinned, and lets go. What others use stays.
func (p *Pulses) Undo() error {
	if err := p.Close(); err != nil || !p.fresh {
		return err
	}
	return dropNode(p.dir)
}

// use calls f with the maps while nobody closes them.
func (p *Pulses) use(what string, f func(m *maps) error) error {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return ErrClosed
	}
	if err := f(p.maps); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Answer has asks and claims of the session answered that its key has signed. 0 is
// no session.
func (p *Pulses) Answer(session uint32, key carp.PulseKey) error {
	return p.use("answer a session", func(m *maps) error {
		if session == 0 {
			return errors.New("session 0 is nobody's")
		}
		return m.byName[xdpMapPulseSessions].Put(netOrder(session), xdpPulseSession{Key: key})
	})
}

// Forget ends a session.
func (p *Pulses) Forget(session uint32) error {
	return p.use("forget a session", func(m *maps) error {
		return remove(m.byName[xdpMapPulseSessions], netOrder(session))
	})
}

// Sessions lists those that are answered, also since before this process.
func (p *Pulses) Sessions() (all []uint32, err error) {
	err = p.use("list sessions", func(m *maps) error {
		all, err = keys[xdpPulseSession](m.byName[xdpMapPulseSessions])
		return err
	})
	return all, err
}

// Serve answers for a group: it is this vhid of the port. group is carp.PulseGroup
// of its name.
func (p *Pulses) Serve(group uint32, port *Port, vhid uint8) error {
	return p.use("serve a group", func(m *maps) error {
		port.alive.RLock()
		defer port.alive.RUnlock()
		if port.maps == nil {
			return ErrClosed
		}
		p.slots.Lock()
		defer p.slots.Unlock()
		ports, vhids := m.byName[xdpMapPulsePorts], port.maps.byName[xdpMapVhids]
		slot, taken, err := slotOf(ports, vhids)
		if err != nil {
			return err
		}
		if !taken {
			if err := ports.Put(slot, vhids); err != nil {
				return fmt.Errorf("give a slot to %s: %w", port.name, err)
			}
		}
		return m.byName[xdpMapPulseGroups].Put(netOrder(group), xdpPulseGroup{Slot: slot, Vhid: uint32(vhid)})
	})
}

// Unserve ends that. A carpdev that is detached ends it for its groups.
func (p *Pulses) Unserve(group uint32) error {
	return p.use("no longer serve a group", func(m *maps) error {
		return remove(m.byName[xdpMapPulseGroups], netOrder(group))
	})
}

// Groups lists those that are served, also since before this process.
func (p *Pulses) Groups() (all []uint32, err error) {
	err = p.use("list groups", func(m *maps) error {
		all, err = keys[xdpPulseGroup](m.byName[xdpMapPulseGroups])
		return err
	})
	return all, err
}

// netOrder is a number as the key of a map: as it stands in the frame.
func netOrder(n uint32) uint32 {
	return n>>24 | n>>8&0xff00 | n<<8&0xff0000 | n<<24
}

func keys[V any](m *ebpf.Map) (all []uint32, err error) {
	var k uint32
	var v V
	it := m.Iterate()
	for it.Next(&k, &v) {
		all = append(all, netOrder(k))
	}
	return all, it.Err()
}
