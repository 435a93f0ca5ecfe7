package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/carp/group"
	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/loader"
)

// takingPart lists the elections of a configuration that run: one for a group, or
// one for each vhid that shares its addresses.
func takingPart(cfg *config.Config) []*config.Group {
	var all []*config.Group
	for i := range cfg.Groups {
		if g := &cfg.Groups[i]; !cfg.Idle && !g.Down {
			all = append(all, g.Elections()...)
		}
	}
	return all
}

// carpdevNames lists the carpdevs of all groups, also of those that take no part.
func carpdevNames(cfg *config.Config) []string {
	var all []string
	for i := range cfg.Groups {
		all = append(all, cfg.Groups[i].Carpdev)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// shared is the set of all shared addresses, which are nobody's own.
func shared(cfg *config.Config) map[netip.Addr]bool {
	s := map[netip.Addr]bool{}
	for i := range cfg.Groups {
		for _, p := range cfg.Groups[i].Addresses {
			s[p.Addr()] = true
		}
	}
	return s
}

// members returns the groups that take part. The slice is never changed.
func (d *Daemon) members() []*member {
	if m := d.taking.Load(); m != nil {
		return *m
	}
	return nil
}

// join adds a member to those that take part, in the place of another one or of
// none.
func (d *Daemon) join(m, old *member) {
	next := append(slices.DeleteFunc(slices.Clone(d.members()), func(o *member) bool { return o == old }), m)
	slices.SortFunc(next, func(a, b *member) int { return strings.Compare(a.cfg.Name, b.cfg.Name) })
	d.taking.Store(&next)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.left, m.cfg.Name)
}

// part takes a member out.
func (d *Daemon) part(m *member) {
	next := slices.DeleteFunc(slices.Clone(d.members()), func(o *member) bool { return o == m })
	d.taking.Store(&next)
}

// findCarpdev looks an interface up and locks it.
func findCarpdev(name string) (*carpdev, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("carpdev %s: %w", name, err)
	}
	index := l.Attrs().Index
	lock, err := lockCarpdev(name, index)
	if err != nil {
		return nil, err
	}
	dev := &carpdev{name: name, ifindex: index, mtu: l.Attrs().MTU, lock: lock, sampled: make(chan struct{})}
	dev.open, dev.letGo = context.WithCancel(context.Background())
	return dev, nil
}

// attach puts the dataplane onto the carpdev, or adopts it.
func (d *Daemon) attach(dev *carpdev) (err error) {
	dev.port, err = loader.Open(dev.name, loader.Options{PinDir: d.paths.Pin, Mode: loader.Mode(d.cfg.XDP), Log: d.log})
	if err != nil {
		return err
	}
	if dev.ears, err = newEars(dev, d.log, d.isShared, func(e carp.Ears) { d.heard(dev, e) }); err != nil {
		return fmt.Errorf("listen on carpdev %s: %w", dev.name, err)
	}
	return nil
}

// launch runs the election of a member until it is ended or the node leaves.
func (d *Daemon) launch(m *member) {
	var ctx context.Context
	ctx, m.end = context.WithCancelCause(d.running)
	d.groups.Go(func() error {
		defer close(m.done)
		defer m.end(nil)
		return m.group.Run(ctx)
	})
}

// errLeave ends a group in an orderly way.
var errLeave = errors.New("taken out of the configuration")

// leave ends members: each drains, says goodbye and is forgotten by the dataplane. It
// cannot be undone, so it does not fail: what stays behind is said.
func (d *Daemon) leave(gone []*member) {
	cfg := d.now.Load()
	for _, m := range gone {
		d.mu.Lock()
		d.left[m.cfg.Name] = time.Now()
		d.mu.Unlock()
		d.log.Info("leaving", zap.String("group", m.cfg.Name), zap.String("reason", whyGone(cfg, m.cfg.Name)))
		m.end(errLeave)
	}
	// The fence of addresses that several vhids share is that of one of them, and
	// stays until the kernel has them no more, for which it would answer.
	var errs []error
	for _, m := range gone {
		<-m.done
		d.part(m)
		m.offUp()
		m.demoteSiblings("link "+m.dev.name, false)
		m.demoteSiblings("deaf "+m.dev.name, false)
		d.start.Remove(m)
		d.unicast.Drop(m.peers)
		d.keeper.Disown(m.cfg.Name)
		d.forgetRole(m.cfg.Name)
		errs = append(errs, m.joined.Close())
	}
	for _, m := range gone {
		errs = append(errs, m.dev.port.DeleteGroup(m.cfg.VHID))
	}
	if err := errors.Join(errs...); err != nil {
		d.log.Warn("something of a group that left stays behind", zap.Error(err))
	}
}

// idleSince is when a group that takes no part left, or when the daemon began without it.
func (d *Daemon) idleSince(group string) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, ok := d.left[group]; ok {
		return at
	}
	return d.started
}

// whyGone says why a group takes no part any more.
func whyGone(cfg *config.Config, group string) string {
	if cfg.Idle || cfg.Has(group) {
		return whyIdle(cfg)
	}
	return errLeave.Error()
}

// whyIdle says why groups of a configuration take no part.
func whyIdle(cfg *config.Config) string {
	if cfg.Idle {
		return "net.inet.carp.allow is 0"
	}
	return "administratively down"
}

// forgetRole takes a group out of what the peers are told.
func (d *Daemon) forgetRole(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.roles, name)
	if d.mirror != nil {
		d.tellRoles()
	}
}

// replace ends a member without a word to anybody, and puts one with the new
// settings in its place, which adopts role and lease as after a restart. If that
// fails, the place of the old one is kept for restore.
func (d *Daemon) replace(old *member, g *config.Group) error {
	d.suspend(old)
	if err := d.enter(g, old); err != nil {
		return err
	}
	d.succeeded(old)
	return nil
}

// suspend ends a member without a word to anybody. Its place, its sockets and its
// addresses are kept until somebody takes them over, or drop.
func (d *Daemon) suspend(m *member) {
	m.end(group.ErrReplaced)
	<-m.done
	m.offUp()
	m.demoteSiblings("deaf "+m.dev.name, false)
	d.suspended[m.cfg.Name] = m
}

// succeeded notes that another one has taken the place of a suspended member. Its
// memberships are kept until done: the way back must not need what may be short.
func (d *Daemon) succeeded(m *member) {
	delete(d.suspended, m.cfg.Name)
	d.unicast.Drop(m.peers)
	d.former = append(d.former, m)
}

// done lets go of what was kept for the way back.
func (d *Daemon) done() {
	for _, m := range d.former {
		if m.joined != nil {
			if err := m.joined.Close(); err != nil {
				d.log.Warn("multicast groups not left", zap.String("group", m.cfg.Name), zap.Error(err))
			}
		}
	}
	d.former = nil
}

// drop lets go of a suspended member whose place nobody can take.
func (d *Daemon) drop(m *member) {
	d.part(m)
	m.demoteSiblings("link "+m.dev.name, false)
	d.start.Remove(m)
	d.keeper.Disown(m.cfg.Name)
	d.succeeded(m)
	if err := m.dev.port.DeleteGroup(m.cfg.VHID); err != nil {
		d.log.Warn("something of a group that ended stays behind", zap.String("group", m.cfg.Name), zap.Error(err))
	}
	d.forgetRole(m.cfg.Name)
}

// enter makes a group take part, perhaps in the place of another that has ended,
// and waits until its election has begun.
func (d *Daemon) enter(g *config.Group, old *member) error {
	if old == nil {
		d.identity.Renew() // a group of its name may have said things before
	}
	m, err := d.newMember(g, d.carpdevs.Named(g.Carpdev), old)
	if err != nil {
		return fmt.Errorf("group %s: %w", g.Name, err)
	}
	m.group.Demote(ownerOperator, d.operatorDemotion())
	if old != nil {
		for owner, n := range old.group.Status().DemotedBy {
			if owner != ownerSendErr { // that is the machine's own, and about a socket that is gone
				m.group.Demote(owner, n)
			}
		}
	}
	heard, _ := m.dev.ears.State()
	m.group.Ears(heard)
	d.start.Begin()
	d.launch(m)
	m.group.Stamp()
	select {
	case <-m.awake: // it has adopted what it could
	case <-m.done:
	}
	d.join(m, old)
	// What has changed before join did not reach it.
	m.group.Demote(ownerOperator, d.operatorDemotion())
	d.demoted(m)
	if d.mirror != nil {
		d.followSync(m)
	}
	d.start.Synced(d.synced())
	return nil
}

// The owner of demotion that the machine itself speaks for.
const ownerSendErr = "senderr"

// openCarpdevs opens the carpdevs that the configuration has and this node has
// not yet: all of them, or none.
func (d *Daemon) openCarpdevs(next *config.Config) (opened []*carpdev, err error) {
	for _, name := range carpdevNames(next) {
		if d.carpdevs.Named(name) != nil {
			continue
		}
		var dev *carpdev
		if dev, err = findCarpdev(name); err == nil {
			if err = d.attach(dev); err == nil {
				opened = append(opened, dev)
				continue
			}
			if dev.port != nil {
				err = errors.Join(err, dev.port.Undo())
			}
			dev.lock.Close()
			dev.letGo()
		}
		for _, dev := range opened {
			dev.ears.close()
			dev.letGo()
			err = errors.Join(err, dev.port.Undo(), dev.lock.Close())
		}
		return nil, err
	}
	for _, dev := range opened {
		d.carpdevs.Add(dev)
		d.listen(dev)
	}
	return opened, nil
}

// closeCarpdevs takes the dataplane off carpdevs that no group has any more.
func (d *Daemon) closeCarpdevs(next *config.Config) error {
	wanted := carpdevNames(next)
	var errs []error
	for _, dev := range d.carpdevs.All() {
		if !slices.ContainsFunc(d.members(), func(m *member) bool { return m.dev == dev }) {
			errs = append(errs, dev.hush())
		}
		if slices.Contains(wanted, dev.name) {
			continue
		}
		d.carpdevs.Remove(dev)
		dev.ears.Stop()
		dev.letGo()
		<-dev.sampled
		errs = append(errs, dev.port.Close())
		_, err := loader.DetachPort(d.paths.Pin, dev.name)
		errs = append(errs, err, dev.lock.Close())
		d.log.Info("carpdev let go", zap.String("carpdev", dev.name))
	}
	return errors.Join(errs...)
}

// onlyGroups reports whether a change (of what is no key: see reloadKeys) concerns nothing but groups and the level of
// the log: what a running daemon can follow.
func onlyGroups(a, b *config.Config) bool {
	return a.Node == b.Node && a.HasKey == b.HasKey && a.XDP == b.XDP && a.Metrics == b.Metrics &&
		reflect.DeepEqual(syncOf(a), syncOf(b)) && reflect.DeepEqual(a.Ready, b.Ready) &&
		reflect.DeepEqual(tracksOf(a), tracksOf(b)) && reflect.DeepEqual(hooksOf(a), hooksOf(b))
}

// tracksOf is what is tracked, whichever groups need it.
func tracksOf(c *config.Config) []config.Track {
	all := slices.Clone(c.Tracks)
	for i := range all {
		all[i].Groups = nil
	}
	return all
}

// hooksOf is what is told, of whichever groups.
func hooksOf(c *config.Config) []config.Hook {
	all := slices.Clone(c.Hooks)
	for i := range all {
		all[i].Groups = nil
	}
	return all
}

// had reports whether a configuration has a group, complete or not.
func had(c *config.Config, group string) bool {
	return c.Has(group) || slices.ContainsFunc(c.Drafts, func(d config.Draft) bool { return d.Name == group })
}

// demoted tells a group what tracks and operators demote it by.
func (d *Daemon) demoted(m *member) {
	d.tracking.Join(m, d.now.Load())
	d.operator.Each(func(what Demotion) {
		n := 0
		if d.now.Load().Concerns(what.Group, m.cfg.Name) {
			n = what.By
		}
		m.group.Demote(what.Owner(), n)
	})
}

// demotedAll tells all, whose bundles may have changed.
func (d *Daemon) demotedAll() {
	for _, m := range d.members() {
		d.demoted(m)
	}
	d.tracking.Told(d.start)
}

// syncOf is the sync section without our own address, which may be left to the
// machine.
func syncOf(c *config.Config) *config.Sync {
	if c.Sync == nil || !c.Sync.ByAddress {
		return c.Sync
	}
	s := *c.Sync
	s.Local = netip.Addr{}
	return &s
}

// checked holds a configuration against this machine. What was wrong before, too,
// is no reason to refuse a change. It returns the new warnings.
func (d *Daemon) checked(next *config.Config) (warnings []*config.Problem, err error) {
	sys, err := config.Facts()
	if err != nil {
		return nil, fmt.Errorf("look at this machine: %w", err)
	}
	known := map[string]bool{}
	for _, p := range config.Check(d.now.Load(), sys) {
		known[p.Error()] = true
	}
	var errs []error
	for _, p := range config.Check(next, sys) {
		switch {
		case known[p.Error()]:
		case p.Warning:
			warnings = append(warnings, &p)
		default:
			errs = append(errs, &p)
		}
	}
	return warnings, errors.Join(errs...)
}

// reload reads the file again and follows it as far as a running daemon can.
func (d *Daemon) reload() {
	d.change.Lock()
	defer d.change.Unlock()
	src := d.now.Load().Source()
	src.Env = os.Getenv
	next, err := src.Load()
	if err == nil {
		_, err = d.checked(next)
	}
	switch {
	case err != nil:
		d.log.Error("the configuration on disk is wrong, the running one stays", zap.Error(err))
		d.outdated(staleRefused, err)
	case next.Hash == d.now.Load().Hash && reflect.DeepEqual(next.Groups, d.now.Load().Groups): // the hash may leave passwords out
		d.log.Info("the configuration on disk is the running one")
		d.outdated("")
	case !onlyGroups(next, d.now.Load()):
		d.log.Warn("the configuration on disk differs in more than groups: xcarp restart applies it", zap.String("hash", next.Hash))
		d.outdated(staleRestart)
	default:
		if err := d.apply(next); err != nil {
			d.log.Error("the configuration on disk was not applied", zap.Error(err))
			d.outdated(staleFailed, err)
			return
		}
		d.outdated("")
		d.setLevel(next)
	}
}

func (d *Daemon) setLevel(cfg *config.Config) {
	if d.SetLevel != nil {
		d.SetLevel(cfg.Log.Level)
	}
}

// withIdle adds what takes no part to the groups of a status, in INIT as carp(4)
// has it.
func (d *Daemon) withIdle(groups []GroupStatus, cfg *config.Config) []GroupStatus {
	idle := func(g GroupStatus, reason string) {
		g.State, g.Reason, g.Since = "INIT", reason, d.idleSince(g.Name)
		g.Demotions, g.MastersSeen = map[string]int{}, []string{}
		g.Drops, g.Packets, g.Alarms = map[string]uint64{}, map[string]uint64{}, map[string]uint64{}
		g.Waits, g.Masters, g.Pulses = []string{}, []MasterStatus{}, []PulseStatus{}
		groups = append(groups, g)
	}
	for i := range cfg.Groups {
		for _, g := range cfg.Groups[i].Elections() {
			if slices.ContainsFunc(groups, func(s GroupStatus) bool { return s.Name == g.Name }) {
				continue
			}
			s := GroupStatus{Name: g.Name, Down: g.Down}
			s.describe(g, d.carpdevs.Named(g.Carpdev))
			idle(s, whyIdle(cfg))
		}
	}
	for _, draft := range cfg.Drafts {
		idle(draftStatus(draft), "not complete: it lacks "+strings.Join(draft.Missing, ", "))
	}
	slices.SortFunc(groups, func(a, b GroupStatus) int { return strings.Compare(a.Name, b.Name) })
	return groups
}

// operatorDemotion is what -g carp carpdemote and net.inet.carp.demotion add up to.
func (d *Daemon) operatorDemotion() int {
	n, _ := d.now.Load().Source().Lines.Value("demotion")
	return n
}

// ownerOperator is the owner of that demotion.
const ownerOperator = "carpdemote"
