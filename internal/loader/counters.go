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

// Counters returns packets by vhid and reason since the maps were made, of these vhids, or
// of all that are configured and of vhid 0, which counts what is nobody's. Every reason of a
// vhid is there, zero or not.
func (p *Port) Counters(vhids ...uint8) (map[uint8]map[string]uint64, error) {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return nil, ErrClosed
	}
	names, err := reasons()
	if err != nil {
		return nil, err
	}
	if len(vhids) == 0 {
		vhids = p.maps.counted()
	}
	all := map[uint8]map[string]uint64{}
	for _, vhid := range vhids {
		if all[vhid], err = p.count(vhid, names); err != nil {
			return nil, err
		}
	}
	return all, nil
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
