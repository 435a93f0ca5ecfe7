package daemon

import (
	"net/netip"
	"slices"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/loader"
)

// forget takes out of the dataplane what an earlier configuration had and this one
// has not: carpdevs, groups, addresses. Left alone they would keep swallowing
// requests for addresses that nobody answers for any more.
func (d *Daemon) forget(byName map[string]*carpdev) error {
	ports, err := loader.Pinned(d.paths.Pin)
	if err != nil {
		return err
	}
	wanted := d.shared()
	for _, p := range ports {
		gone := slices.DeleteFunc(p.Addrs, func(a netip.Addr) bool { return wanted[a] })
		if err := removeHostAddrs(d.facts.handle, p.Ifindex, gone); err != nil {
			return err
		}
		dev := byName[p.Ifname]
		if dev == nil {
			d.log.Warn("carpdev is no longer in the configuration: taking the dataplane off", zap.String("carpdev", p.Ifname))
			if _, err := loader.DetachPort(d.paths.Pin, p.Ifname); err != nil {
				return err
			}
			continue
		}
		for vhid := range p.Roles {
			if d.hasGroup(dev.name, vhid) {
				continue
			}
			d.log.Warn("vhid is no longer in the configuration", zap.String("carpdev", p.Ifname), zap.Uint8("vhid", vhid))
			if err := dev.port.DeleteGroup(vhid); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Daemon) hasGroup(carpdev string, vhid uint8) bool {
	for i := range d.cfg.Groups {
		if g := &d.cfg.Groups[i]; g.Carpdev == carpdev && g.VHID == vhid {
			return true
		}
	}
	return false
}
