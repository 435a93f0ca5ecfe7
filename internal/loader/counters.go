package loader

import (
	"fmt"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"
)

// reasons are the names of the reasons, by number: those of carp.h without the R_,
// in lower case, read from the object so that they are written down once.
var reasons = sync.OnceValues(func() ([]string, error) {
	spec, err := loadXdp()
	if err != nil {
		return nil, err
	}
	var enum *btf.Enum
	if err := spec.Types.TypeByName("reason", &enum); err != nil {
		return nil, fmt.Errorf("find enum reason: %w", err)
	}
	names := make([]string, xdpReasonREASONS)
	for _, v := range enum.Values {
		if name, ok := strings.CutPrefix(v.Name, "R_"); ok {
			names[v.Value] = strings.ToLower(name)
		}
	}
	return names, nil
})

// Counters returns packets by vhid and reason since the maps were made. Vhid 0
// counts what is nobody's; every reason of a configured vhid is there, zero or not.
func (p *Port) Counters() (map[uint8]map[string]uint64, error) {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return nil, ErrClosed
	}
	names, err := reasons()
	if err != nil {
		return nil, err
	}
	all := map[uint8]map[string]uint64{}
	for vhid := range 256 {
		if vhid != 0 && !p.maps.configured(uint8(vhid)) {
			continue
		}
		of, err := p.count(uint8(vhid), names)
		if err != nil {
			return nil, err
		}
		all[uint8(vhid)] = of
	}
	return all, nil
}

// CountersOf returns those of one vhid.
func (p *Port) CountersOf(vhid uint8) (map[string]uint64, error) {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return nil, ErrClosed
	}
	names, err := reasons()
	if err != nil {
		return nil, err
	}
	return p.count(vhid, names)
}

// count reads the counters of a vhid. With alive held.
func (p *Port) count(vhid uint8, names []string) (map[string]uint64, error) {
	of := map[string]uint64{}
	for why, name := range names {
		if name == "" || why == int(xdpReasonR_FOREIGN) {
			continue
		}
		var perCPU []uint64
		if err := p.maps.byName[xdpMapCounters].Lookup(uint32(vhid)*uint32(xdpReasonREASONS)+uint32(why), &perCPU); err != nil {
			return nil, fmt.Errorf("read counters of %s: %w", p.name, err)
		}
		var n uint64
		for _, c := range perCPU {
			n += c
		}
		of[name] = n
	}
	return of, nil
}
