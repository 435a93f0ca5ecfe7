package daemon

import (
	"net"
	"net/netip"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/loader"
)

// own gives the dataplane the group's vhid and addresses. Of several vhids that
// share them the lowest owns them there, and it is told how they are shared before
// it has any.
func (d *Daemon) own(m *member, addrs []netip.Addr) error {
	g, port := m.cfg, m.dev.port
	if len(g.CarpNodes) == 0 {
		if err := port.SetShare(g.VHID, loader.Share{}); err != nil {
			return err
		}
		return port.SetGroup(g.VHID, addrs)
	}
	s := loader.Share{
		Frames:    g.Balance != config.BalanceARP,
		Multicast: g.Balance == config.BalanceIP,
		SourceIP:  g.BalanceBy == config.BalanceBySourceIP,
		Key:       carp.BalanceKey(balancePassword(g)),
	}
	for _, n := range g.CarpNodes {
		s.VHIDs = append(s.VHIDs, n.VHID)
	}
	if err := port.SetShare(s.VHIDs[0], s); err != nil {
		return err
	}
	if err := port.SetGroup(s.VHIDs[0], addrs); err != nil || g.VHID == s.VHIDs[0] {
		return err
	}
	return port.SetGroup(g.VHID, nil)
}

// balancePassword is what neighbours are hashed with: the group's password, so that
// BSD members choose alike. One that is derived from a key changes while keys are
// rotated, at another time on each node, and nobody else has it.
func balancePassword(g *config.Group) string {
	if g.FromKey {
		return ""
	}
	return string(g.Password)
}

// told is the MAC that neighbours learn for the group's addresses: if they share
// frames, that of the lowest vhid, with the multicast bit unless switches shall not
// learn it.
func told(g *config.Group) net.HardwareAddr {
	vhid := g.VHID
	if g.Balance == config.BalanceIP || g.Balance == config.BalanceStealth {
		vhid = leader(g)
	}
	mac := carp.VirtualMAC(vhid)
	if g.Balance == config.BalanceIP {
		mac[0] = 1
	}
	return mac[:]
}
