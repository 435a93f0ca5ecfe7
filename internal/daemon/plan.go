package daemon

import (
	"errors"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/config"
)

// apply makes the node what the configuration says, as far as groups are
// concerned, or leaves it as it was. A group that goes says goodbye, one that only
// has other settings goes on in its role. The caller holds d.change.
func (d *Daemon) apply(next *config.Config) error {
	if d.running == nil || d.running.Err() != nil {
		return errors.New("the daemon is stopping")
	}
	before := d.now.Load()
	opened, err := d.openCarpdevs(next)
	if err != nil {
		return err
	}
	defer d.done()
	p := d.plan(next)
	quiet := len(opened)+len(p.gone)+len(p.enter) == 0
	if err := d.carryOut(p); err != nil {
		return errors.Join(err, d.restore(before))
	}
	d.settled()
	d.operator.Forget(func(group string) bool { return had(before, group) && !had(next, group) })
	for _, dev := range opened {
		d.log.Info("dataplane", zap.String("carpdev", dev.name), zap.String("mode", string(dev.port.Mode())), zap.String("answer", dev.port.Answer()))
	}
	if err := d.closeCarpdevs(next); err != nil { // the change is made all the same
		d.log.Warn("something of a carpdev that no group has stays behind", zap.Error(err))
	}
	if !quiet {
		d.log.Info("configuration changed", zap.Int("groups", len(d.members())), zap.String("hash", next.Hash))
	}
	return nil
}

// plan is what has to happen for a configuration to run.
type plan struct {
	to     *config.Config
	gone   []*member                // leave
	change []*member                // have other settings in it
	want   map[string]*config.Group // its groups, by name
	enter  []*config.Group          // of them, those that are new
}

// plan compares what runs with what shall run.
func (d *Daemon) plan(to *config.Config) *plan {
	p := &plan{to: to, want: map[string]*config.Group{}}
	for _, g := range takingPart(to) {
		p.want[g.Name] = g
	}
	runs := map[string]bool{}
	for _, m := range d.members() {
		g := p.want[m.cfg.Name]
		switch {
		case g == nil || g.VHID != m.cfg.VHID || g.Carpdev != m.cfg.Carpdev || leader(g) != leader(m.cfg):
			p.gone = append(p.gone, m)
			continue
		case !same(g, m.cfg) || to.SendErr != m.sendErr || to.IfDown != m.ifDown || d.suspended[g.Name] == m:
			p.change = append(p.change, m)
		}
		runs[g.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(p.want)) {
		if !runs[name] {
			p.enter = append(p.enter, p.want[name])
		}
	}
	return p
}

// carryOut makes what runs into what the plan says. Whatever may be refused and can
// be undone comes before the first goodbye, which cannot.
func (d *Daemon) carryOut(p *plan) error {
	from := d.now.Load()
	both := shared(from)
	maps.Copy(both, shared(p.to))
	d.facts.Share(both)
	d.hooks.Follow(from.Hooks, p.to.Hooks)
	d.now.Store(p.to)
	for _, m := range p.change {
		if err := d.replace(m, p.want[m.cfg.Name]); err != nil {
			return err
		}
	}
	var later []*config.Group
	for _, g := range p.enter {
		if slices.ContainsFunc(p.gone, func(m *member) bool { return collide(m.cfg, g) }) {
			later = append(later, g)
			continue
		}
		if err := d.enter(g, nil); err != nil {
			return err
		}
	}
	d.leave(p.gone)
	for _, g := range later {
		if err := d.enter(g, nil); err != nil {
			return err
		}
	}
	d.facts.Share(shared(p.to))
	d.hooks.Follow(p.to.Hooks)
	return nil
}

// collide reports whether two groups cannot be at the same time.
func collide(a, b *config.Group) bool {
	return a.Name == b.Name || a.Carpdev == b.Carpdev && a.VHID == b.VHID ||
		slices.ContainsFunc(a.Addresses, func(p netip.Prefix) bool {
			return slices.ContainsFunc(b.Addresses, func(q netip.Prefix) bool { return p.Addr() == q.Addr() })
		})
}

// settled tells the members what they have to know of each other, after a change.
func (d *Daemon) settled() {
	d.bundle()
	d.demotedAll()
	d.facts.readLinks()
}

// same reports whether two configurations of a group are one to its election.
func same(a, b *config.Group) bool {
	x, y := *a, *b
	x.Down, y.Down = false, false
	return reflect.DeepEqual(x, y)
}

// leader is the vhid that the addresses of a group are found by.
func leader(g *config.Group) uint8 {
	if len(g.CarpNodes) > 0 {
		return g.CarpNodes[0].VHID
	}
	return g.VHID
}

// restore goes back to what ran before a change that failed on the way, as far as
// that is possible: an interface may have vanished between the check and the change.
func (d *Daemon) restore(before *config.Config) error {
	d.log.Error("the change failed on the way, going back")
	d.now.Store(before)
	p := d.plan(before)
	d.leave(p.gone)
	var errs []error
	for _, m := range p.change {
		g := p.want[m.cfg.Name]
		if d.suspended[g.Name] == m {
			if err := d.enter(g, m); err != nil {
				errs = append(errs, err)
				d.drop(m)
				continue
			}
			d.succeeded(m)
			continue
		}
		if err := d.replace(m, g); err != nil {
			errs = append(errs, err)
			d.drop(m)
		}
	}
	for _, g := range p.enter {
		if d.carpdevs.Named(g.Carpdev) != nil {
			errs = append(errs, d.enter(g, nil))
		}
	}
	d.facts.Share(shared(before))
	d.hooks.Follow(before.Hooks)
	d.settled()
	return errors.Join(append(errs, d.closeCarpdevs(before))...)
}
