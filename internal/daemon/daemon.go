package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	stdsync "sync"
	"sync/atomic"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/carp/group"
	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/ct"
	"github.com/xcarp/xcarp/internal/journal"
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
	cfg     *config.Config // at the start: node, key, sync, xdp, metrics
	paths   Paths
	log     *zap.Logger
	started time.Time

	// SetLevel changes how much is logged; nil: it cannot be changed.
	SetLevel func(level string)

	// Hangup has the SIGHUPs since before the configuration was read, so that none of
	// them ends the process or is lost; nil: nobody asks in that way.
	Hangup chan os.Signal

	// Journal is where log writes to as well; nil: there is none.
	Journal *journal.Journal

	change  stdsync.Mutex                 // one change of the configuration at a time
	now     atomic.Pointer[config.Config] // the running one: groups, bundles, lines
	taking  atomic.Pointer[[]*member]     // the groups that take part
	groups  *errgroup.Group               // of their elections, since Run
	running context.Context               // ends when all groups shall leave
	listen  func(*carpdev)                // begins to listen on a carpdev

	// For who holds change: members that have ended for another to go on in their
	// place, and those whose place was taken in this change, which hold what it takes
	// to go back.
	suspended map[string]*member
	former    []*member

	lock     io.Closer // of the run-dir
	state    *stateDir
	carpdevs carpdevs
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
	story    story
	operator *operator

	table  *ct.Table
	mirror *sync.Mirror // nil without a sync section
	pulses *pulses      // nil without a group that wants them

	stale        atomic.Pointer[StaleStatus]   // nil: what is on disk runs, as far as we were asked
	syncDemotion atomic.Pointer[sync.Demotion] // what the mirror last asked for
	suspects     chan suspicious               // bounded: a flood need not be looked at whole

	mu        stdsync.Mutex
	roles     map[string]sync.GroupRole
	left      map[string]time.Time // by group that takes no part any more: since when
	marksTurn int
	keyIDs    []string // of the keys in use, the signing one first
	keys      []config.Key
}

// New opens all that the node needs, in the network namespace of the caller,
// and takes back what it did when it fails.
func New(cfg *config.Config, paths Paths, log *zap.Logger) (*Daemon, error) {
	d := &Daemon{
		cfg:      cfg,
		paths:    paths,
		log:      log,
		started:  time.Now(),
		roles:    map[string]sync.GroupRole{},
		left:     map[string]time.Time{},
		keyIDs:   keyIDs(cfg.Keys),
		keys:     cfg.Keys,
		suspects: make(chan suspicious, 16),
	}
	d.suspended = map[string]*member{}
	d.now.Store(cfg)
	if err := d.open(); err != nil {
		for _, dev := range d.carpdevs.All() {
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
	var err error
	if d.lock, err = lockRunDir(d.paths.Run); err != nil {
		return err
	}
	for _, name := range carpdevNames(d.cfg) {
		dev, err := findCarpdev(name)
		if err != nil {
			return err
		}
		d.carpdevs.Add(dev)
	}
	d.state = openState(d.paths.State, d.log)
	d.terms = openTerms(d.state, d.log)
	if d.keeper, err = newKeeper(d.log, time.Now); err != nil {
		return err
	}
	if d.facts, err = newHostFacts(d.log, shared(d.cfg), &d.carpdevs, d.keeper.Changed); err != nil {
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
	known := func(name string) bool { return d.now.Load().Has(name) }
	if d.operator, err = openOperator(d.state, d.log, known, d.demoteByOperator); err != nil {
		return err
	}
	d.metrics = newMetrics(d.Status)
	if d.control, err = listenControl(d.paths.Run, d.log, d, d.metrics, d.serveLines, d.operator.Handle, d.serveEvents, d.serveHandover, d.serveRestart); err != nil {
		return err
	}
	if addr := d.cfg.Metrics.Listen; addr != "" {
		if d.scrape, err = listenScrape(addr, d.metrics); err != nil {
			return err
		}
	}
	for _, dev := range d.carpdevs.All() {
		if err = d.attach(dev); err != nil {
			return err
		}
	}
	// It writes, so it comes after what may be refused.
	d.identity = openIdentity(d.state, d.log)
	if err := d.openSync(); err != nil {
		return err
	}
	if err := d.openPulses(); err != nil {
		return err
	}
	if d.unicast, err = newUnicast(d.log, d.facts.Shared); err != nil {
		return err
	}
	if err := d.forget(); err != nil {
		return err
	}
	for _, g := range takingPart(d.cfg) {
		m, err := d.newMember(g, d.carpdevs.Named(g.Carpdev), nil)
		if err != nil {
			return fmt.Errorf("group %s: %w", g.Name, err)
		}
		m.group.Demote(ownerOperator, d.operatorDemotion())
		d.join(m, nil)
	}
	d.operator.Begin()
	d.bundle()
	d.facts.readLinks()
	return nil
}

func (d *Daemon) openSync() error {
	if d.cfg.Sync == nil {
		d.keeper.Incomplete(false) // also for a process before, which may have had a peer
		return nil
	}
	var err error
	if d.table, err = ct.Open(ct.Options{Log: d.log}); err != nil {
		return err
	}
	d.syncDemotion.Store(&sync.Demotion{Held: sync.Incomplete, Others: sync.Incomplete})
	s := d.cfg.Sync
	node := d.cfg.Node
	if s.ByAddress {
		node = s.Local.String()
	}
	peers := map[string]netip.AddrPort{}
	for name, a := range s.Peers {
		peers[name] = netip.AddrPortFrom(a, s.Port)
	}
	keys, err := syncKeys(d.cfg.Keys)
	if err != nil {
		return err
	}
	d.mirror, err = sync.New(sync.Config{
		Node:      node,
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
		Vouched:   func(peer string) bool { return d.pulses.Backs(peer) },
		OnPeer:    d.peerTold,
		Log:       d.log,
	})
	if err == nil {
		d.mirror.SetKeyIDs(idsOf(d.cfg.Keys))
	}
	return err
}

// sysctls sets what mirroring needs and an operator may not know.
func (d *Daemon) sysctls() {
	changed, err := ct.EnsureSysctls()
	maps.Copy(changed, d.table.Changed())
	if err := d.paths.rememberSysctls(changed); err != nil {
		d.log.Warn("sysctls", zap.Error(err))
	}
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
	asked := ctx
	ctx, stopGroups := context.WithCancel(context.WithoutCancel(ctx))
	defer stopGroups()
	defer context.AfterFunc(asked, func() {
		d.handOverAll()
		stopGroups()
	})()
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
	d.groups, d.running = errgroup.WithContext(ctx)
	d.groups.Go(func() error { // so that there is something to wait for also without groups
		<-d.running.Done()
		d.change.Lock() // a change that is under way may still start one
		defer d.change.Unlock()
		return nil
	})

	if d.Journal != nil {
		run(d.Journal.Run)
	}
	if err := precede(); err != nil {
		d.log.Info("the daemon runs at the usual priority", zap.Error(err))
	}
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
		run(d.serveMetrics)
	}
	if d.mirror != nil {
		d.sysctls()
		run(d.mirror.Run)
	}
	if d.pulses != nil {
		run(d.pulses.Run)
	}
	run(d.investigate)
	d.listen = func(dev *carpdev) {
		run(dev.ears.Run)
		run(func(ctx context.Context) error { return d.sample(ctx, dev) })
	}
	for _, dev := range d.carpdevs.All() {
		d.listen(dev)
	}
	run(d.liveness)
	run(d.keepMarks)
	run(d.watchdog)
	run(d.hangup)
	d.change.Lock()
	for _, m := range d.members() {
		d.launch(m)
	}
	d.change.Unlock()
	d.renew() // by now the groups have adopted their leases
	if _, err := sd.SdNotify(false, sd.SdNotifyReady); err != nil {
		d.log.Warn("systemd not told that we are ready", zap.Error(err))
	}
	for _, dev := range d.carpdevs.All() {
		d.log.Info("dataplane", zap.String("carpdev", dev.name), zap.String("mode", string(dev.port.Mode())), zap.String("answer", dev.port.Answer()))
	}
	d.log.Info("running", zap.String("node", d.cfg.Node), zap.Int("groups", len(d.members())), zap.String("config", d.cfg.Path), zap.String("hash", d.cfg.Hash))

	err := d.groups.Wait()
	_, _ = sd.SdNotify(false, sd.SdNotifyStopping)
	endBase()
	return errors.Join(ignoreCanceled(err), ignoreCanceled(support.Wait()))
}

// renew replaces the programs that another version of this one has left.
func (d *Daemon) renew() {
	var errs []error
	for _, dev := range d.carpdevs.All() {
		errs = append(errs, dev.port.Renew())
	}
	if d.pulses != nil && d.pulses.sync != nil {
		errs = append(errs, d.pulses.sync.Renew())
	}
	if err := errors.Join(errs...); err != nil {
		d.log.Error("the programs of the version before stay on", zap.Error(err))
	}
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// livenessEvery is how often each election gives a sign of life.
const livenessEvery = 250 * time.Millisecond

// liveness asks every election for signs of life, and looks after what takes a moment.
func (d *Daemon) liveness(ctx context.Context) error {
	t := time.NewTicker(livenessEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if d.mirror != nil {
				d.story.Tell(d)
			}
			for _, m := range d.members() {
				m.group.Stamp()
				d.lookForFirst(m)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// hung returns an election that has given no sign of life for too long.
func (d *Daemon) hung() *member {
	limit := carp.SinceBoot(group.BootClock().Add(-electionHung))
	for _, m := range d.members() {
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

// startOver replaces this process when an interface was made anew, as soon as
// another one can start: until then this one is better than none. It is asked again
// with every look at the links.
func (d *Daemon) startOver(dev string) {
	if err := startable(d.now.Load()); err != nil {
		if d.outdated(staleRefused, err) {
			d.log.Error("the carpdev was made anew: not starting over, the configuration on disk is wrong", zap.String("carpdev", dev), zap.Error(err))
		}
		return
	}
	d.log.Warn("the carpdev was made anew: starting over in place", zap.String("carpdev", dev))
	d.exec("/proc/self/exe")
}

// startable holds what a process that starts over would read against this machine,
// as that would: also what was wrong before keeps a process from starting.
func startable(cfg *config.Config) error {
	sys, err := config.Facts()
	if err != nil {
		return fmt.Errorf("look at this machine: %w", err)
	}
	src := cfg.Source()
	src.Env = os.Getenv
	_, problems := src.Examine(sys)
	var errs []error
	for _, p := range problems {
		if !p.Warning {
			errs = append(errs, p)
		}
	}
	return errors.Join(errs...)
}

// hangup answers SIGHUP: it reads the configuration on disk and makes the groups
// what that says. For other changes it asks for a restart, which within the lease
// is not noticed.
func (d *Daemon) hangup(ctx context.Context) error {
	for {
		select {
		case <-d.Hangup:
			if err := d.reloadKeys(); err != nil {
				d.log.Error("the keys stay as they are", zap.Error(err))
			}
			d.reload()
		case <-ctx.Done():
			return nil
		}
	}
}

// close lets go of everything; what is pinned stays and works.
func (d *Daemon) close() error {
	var errs []error
	for _, m := range d.members() {
		errs = append(errs, m.joined.Close())
	}
	for _, dev := range d.carpdevs.All() {
		errs = append(errs, dev.hush())
		if dev.port != nil {
			errs = append(errs, dev.port.Close())
		}
		errs = append(errs, dev.lock.Close())
	}
	errs = append(errs, d.pulses.Close())
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
	if d.state != nil {
		errs = append(errs, d.state.Close())
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}

// Status takes a snapshot of the node.
func (d *Daemon) Status() Status {
	cfg := d.now.Load()
	stale := d.stale.Load()
	s := Status{
		Stale:    stale != nil,
		StaleWhy: stale,
		Node:     cfg.Node,
		Version:  buildVersion,
		Config:   cfg.Path,
		Hash:     cfg.Hash,
		Uptime:   time.Since(d.started).Seconds(),
		KeyFile:  absolute(d.cfg.KeyFile),
		Keys:     keyIDs(d.keysNow()),
		Groups:   []GroupStatus{},
		Carpdevs: []CarpdevStatus{},
		Sync:     []SyncStatus{},
	}
	counters := map[*carpdev]map[uint8]map[string]uint64{}
	for _, dev := range d.carpdevs.All() {
		c, err := dev.port.Counters()
		if err != nil {
			d.log.Warn("dataplane counters", zap.String("carpdev", dev.name), zap.Error(err))
		}
		counters[dev] = c
		s.Carpdevs = append(s.Carpdevs, CarpdevStatus{Name: dev.name, Packets: c[0]})
	}
	now := group.BootClock()
	for _, m := range d.members() {
		g := m.status(counters[m.dev][m.cfg.VHID], now)
		g.Waits = d.start.Waits(m)
		g.Ready = len(g.Waits) == 0
		g.Pulses = d.pulses.Status(m)
		s.Groups = append(s.Groups, g)
	}
	s.Groups = d.withIdle(s.Groups, cfg)
	s.Tracks, s.Hooks, s.Demotions = d.tracking.Status(cfg.Tracks), d.hooks.Status(), d.operator.Status()
	if d.mirror != nil {
		for _, p := range d.mirror.Status() {
			ps := syncStatus(p)
			ps.Addr = d.cfg.Sync.Peers[p.Peer].String()
			s.Sync = append(s.Sync, ps)
		}
		s.SyncDev = d.cfg.Sync.Dev
		if n, max, err := d.table.Count(); err == nil {
			s.Table = &TableStatus{Entries: n, Max: max}
		}
	}
	return s
}
