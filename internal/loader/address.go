package loader

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// SetGroup makes the vhid one of ours with these shared addresses and no others,
// and lets frames for its virtual MAC through the device's filter. It keeps the
// role and may be called again at any time. An address of another vhid moves.
func (p *Port) SetGroup(vhid uint8, addrs []netip.Addr) error {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return ErrClosed
	}
	p.device.Lock()
	defer p.device.Unlock()
	if err := p.setGroup(vhid, addrs); err != nil {
		return fmt.Errorf("set group %d on %s: %w", vhid, p.name, err)
	}
	return nil
}

func (p *Port) setGroup(vhid uint8, addrs []netip.Addr) error {
	if vhid == 0 {
		return errors.New("vhid 0 is nobody's")
	}
	want := map[netip.Addr]bool{}
	for _, a := range addrs {
		want[a.Unmap().WithZone("")] = true
	}
	// The fence goes up before anything can be let through.
	for a := range want {
		if err := p.maps.addrMap(a).Put(key(a), xdpOwner{Vhid: uint32(vhid)}); err != nil {
			return fmt.Errorf("add address %s: %w", a, err)
		}
		if a.Is6() {
			if err := p.admit(solicitedNode(a)); err != nil {
				return err
			}
		}
	}
	p.maps.flags(vhid).Or(uint32(xdpVhidFlagVHID_CONFIGURED))
	if err := p.admit(vmac(vhid)); err != nil {
		return err
	}
	return p.removeAddrs(vhid, want)
}

// DeleteGroup forgets the vhid, its role and its addresses.
func (p *Port) DeleteGroup(vhid uint8) error {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return ErrClosed
	}
	p.device.Lock()
	defer p.device.Unlock()
	p.roles.Lock()
	p.maps.word(vhid).Store(0)
	p.last[vhid] = 0
	p.roles.Unlock()
	p.believed.Lock()
	p.known[vhid] = nil
	p.believed.Unlock()
	p.maps.stamp(vhid).Store(0)
	p.maps.forgetPulses(vhid)
	err := p.unshare(vhid)
	p.maps.flags(vhid).Store(0)
	if err := errors.Join(err, p.maps.removeShield(vhid), p.removeAddrs(vhid, nil), unadmit(p.nl, p.ioctl, p.index, vmac(vhid))); err != nil {
		return fmt.Errorf("delete group %d on %s: %w", vhid, p.name, err)
	}
	return nil
}

// removeAddrs removes the addresses of the vhid but for those to keep.
func (p *Port) removeAddrs(vhid uint8, keep map[netip.Addr]bool) error {
	owned, err := p.maps.addrs()
	if err != nil {
		return err
	}
	groups := map[string]int{} // solicited-node groups in use
	for a, o := range owned {
		if a.Is6() && (o != vhid || keep[a]) {
			groups[solicitedNode(a).String()]++
		}
	}
	for a, o := range owned {
		if o != vhid || keep[a] {
			continue
		}
		if err := p.maps.addrMap(a).Delete(key(a)); err != nil {
			return fmt.Errorf("remove address %s: %w", a, err)
		}
		if !a.Is6() || groups[solicitedNode(a).String()] > 0 {
			continue
		}
		if err := unadmit(p.nl, p.ioctl, p.index, solicitedNode(a)); err != nil {
			return err
		}
	}
	return nil
}

// key is the address as the programs find it in a packet.
func key(a netip.Addr) any {
	if a.Is4() {
		return a.As4()
	}
	return a.As16()
}

func (m *maps) addrMap(a netip.Addr) *ebpf.Map {
	if a.Is4() {
		return m.byName[xdpMapAddr4]
	}
	return m.byName[xdpMapAddr6]
}

// addrs lists every shared address and its vhid.
func (m *maps) addrs() (map[netip.Addr]uint8, error) {
	all := map[netip.Addr]uint8{}
	if m.byName[xdpMapAddr4] == nil {
		return all, nil // of the sync device
	}
	var o xdpOwner
	var a4 [4]byte
	it := m.byName[xdpMapAddr4].Iterate()
	for it.Next(&a4, &o) {
		all[netip.AddrFrom4(a4)] = uint8(o.Vhid)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var a16 [16]byte
	it = m.byName[xdpMapAddr6].Iterate()
	for it.Next(&a16, &o) {
		all[netip.AddrFrom16(a16)] = uint8(o.Vhid)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return all, nil
}
