package daemon

import (
	"net/netip"
	"slices"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/loader"
)

// forget takes out of the dataplane what an earlier configuration had and this one
// has not: carpdevs, groups, addresses. Left alone they would keep swallowing
// requests for addresses that nobody answers for any more.
func (d *Daemon) forget() error {
	ports, err := loader.Pinned(d.paths.Pin)
	if err != nil {
		return err
	}
	cfg := d.now.Load()
	wanted := map[netip.Addr]bool{}
	for _, g := range takingPart(cfg) {
		for _, p := range g.Addresses {
			wanted[p.Addr()] = true
		}
	}
	for _, p := range ports {
		gone := slices.DeleteFunc(p.Addrs, func(a netip.Addr) bool { return wanted[a] })
		if err := removeHostAddrs(d.facts.handle, p.Ifindex, gone); err != nil {
			return err
		}
		dev := d.carpdevs.Named(p.Ifname)
		if dev == nil {
			d.log.Warn("carpdev is no longer in the configuration: taking the dataplane off", zap.String("carpdev", p.Ifname))
			if _, err := loader.DetachPort(d.paths.Pin, p.Ifname); err != nil {
				return err
			}
			continue
		}
		for vhid := range p.Roles {
			if hasGroup(cfg, dev.name, vhid) {
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

// hasGroup reports whether a group of the configuration takes part there.
func hasGroup(cfg *config.Config, carpdev string, vhid uint8) bool {
	return slices.ContainsFunc(takingPart(cfg), func(g *config.Group) bool {
		return g.Carpdev == carpdev && g.VHID == vhid
	})
}
