package group

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/packet"
	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
)

// Destination is where the adverts of a family go.
type Destination struct {
	To   netip.Addr // a multicast group, or the one peer; not valid: CARP's own group
	MAC  carp.MAC   // of the peer or the next hop to it; a group has its own
	From netip.Addr // what the peer can answer to; not valid: as for a group
}

// destination returns where the adverts of a family go now.
func (g *Group) destination(is4 bool) Destination {
	to := g.cfg.To6
	if is4 {
		to = g.cfg.To4
	}
	if to == nil {
		return Destination{}
	}
	return to()
}

// envelope returns how an advert of a family travels now.
func (g *Group) envelope(src carp.MAC, from netip.Addr, is4 bool) carp.Envelope {
	d := g.destination(is4)
	if !d.To.IsValid() || d.To.IsMulticast() {
		return carp.ToGroup(src, from, d.To, g.cfg.TOS)
	}
	return carp.Envelope{Src: src, Dst: d.MAC, From: from, To: d.To, TOS: g.cfg.TOS}
}

// source returns the address that adverts of a family come from, invalid if
// the family is not sent.
func (g *Group) source(is4 bool) netip.Addr {
	own, has, alone := g.cfg.Source6, g.has6, !g.has4
	if is4 {
		own, has, alone = g.cfg.Source4, g.has4, true
	}
	if !has {
		return netip.Addr{}
	}
	if a := g.destination(is4).From; a.IsValid() {
		return a
	}
	if own != nil {
		if a := own().Unmap().WithZone(""); a.IsValid() && a.Is4() == is4 {
			return a
		}
	}
	if !alone {
		return netip.Addr{}
	}
	for _, p := range g.cfg.Addrs {
		if a := p.Addr().Unmap().WithZone(""); a.Is4() == is4 {
			return a
		}
	}
	return netip.Addr{}
}

// advertise sends an advert in every family that the group has. One family is
// enough to be heard, so it fails only if all do.
func (g *Group) advertise(a *carp.Advert) error {
	mac := g.vmac
	if a.Goodbye() {
		mac = carp.MAC(g.cfg.HardwareAddr)
	}
	var errs []error
	sent := 0
	for _, is4 := range []bool{true, false} {
		from := g.source(is4)
		if !from.IsValid() {
			continue
		}
		// A counter for each frame: a receiver may refuse one it has seen.
		f := *a
		f.Counter += uint64(sent+len(errs)) * carp.FamilyStep
		var b [carp.AdvertLen + carp.TrailerLen]byte
		e := g.envelope(mac, from, is4)
		g.out = e.AppendFrame(g.out[:0], g.sign(b[:0], &f))
		if err := g.write(g.out); err != nil {
			errs = append(errs, fmt.Errorf("send advert from %v on %q: %w", from, g.cfg.Carpdev, err))
			continue
		}
		sent++
	}
	g.sent(sent, len(errs))
	if sent > 0 {
		return nil
	}
	if len(errs) == 0 {
		return fmt.Errorf("send advert on %q: no address to send it from", g.cfg.Carpdev)
	}
	return errors.Join(errs...)
}

// sign appends the payload of an advert.
func (g *Group) sign(b []byte, a *carp.Advert) []byte {
	g.mu.Lock()
	b = g.guard.Sign(b, a, g.machine.Term())
	self := g.guard.Self()
	g.mu.Unlock()
	if g.cfg.OnSign != nil && g.cfg.Machine.Trailer {
		g.cfg.OnSign(self)
	}
	return b
}

// announce tells neighbours and switches where the shared addresses are now.
func (g *Group) announce() {
	for _, b := range g.announces {
		if err := g.write(b); err != nil {
			g.log.Debug("announce", zap.String("group", g.cfg.Name), zap.Error(err))
		}
	}
}

// write sends a whole frame. A packet socket wants its destination once more.
func (g *Group) write(b []byte) error {
	_, err := g.cfg.Conn.WriteTo(b, &packet.Addr{HardwareAddr: b[:6:6]})
	return err
}
