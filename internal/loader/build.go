package loader

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
)

// build is what tells the programs of this version from those of another one.
var build = sync.OnceValue(func() [sha256.Size]byte {
	h := sha256.New()
	for _, object := range [][]byte{_XdpBytes, _IngressBytes, _EgressBytes, _PulseBytes} {
		h.Write(object)
	}
	return [sha256.Size]byte(h.Sum(nil))
})

// signature stands for the programs that are attached now, if this build attached
// them. It has their numbers in it: what another version attached later, which may not
// know of signatures, makes the one that it finds void.
func (p *Port) signature() (s [2]uint32, light bool, err error) {
	var ids []uint32
	for _, l := range p.links {
		info, err := l.Info()
		if err != nil {
			return s, false, fmt.Errorf("read a link: %w", err)
		}
		ids = append(ids, uint32(info.Program))
		name, err := programName(info.Program)
		if err != nil {
			return s, false, fmt.Errorf("read program %d: %w", info.Program, err)
		}
		light = light || strings.HasPrefix(name, xdpProgCarpXdpLight)
	}
	for _, hook := range p.kit.hooks {
		if len(p.links) == len(p.kit.links) {
			break // no hook has a filter of clsact
		}
		filters, err := p.nl.FilterList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: p.index}}, hook.parent)
		if err != nil {
			return s, false, fmt.Errorf("list the %s filters: %w", hook.pin, err)
		}
		for _, f := range filters {
			if isOurs(f) {
				ids = append(ids, uint32(f.(*netlink.BpfFilter).Id))
			}
		}
	}
	slices.Sort(ids)
	b := build()
	signed := b[:]
	for _, id := range ids {
		signed = binary.LittleEndian.AppendUint32(signed, id)
	}
	sum := sha256.Sum256(signed)
	return [2]uint32{binary.LittleEndian.Uint32(sum[:]), binary.LittleEndian.Uint32(sum[4:])}, light, nil
}

func programName(id ebpf.ProgramID) (string, error) {
	prog, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "", err
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return "", err
	}
	return info.Name, nil
}

// signPrograms notes that this build attached what is attached. If that fails the next
// process replaces it, which costs that one a moment.
func (p *Port) signPrograms() {
	s, _, err := p.signature()
	if err = errors.Join(err, p.maps.updatePort(func(port *xdpPort) { port.Programs = s })); err != nil {
		p.log.Warn("the programs are not signed: a restart will load them again", zap.Error(err))
	}
}

// ofThisBuild reports whether the programs that were adopted are known to be what this
// build would attach, and learns from them what it would from attaching.
func (p *Port) ofThisBuild() bool {
	port, err := readPort(p.dir)
	if err != nil {
		return false
	}
	s, light, err := p.signature()
	if err != nil || s != port.Programs {
		return false
	}
	p.shield = Verify
	if light {
		p.limited(nil)
	}
	return true
}

// limited notes that the programs do not verify, and says so.
func (p *Port) limited(why error) {
	p.shield = Limit
	p.log.Warn("this kernel refuses to check digests in XDP: adverts are limited in number only", zap.Error(why))
}
