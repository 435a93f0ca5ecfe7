package loader

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const vhidSize = int(unsafe.Sizeof(xdpVhid{}))

// maps are those of one carpdev.
type maps struct {
	byName map[string]*ebpf.Map
	memory []byte // the vhids array
}

// openMaps opens what is pinned in the folder, and in the node's one, and makes what
// is missing.
func (k *kit) openMaps(dir, node string, index int) (*maps, error) {
	specs, err := k.mapSpecs()
	if err != nil {
		return nil, err
	}
	m := &maps{byName: map[string]*ebpf.Map{}}
	if err := m.openNode(node); err != nil {
		return nil, errors.Join(err, m.close())
	}
	for name, spec := range specs {
		if m.byName[name], err = openMap(dir+"/"+name, spec); err != nil {
			return nil, errors.Join(fmt.Errorf("map %s: %w", name, err), m.close())
		}
	}
	if err := m.mmap(); err != nil {
		return nil, errors.Join(err, m.close())
	}
	err = m.updatePort(func(port *xdpPort) {
		port.Layout = xdpLayoutLAYOUT
		port.Ifindex = uint32(index)
	})
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func openMap(path string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if !errors.Is(err, os.ErrNotExist) {
		return m, err
	}
	if m, err = ebpf.NewMap(spec); err != nil {
		return nil, err
	}
	if err := m.Pin(path); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// pinnedMaps opens the maps in the folder for reading and changing; it makes none.
func (k *kit) pinnedMaps(dir string) (*maps, error) {
	if !k.readable(dir) {
		return nil, fmt.Errorf("maps in %s are of another layout", dir)
	}
	specs, err := k.mapSpecs()
	if err != nil {
		return nil, err
	}
	m := &maps{byName: map[string]*ebpf.Map{}}
	for name := range specs {
		if m.byName[name], err = ebpf.LoadPinnedMap(dir+"/"+name, nil); err != nil {
			return nil, errors.Join(fmt.Errorf("map %s: %w", name, err), m.close())
		}
	}
	if err := m.mmap(); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// readable reports whether what is pinned in the folder has this build's layout.
// Maps of another size or kind, or of another layout number, are never read.
func (k *kit) readable(dir string) bool {
	specs, err := k.mapSpecs()
	if err != nil {
		return false
	}
	for name, spec := range specs {
		m, err := ebpf.LoadPinnedMap(dir+"/"+name, nil)
		if err != nil {
			return false
		}
		err = spec.Compatible(m)
		m.Close()
		if err != nil {
			return false
		}
	}
	port, err := readPort(dir)
	return err == nil && port.Layout == xdpLayoutLAYOUT
}

func readPort(dir string) (port xdpPort, err error) {
	m, err := ebpf.LoadPinnedMap(dir+"/"+xdpMapPorts, nil)
	if err != nil {
		return port, err
	}
	defer m.Close()
	return port, m.Lookup(uint32(0), &port)
}

func (m *maps) updatePort(change func(*xdpPort)) error {
	var port xdpPort
	ports := m.byName[xdpMapPorts]
	if err := ports.Lookup(uint32(0), &port); err != nil {
		return fmt.Errorf("read map ports: %w", err)
	}
	change(&port)
	if err := ports.Put(uint32(0), &port); err != nil {
		return fmt.Errorf("write map ports: %w", err)
	}
	return nil
}

func (m *maps) mmap() error {
	if m.byName[xdpMapVhids] == nil {
		return nil
	}
	var err error
	m.memory, err = unix.Mmap(m.byName[xdpMapVhids].FD(), 0, 256*vhidSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap vhids: %w", err)
	}
	return nil
}

// vhid is the element in the memory that the programs read.
func (m *maps) vhid(vhid uint8) *xdpVhid {
	return (*xdpVhid)(unsafe.Pointer(&m.memory[int(vhid)*vhidSize]))
}

// word is the role word: role and deadline.
func (m *maps) word(vhid uint8) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&m.vhid(vhid).Role))
}

func (m *maps) stamp(vhid uint8) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&m.vhid(vhid).Stamp))
}

// forgetPulses clears what is there for pulses only.
func (m *maps) forgetPulses(vhid uint8) {
	v := m.vhid(vhid)
	atomic.StoreUint32(&v.Demotion, 0)
	for _, word := range []*uint64{&v.Term, &v.Claim, &v.Hint, &v.First} {
		atomic.StoreUint64(word, 0)
	}
}

func (m *maps) flags(vhid uint8) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&m.vhid(vhid).Flags))
}

func (m *maps) configured(vhid uint8) bool {
	return m.memory != nil && xdpVhidFlag(m.flags(vhid).Load())&xdpVhidFlagVHID_CONFIGURED != 0
}

// counted are the vhids that are configured, and 0.
func (m *maps) counted() []uint8 {
	all := []uint8{0}
	for vhid := 1; vhid < 256; vhid++ {
		if m.configured(uint8(vhid)) {
			all = append(all, uint8(vhid))
		}
	}
	return all
}

func (m *maps) close() error {
	var errs []error
	if m.memory != nil {
		errs = append(errs, unix.Munmap(m.memory))
		m.memory = nil
	}
	for _, one := range m.byName {
		if one != nil {
			errs = append(errs, one.Close())
		}
	}
	return errors.Join(errs...)
}
