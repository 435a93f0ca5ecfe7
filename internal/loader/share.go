package loader

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/cilium/ebpf"
)

// Share is how several vhids of a carpdev share the addresses of the first one: each
// has a part of the neighbours, or of the frames, and its own master.
type Share struct {
	VHIDs []uint8 // rising, the first is the leader; at most ShareMax

	// Frames: all nodes receive all frames and keep their parts. Otherwise each
	// neighbour is told the virtual MAC of one vhid.
	Frames    bool
	Multicast bool // they come to 01:00:5e:00:01:LEADER, else to the virtual MAC

	SourceIP bool      // neighbours are told apart by address, else by MAC
	Key      [2]uint32 // of the hash of MACs; see carp.BalanceKey
}

// ShareMax is how many vhids can share an address, as on OpenBSD.
const ShareMax = len(xdpShare{}.Vhid)

// SetShare has the vhid share its addresses as the leader of others from now on, or
// have them alone if s has no VHIDs. It may be called again at any time: a
// neighbour is answered by the old way or by the new one.
func (p *Port) SetShare(leader uint8, s Share) error {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return ErrClosed
	}
	p.device.Lock()
	defer p.device.Unlock()
	if err := p.setShare(leader, s); err != nil {
		return fmt.Errorf("share the addresses of vhid %d on %s: %w", leader, p.name, err)
	}
	return nil
}

func (p *Port) setShare(leader uint8, s Share) error {
	if len(s.VHIDs) == 0 {
		return p.unshare(leader)
	}
	if len(s.VHIDs) > ShareMax || s.VHIDs[0] != leader || !slices.IsSorted(s.VHIDs) {
		return fmt.Errorf("vhids %v", s.VHIDs)
	}
	v := xdpShare{Count: uint32(len(s.VHIDs)), Key: s.Key}
	copy(v.Vhid[:], s.VHIDs)
	for flag, on := range map[xdpShareFlag]bool{
		xdpShareFlagSHARE_FRAMES: s.Frames, xdpShareFlagSHARE_MULTICAST: s.Multicast, xdpShareFlagSHARE_SOURCE_IP: s.SourceIP,
	} {
		if on {
			v.Flags |= flag
		}
	}
	for _, vhid := range s.VHIDs {
		if vhid != leader {
			if err := p.unshare(vhid); err != nil {
				return err
			}
		}
		if s.Frames {
			p.maps.flags(vhid).Or(uint32(xdpVhidFlagVHID_HIDDEN))
		} else {
			p.maps.flags(vhid).And(^uint32(xdpVhidFlagVHID_HIDDEN))
		}
	}
	if err := p.maps.byName[xdpMapShares].Put(uint32(leader), v); err != nil {
		return err
	}
	p.maps.flags(leader).Or(uint32(xdpVhidFlagVHID_LEADER))
	if !s.Multicast {
		return unadmit(p.nl, p.ioctl, p.index, mcastMAC(leader))
	}
	return p.admit(mcastMAC(leader))
}

// unshare has the vhid lead nobody.
func (p *Port) unshare(vhid uint8) error {
	const ours = uint32(xdpVhidFlagVHID_LEADER | xdpVhidFlagVHID_HIDDEN)
	led := p.maps.flags(vhid).And(^ours)&uint32(xdpVhidFlagVHID_LEADER) != 0
	err := p.maps.byName[xdpMapShares].Delete(uint32(vhid))
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	if !led {
		return nil
	}
	return unadmit(p.nl, p.ioctl, p.index, mcastMAC(vhid))
}

// mcastMAC is where frames go that all nodes receive, as in carp_set_vhe_enaddr of
// OpenBSD.
func mcastMAC(leader uint8) net.HardwareAddr {
	mac := vmac(leader)
	mac[0] = 1
	return mac
}
