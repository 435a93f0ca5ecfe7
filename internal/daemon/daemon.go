package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	stdsync "sync"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/carp/group"
	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/ct"
	"github.com/xcarp/xcarp/internal/loader"
	"github.com/xcarp/xcarp/internal/sync"
)

// Paths are the directories of a node; several nodes on one machine differ in
// all of them.
type Paths struct {
	Run   string // socket and lock; may go with a reboot
	State string // terms, identity; must not
	Pin   string // on a BPF file system
}

// Daemon is one node.
type Daemon struct {
	cfg     *config.Config
	paths   Paths
	log     *zap.Logger
	started time.Time

	locks    []io.Closer
	joined   []io.Closer      // multicast groups
	carpdevs map[int]*carpdev // by ifindex
	members  []*member
	facts    *hostFacts
	changes  *subscription
	unicast  *unicast
	keeper   *keeper
	terms    *terms
	identity *identity
	metrics  *metrics
	control  *control
	scrape   *scrape // nil without metrics.listen
	tracking *tracking
	start    *starter
	hooks    *hooks
	operator *operator

	table  *ct.Table
	mirror *sync.Mirror // nil without a sync section

	suspects chan suspicious // bounded: a flood need not be looked at whole

	mu        stdsync.Mutex
	roles     map[string]sync.GroupRole
	marksTurn int
	keyIDs    []string // of the keys in use, the signing one first
}

// New opens all that the node needs, in the network namespace of the caller,
// and takes back what it did when it fails.
func New(cfg *config.Config, paths Paths, log *zap.Logger) (*Daemon, error) {
	d := &Daemon{
		cfg:      cfg,
		paths:    paths,
		log:      log,
		started:  time.Now(),
		carpdevs: map[int]*carpdev{},
		roles:    map[string]sync.GroupRole{},
		suspects: make(chan suspicious, 16),
		keyIDs:   keyIDs(cfg.Keys),
	}
	if err := d.open(); err != nil {
		for _, dev := range d.carpdevs {
			if dev.port != nil {
				err = errors.Join(err, dev.port.Undo())
				dev.port = nil
			}
		}
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *Daemon) open() error {
	if err := capable(); err != nil {
		return err
	}
	lock, err := lockRunDir(d.paths.Run)
	if err != nil {
		return err
	}
	d.locks = append(d.locks, lock)
	byName, err := d.findCarpdevs()
	if err != nil {
		return err
	}
	if d.terms, err = openTerms(d.paths.State, d.log); err != nil {
		return err
	}
	if d.keeper, err = newKeeper(d.log, time.Now); err != nil {
		return err
	}
	if d.facts, err = newHostFacts(d.log, d.shared(), d.carpdevs, d.keeper.Changed); err != nil {
		return err
	}
	d.facts.anew = d.startOver
	if d.changes, err = d.facts.subscribe(); err != nil {
		return err
	}
	d.start = newStarter(d.log)
	if d.tracking, err = d.newTracking(); err != nil {
		return err
	}
	if d.hooks, err = newHooks(d.cfg, d.log); err != nil {
		return err
	}
	known := func(name string) bool { return d.cfg.Group(name) != nil }
	if d.operator, err = openOperator(d.paths.State, d.log, known, d.demoteByOperator); err != nil {
		return err
	}
	d.metrics = newMetrics(d.Status)
	if d.control, err = listenControl(d.paths.Run, d.log, d, d.metrics, d.operator.Handle); err != nil {
		return err
	}
	if addr := d.cfg.Metrics.Listen; addr != "" {
		if d.scrape, err = listenScrape(addr, d.metrics); err != nil {
			return err
		}
	}
	for _, dev := range d.carpdevs {
		if dev.port, err = loader.Open(dev.name, loader.Options{PinDir: d.paths.Pin, Mode: loader.Mode(d.cfg.XDP), Log: d.log}); err != nil {
			return err
		}
	}
	for _, dev := range d.carpdevs {
		if dev.ears, err = newEars(dev, d.log, func(e carp.Ears) { d.heard(dev, e) }); err != nil {
			return fmt.Errorf("listen on carpdev %s: %w", dev.name, err)
		}
	}
	if d.identity, err = openIdentity(d.paths.State, d.log); err != nil {
		return err
	}
	d.locks = append(d.locks, d.identity)
	if err := d.openSync(); err != nil {
		return err
	}
	if d.unicast, err = newUnicast(d.log, d.shared()); err != nil {
		return err
	}
	if err := d.forget(byName); err != nil {
		return err
	}
	for i := range d.cfg.Groups {
		g := &d.cfg.Groups[i]
		m, err := d.newMember(g, byName[g.Carpdev])
		if err != nil {
			return fmt.Errorf("group %s: %w", g.Name, err)
		}
		d.members = append(d.members, m)
	}
	d.bundle()
	d.start.Begin()
	d.operator.Begin()
	d.facts.readLinks()
	return nil
}

// findCarpdevs looks the carpdevs up and locks them.
func (d *Daemon) findCarpdevs() (map[string]*carpdev, error) {
	byName := map[string]*carpdev{}
	for i := range d.cfg.Groups {
		name := d.cfg.Groups[i].Carpdev
		if byName[name] != nil {
			continue
		}
		l, err := netlink.LinkByName(name)
		if err != nil {
			return nil, fmt.Errorf("carpdev %s: %w", name, err)
		}
		index := l.Attrs().Index
		lock, err := lockCarpdev(name, index)
		if err != nil {
			return nil, err
		}
		dev := &carpdev{name: name, ifindex: index, lock: lock}
		d.locks = append(d.locks, lock)
		d.carpdevs[index], byName[name] = dev, dev
	}
	return byName, nil
}

// shared is the set of all shared addresses, which are nobody's own.
func (d *Daemon) shared() map[netip.Addr]bool {
	s := map[netip.Addr]bool{}
	for i := range d.cfg.Groups {
		for _, p := range d.cfg.Groups[i].Addresses {
			s[p.Addr()] = true
		}
	}
	return s
}

func (d *Daemon) openSync() error {
	if d.cfg.Sync == nil {
		return nil
	}
	var err error
	if d.table, err = ct.Open(ct.Options{Log: d.log}); err != nil {
		return err
	}
	s := d.cfg.Sync
	peers := map[string]netip.AddrPort{}
	for name, a := range s.Peers {
		peers[name] = netip.AddrPortFrom(a, s.Port)
	}
	keys, err := syncKeys(d.cfg.Keys)
	if err != nil {
		return err
	}
	d.mirror, err = sync.New(sync.Config{
		Node:      d.cfg.Node,
		Key:       keys[0],
		Keys:      keys[1:],
		Dev:       s.Dev,
		Local:     netip.AddrPortFrom(s.Local, s.Port),
		Peers:     peers,
		Hold:      s.Hold,
		Table:     d.table,
		NotShared: d.facts.Local,
		Demote:    d.demoteBySync,
		OnRoles:   d.peerRoles,
		Log:       d.log,
	})
	return err
}

// sysctls sets what mirroring needs and an operator may not know.
func (d *Daemon) sysctls() {
	changed, err := ct.EnsureSysctls()
	for key, was := range changed {
		d.log.Info("sysctl set", zap.String("sysctl", key), zap.String("was", was))
	}
	if err != nil {
		d.log.Warn("sysctls: connections may be cut off after a takeover", zap.Error(err))
	}
}

// Run runs the node until the context ends, then hands it over and returns.
func (d *Daemon) Run(ctx context.Context) error {
	defer func() {
		if err := d.close(); err != nil {
			d.log.Warn("on the way out", zap.Error(err))
		}
	}()
	// Two generations: what the groups need outlives them by an orderly stop,
	// also when a part of it fails and the groups have to leave for that.
	base, endBase := context.WithCancel(context.WithoutCancel(ctx))
	defer endBase()
	ctx, stopGroups := context.WithCancel(ctx)
	defer stopGroups()
	var support errgroup.Group
	run := func(part func(context.Context) error) {
		support.Go(func() error {
			err := part(base)
			if err != nil {
				stopGroups()
			}
			return err
		})
	}
	groups, ctx := errgroup.WithContext(ctx)

	run(d.terms.Run)
	run(d.identity.Run)
	run(d.keeper.Run)
	run(d.unicast.Run)
	run(func(ctx context.Context) error { return d.facts.Run(ctx, d.changes) })
	run(d.start.Run)
	run(d.tracking.Run)
	run(d.hooks.Run)
	run(d.operator.Run)
	run(d.control.Run)
	if d.scrape != nil {
		run(d.scrape.Run)
	}
	if d.mirror != nil {
		d.sysctls()
		run(d.mirror.Run)
	}
	run(d.investigate)
	for _, dev := range d.carpdevs {
		run(func(ctx context.Context) error { return d.sample(ctx, dev) })
		run(dev.ears.Run)
	}
	run(d.liveness)
	run(d.keepMarks)
	run(d.watchdog)
	run(d.hangup)
	for _, m := range d.members {
		groups.Go(func() error { return m.group.Run(ctx) })
	}
	for _, dev := range d.carpdevs {
		if err := dev.port.Renew(); err != nil { // by now the groups have adopted their leases
			d.log.Error("the programs of the version before stay on", zap.Error(err))
		}
	}
	if _, err := sd.SdNotify(false, sd.SdNotifyReady); err != nil {
		d.log.Warn("systemd not told that we are ready", zap.Error(err))
	}
	for _, dev := range d.carpdevs {
		d.log.Info("dataplane", zap.String("carpdev", dev.name), zap.String("mode", string(dev.port.Mode())), zap.String("answer", dev.port.Answer()))
	}
	d.log.Info("running", zap.String("node", d.cfg.Node), zap.Int("groups", len(d.members)), zap.String("config", d.cfg.Path), zap.String("hash", d.cfg.Hash))

	err := groups.Wait()
	_, _ = sd.SdNotify(false, sd.SdNotifyStopping)
	endBase()
	return errors.Join(ignoreCanceled(err), ignoreCanceled(support.Wait()))
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// livenessEvery is how often each election gives a sign of life.
const livenessEvery = 100 * time.Millisecond

// liveness asks every election for signs of life.
func (d *Daemon) liveness(ctx context.Context) error {
	t := time.NewTicker(livenessEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			for _, m := range d.members {
				m.group.Stamp()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// hung returns an election that has given no sign of life for a second.
func (d *Daemon) hung() *member {
	limit := carp.SinceBoot(group.BootClock().Add(-time.Second))
	for _, m := range d.members {
		if m.alive.Load() < int64(limit) {
			return m
		}
	}
	return nil
}

// watchdog tells systemd that we are alive, if it asked: as long as every election
// is. Otherwise systemd ends the process, and the next one adopts what it can.
func (d *Daemon) watchdog(ctx context.Context) error {
	every, err := sd.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return nil
	}
	t := time.NewTicker(every / 3)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if m := d.hung(); m != nil {
				d.log.Error("the election does not move: no sign of life for the watchdog", zap.String("group", m.cfg.Name))
				continue
			}
			if _, err := sd.SdNotify(false, sd.SdNotifyWatchdog); err != nil {
				d.log.Warn("systemd not told that we are alive", zap.Error(err))
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// startOver replaces this process by a new one of the same program, as after a
// crash: what is on the other carpdevs is adopted, so nobody notices there, and the
// interface that was made anew gets its programs.
func (d *Daemon) startOver(dev string) {
	d.log.Warn("the carpdev was made anew: starting over in place", zap.String("carpdev", dev))
	_ = d.log.Sync()
	if err := unix.Exec("/proc/self/exe", os.Args, os.Environ()); err != nil {
		d.log.Error("start over", zap.Error(err))
	}
}

// hangup answers SIGHUP: it checks the configuration on disk and says whether a
// restart would change anything. A restart within the lease is not noticed.
func (d *Daemon) hangup(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-hup:
			if err := d.reloadKeys(); err != nil {
				d.log.Error("the keys stay as they are", zap.Error(err))
			}
			next, err := config.Load(d.cfg.Path, os.Getenv)
			switch {
			case err != nil:
				d.log.Error("the configuration on disk is wrong, the running one stays", zap.Error(err))
			case next.Hash != d.cfg.Hash:
				d.log.Warn("the configuration on disk differs: restart to apply it", zap.String("hash", next.Hash))
			default:
				d.log.Info("the configuration on disk is the running one")
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// close lets go of everything; what is pinned stays and works.
func (d *Daemon) close() error {
	var errs []error
	for _, dev := range d.carpdevs {
		if dev.adverts != nil {
			errs = append(errs, dev.adverts.Close())
		}
		if dev.port != nil {
			errs = append(errs, dev.port.Close())
		}
	}
	if d.unicast != nil {
		d.unicast.Close()
	}
	if d.table != nil {
		errs = append(errs, d.table.Close())
	}
	if d.control != nil {
		d.control.listener.Close() // closed already unless Run was never reached
	}
	if d.scrape != nil {
		d.scrape.listener.Close()
	}
	if d.tracking != nil {
		d.tracking.watcher.Close() // closed already unless Run was never reached
	}
	for _, j := range d.joined {
		errs = append(errs, j.Close())
	}
	for _, l := range d.locks {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// Status takes a snapshot of the node.
func (d *Daemon) Status() Status {
	s := Status{
		Node:     d.cfg.Node,
		Version:  buildVersion,
		Config:   d.cfg.Path,
		Hash:     d.cfg.Hash,
		Uptime:   time.Since(d.started).Seconds(),
		Groups:   []GroupStatus{},
		Carpdevs: []CarpdevStatus{},
		Sync:     []SyncStatus{},
	}
	counters := map[*carpdev]map[uint8]map[string]uint64{}
	for _, dev := range d.carpdevs {
		c, err := dev.port.Counters()
		if err != nil {
			d.log.Warn("dataplane counters", zap.String("carpdev", dev.name), zap.Error(err))
		}
		counters[dev] = c
		s.Carpdevs = append(s.Carpdevs, CarpdevStatus{Name: dev.name, Packets: c[0]})
	}
	now := group.BootClock()
	for _, m := range d.members {
		g := m.status(counters[m.dev][m.cfg.VHID], now)
		g.Waits = d.start.Waits(m)
		g.Ready = len(g.Waits) == 0
		s.Groups = append(s.Groups, g)
	}
	s.Tracks, s.Hooks, s.Demotions = d.tracking.Status(), d.hooks.Status(), d.operator.Status()
	if d.mirror != nil {
		for _, p := range d.mirror.Status() {
			s.Sync = append(s.Sync, syncStatus(p))
		}
		if n, max, err := d.table.Count(); err == nil {
			s.Table = &TableStatus{Entries: n, Max: max}
		}
	}
	return s
}
