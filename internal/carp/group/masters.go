package group

import (
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
)

// mastersMax bounds what a flood of believed adverts can make us remember.
const mastersMax = 16

// MasterSeen is another member whose adverts we believe.
type MasterSeen struct {
	Addr             netip.Addr // the IPv4 source of its adverts, else the IPv6 one
	Addr6            netip.Addr // the IPv6 source of a dual-stack master, else not valid
	AdvBase, AdvSkew uint8
	Demotion         uint8
	At               time.Time // of its last advert

	Node uint64 // its id, if it has a trailer, else 0

	counter uint64 // of that advert
}

func (s *MasterSeen) gone(now time.Time) bool {
	return now.Sub(s.At) > 3*carp.Interval(s.AdvBase, s.AdvSkew)
}

// sameSender reports whether an advert of the other family comes from the same
// master. A trailer says so. Without one, all count the frames of a pair one after
// the other (FreeBSD and NetBSD), by a step (we), or alike (OpenBSD). Before it has
// heard anybody FreeBSD counts at random: then it is listed under both addresses.
func (s *MasterSeen) sameSender(r *carp.Heard) bool {
	if s.Node != 0 || r.Node != 0 {
		return s.Node == r.Node
	}
	const near = carp.FamilyStep
	d := r.Counter - s.counter
	return r.From.Is4() != s.Addr.Is4() && !s.Addr6.IsValid() && (d <= near || -d <= near)
}

// saw remembers the sender of a believed advert; under mu.
func (g *Group) saw(r *carp.Heard, now time.Time) {
	m := MasterSeen{
		Addr: r.From, AdvBase: r.AdvBase, AdvSkew: r.AdvSkew, Demotion: r.Demotion,
		At: now, Node: r.Node, counter: r.Counter,
	}
	g.masters = slices.DeleteFunc(g.masters, func(s MasterSeen) bool {
		switch {
		case s.gone(now):
			return true
		case s.Node == r.Node && (s.Addr == r.From || s.Addr6 == r.From):
			m.Addr, m.Addr6 = s.Addr, s.Addr6
			return true
		case !s.sameSender(r):
			return false
		case r.From.Is4() && s.Addr.Is6():
			m.Addr6 = s.Addr
		case r.From.Is6() && s.Addr.Is4():
			m.Addr, m.Addr6 = s.Addr, r.From
		}
		return true // or the node's address is another one now
	})
	if r.Goodbye() || len(g.masters) >= mastersMax {
		return
	}
	g.masters = append(g.masters, m)
}

// families watches over the two families of a dual-stack group. One election needs
// only one of them, so the loss of the other would go unseen until it matters.
type families struct {
	last4, last6 time.Time // believed adverts, or when the group began to listen for them
	silent       string    // the family that is not heard while the other one is: IPv4, IPv6, or ""
	alarms       uint64    // how often one fell silent
}

// heard notes an advert; it reports the family that fell silent alone, or that came
// back.
func (f *families) heard(r *carp.Heard, now time.Time) (silent, back string) {
	if r.Goodbye() {
		f.last4, f.last6 = time.Time{}, time.Time{}
		return "", ""
	}
	this, other, name, otherName := &f.last6, &f.last4, "IPv6", "IPv4"
	if r.From.Is4() {
		this, other, name, otherName = other, this, otherName, name
	}
	// Nearly four intervals: three adverts in a row are missing, and one was late.
	limit := carp.Interval(r.AdvBase, r.AdvSkew) * 15 / 4
	if now.Sub(*this) > limit { // a master that is new, or back
		*other = now
	}
	*this = now
	switch {
	case f.silent == name:
		f.silent = ""
		return "", name
	case f.silent == "" && now.Sub(*other) > limit:
		f.silent = otherName
		f.alarms++
		return otherName, ""
	}
	return "", ""
}

// watchFamilies says once when one family of a dual-stack group falls silent.
func (g *Group) watchFamilies(r *carp.Heard, now time.Time) {
	if !g.has4 || !g.has6 {
		return
	}
	g.mu.Lock()
	silent, back := g.families.heard(r, now)
	g.mu.Unlock()
	switch {
	case silent != "":
		g.log.Warn("one family of adverts is silent while the other is heard: look at multicast snooping and filters on the way",
			zap.String("group", g.cfg.Name), zap.String("carpdev", g.cfg.Carpdev),
			zap.String("silent", silent), zap.Stringer("heard_from", r.From))
	case back != "":
		g.log.Info("the silent family of adverts is heard again",
			zap.String("group", g.cfg.Name), zap.String("carpdev", g.cfg.Carpdev), zap.String("family", back))
	}
}
