package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	stdsync "sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/carp/group"
	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/loader"
)

// pulseTell is how often what a peer must know is said again.
const pulseTell = time.Second

var detects = map[config.Detect]carp.Detect{
	config.DetectFast: carp.DetectFast, config.DetectDefault: carp.DetectDefault, config.DetectOff: carp.DetectOff,
}

// pulses agrees on keys with the peers, and says to the sender thread whom to ask on
// which way: the plan. What is known of the peers is Run's own.
type pulses struct {
	d    *Daemon
	log  *zap.Logger
	node *loader.Pulses
	sync *loader.Sync
	dev  pulseDev // the sync device

	index atomic.Int64 // of the sync device

	events *loader.PulseEvents
	thread *pulseThread

	mail  chan pulseMail // bounded: what is lost is said again
	again chan struct{}  // holds one: groups or devices have changed

	peers   map[string]*pulsePeer
	watched map[watchKey]*watched
	paths   map[pathKey]int // their numbers
	served  map[string]servedAt
	set     map[int]pathSet
}

type watchKey struct{ group, peer string }

type pathKey struct {
	dev, group, peer string
}

type servedAt struct {
	port *loader.Port
	vhid uint8
}

// pulseMail is a message of a peer.
type pulseMail struct {
	peer string
	body []byte
}

// pulsePeer is what we and a peer have told each other.
type pulsePeer struct {
	name    string
	session uint32 // under which we answer
	before  uint32 // the session before, which is answered further on
	ours    half
	theirs  keysMessage
	agreed  bool // they know our half: their session is good to ask in
	key     carp.PulseKey
	sync    carp.MAC
	devices map[string]carp.MAC // by group
}

// pulseDev is a device on which we ask.
type pulseDev struct {
	name  string
	index int
	mac   carp.MAC
	down  bool
}

// openPulses prepares pulses, if a group wants them.
func (d *Daemon) openPulses() (err error) {
	wanted := slices.ContainsFunc(takingPart(d.cfg), func(g *config.Group) bool { return g.Detect != config.DetectOff })
	if d.mirror == nil || !wanted {
		return nil
	}
	p := &pulses{
		d: d, log: d.log, mail: make(chan pulseMail, 64), again: make(chan struct{}, 1),
		peers: map[string]*pulsePeer{}, watched: map[watchKey]*watched{}, paths: map[pathKey]int{}, served: map[string]servedAt{}, set: map[int]pathSet{},
	}
	d.pulses = p
	for _, name := range d.peerNames() {
		p.peers[name] = &pulsePeer{name: name, ours: newHalf(), devices: map[string]carp.MAC{}}
	}
	if p.node, err = loader.OpenPulses(d.paths.Pin); err != nil {
		return err
	}
	p.sync, err = p.node.AttachSync(d.cfg.Sync.Dev, loader.Options{PinDir: d.paths.Pin, Mode: loader.Mode(d.cfg.XDP), Log: d.log})
	if err != nil && !errors.Is(err, loader.ErrCarpdev) {
		return err
	}
	if err = p.findSyncDev(); err != nil {
		return err
	}
	if p.events, err = p.node.Events(); err != nil {
		return err
	}
	if p.thread, err = newPulseThread(d); err != nil {
		return err
	}
	p.thread.down.Store(p.dev.down)
	d.facts.onLink = func(index int, up bool) {
		if int64(index) == p.index.Load() {
			p.syncLink(up)
		}
	}
	return nil
}

func (p *pulses) findSyncDev() error {
	l, err := netlink.LinkByName(p.d.cfg.Sync.Dev)
	if err != nil {
		return fmt.Errorf("sync device %s: %w", p.d.cfg.Sync.Dev, err)
	}
	a := l.Attrs()
	p.dev = pulseDev{name: a.Name, index: a.Index, down: !linkUp(l)}
	p.index.Store(int64(a.Index))
	if len(a.HardwareAddr) == 6 {
		p.dev.mac = carp.MAC(a.HardwareAddr)
	}
	return nil
}

// Close lets go; the dataplane answers further on.
func (p *pulses) Close() error {
	if p == nil {
		return nil
	}
	var errs []error
	if p.thread != nil {
		errs = append(errs, p.thread.Close())
	}
	if p.events != nil {
		errs = append(errs, p.events.Close())
	}
	if p.sync != nil {
		errs = append(errs, p.sync.Close())
	}
	if p.node != nil {
		errs = append(errs, p.node.Close())
	}
	return errors.Join(errs...)
}

// peerNames are the other nodes as the mirror calls them.
func (d *Daemon) peerNames() []string {
	return slices.Sorted(maps.Keys(d.cfg.Sync.Peers))
}

// Heard takes a message of a peer. It does not block.
func (p *pulses) Heard(peer string, body []byte) {
	if p == nil || len(body) == 0 {
		return
	}
	select {
	case p.mail <- pulseMail{peer, slices.Clone(body)}:
	default:
	}
}

// Changed tells that groups or devices have changed.
func (p *pulses) Changed() {
	if p == nil {
		return
	}
	select {
	case p.again <- struct{}{}:
	default:
	}
}

// vouchFor is how old the newest answer on a carpdev may be, whichever group it is
// about, for the peer to be reached. A master asks every 150 ms, in a flood every 600 ms.
const vouchFor = 3 * time.Second

// Backs reports whether a peer is reached by pulses on the carpdevs of all groups that
// this node is MASTER of, and has last said of none of them that it is MASTER, or has
// been in a later term.
func (p *pulses) Backs(peer string) bool {
	if p == nil {
		return false
	}
	since := int64(carp.SinceBoot(group.BootClock().Add(-vouchFor)))
	plan := p.thread.plan.Load()
	some := false
	for _, m := range p.d.members() {
		state, term := m.group.Stands()
		if state != carp.Master {
			continue
		}
		backs := slices.ContainsFunc(plan.watched, func(w *watched) bool {
			said := w.said.Load()
			return w.member == m && w.peer == peer && w.heard.Load() >= since &&
				said != nil && said.State != carp.Master && said.Term <= term
		})
		if !backs {
			return false
		}
		some = true
	}
	return some
}

// Claim is a group's word about its claim.
func (p *pulses) Claim(m *member, c carp.Claim, claiming bool) {
	if p != nil {
		p.thread.Claim(m, c, claiming)
	}
}

// Run agrees with the peers until the context ends.
func (p *pulses) Run(ctx context.Context) error {
	var parts stdsync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { p.claimed() })
	stop := context.AfterFunc(ctx, func() { p.events.Close() })
	defer stop()
	parts.Go(func() { p.thread.Run(ctx) })
	t := time.NewTicker(pulseTell)
	defer t.Stop()
	p.plan()
	p.tellAll()
	for {
		select {
		case m := <-p.mail:
			if peer := p.peers[m.peer]; peer != nil {
				p.told(peer, m.body)
			}
		case <-p.again:
			p.plan()
			p.tellAll()
		case <-t.C:
			p.tellAll()
		case <-ctx.Done():
			return nil
		}
	}
}

// claimed tells the groups what the dataplane has promised to peers.
func (p *pulses) claimed() {
	for {
		e, err := p.events.Read()
		if errors.Is(err, loader.ErrClosed) {
			return
		}
		if err != nil {
			p.log.Error("claims of peers are not heard of", zap.Error(err))
			return
		}
		if !e.Acked {
			p.log.Info("claim refused", zap.Uint64("term", e.Term), zap.Uint64("had", e.Had))
			continue
		}
		for _, m := range p.d.members() {
			if carp.PulseGroup(m.cfg.Name) == e.Group {
				m.claimedAt.Store(int64(carp.SinceBoot(e.At)))
				m.group.Do(func(m *carp.Machine, now time.Time) carp.Effects { return m.Claimed(now, e.Term) })
			}
		}
		p.thread.Wake() // who drains asks for the claimant's word
	}
}

// told takes one message.
func (p *pulses) told(peer *pulsePeer, body []byte) {
	var err error
	switch body[0] {
	case tellKeys:
		err = p.toldKeys(peer, body[1:])
	case tellDevices:
		changed := false
		var sync carp.MAC
		sync, err = parseDevices(body[1:], func(group string, mac carp.MAC) {
			changed = changed || peer.devices[group] != mac
			peer.devices[group] = mac
		})
		if changed || sync != peer.sync {
			peer.sync = sync
			p.plan()
		}
	case tellTake:
		var names []string
		if names, err = parseNames(body[1:]); err == nil {
			p.thread.Take(peer.name, names)
		}
	case tellUnheard:
		var names []string
		if names, err = parseNames(body[1:]); err == nil {
			p.unheard(names)
		}
	}
	if err != nil {
		p.log.Warn("a peer's message about pulses", zap.String("peer", peer.name), zap.Error(err))
	}
}

// unheard looks whether it is us who are cut off.
func (p *pulses) unheard(groups []string) {
	for _, m := range p.d.members() {
		if slices.Contains(groups, m.cfg.Name) {
			m.dev.ears.Hurry()
		}
	}
}

// toldKeys takes the peer's half. A new one makes a new session to answer in; the one
// before goes on, as long as the peer does not know better.
func (p *pulses) toldKeys(peer *pulsePeer, b []byte) error {
	k, err := parseKeys(b)
	if err != nil {
		return err
	}
	if k.ours != peer.theirs.ours {
		if peer.before != 0 {
			if err := p.node.Forget(peer.before); err != nil {
				p.log.Warn("pulses", zap.Error(err))
			}
		}
		peer.before, peer.session, peer.agreed = peer.session, newSession(), false
		key, err := pulseKey(peer.ours, k.ours, peer.session)
		if err == nil {
			err = p.node.Answer(peer.session, key)
		}
		if err != nil {
			return err
		}
		p.forgetSessions()
	}
	news := k != peer.theirs || !peer.agreed && k.yours == peer.ours
	peer.theirs = k
	if !news {
		return nil
	}
	if peer.agreed = k.yours == peer.ours; peer.agreed {
		if peer.key, err = pulseKey(k.ours, peer.ours, k.session); err != nil {
			return err
		}
		p.plan()
	}
	p.tell(peer)
	return nil
}

// forgetSessions ends those of earlier processes once every peer has one of ours: a
// peer that has not heard of it yet asks in the old one.
func (p *pulses) forgetSessions() {
	known := map[uint32]bool{}
	for _, peer := range p.peers {
		if peer.session == 0 {
			return
		}
		known[peer.session], known[peer.before] = true, true
	}
	all, err := p.node.Sessions()
	if err != nil || len(all) <= 4*len(p.peers) {
		return
	}
	for _, s := range all {
		if !known[s] {
			_ = p.node.Forget(s) // it is there or it is not
		}
	}
}

func (p *pulses) tellAll() {
	for _, peer := range p.peers {
		p.tell(peer)
	}
}

// tell says what the peer has to know.
func (p *pulses) tell(peer *pulsePeer) {
	session := peer.session
	if session == 0 {
		session = 1 // nobody's; there is no key before the peer's half is here
	}
	k := keysMessage{session: session, ours: peer.ours, yours: peer.theirs.ours}
	if !p.d.mirror.Tell(peer.name, k.append(nil)) {
		return
	}
	var names []string
	macs := map[string]carp.MAC{}
	for _, m := range p.d.members() {
		names = append(names, m.cfg.Name)
		macs[m.cfg.Name] = hardwareAddr(m.dev.port.HardwareAddr())
	}
	for _, b := range appendDevices(p.dev.mac, names, func(g string) carp.MAC { return macs[g] }) {
		p.d.mirror.Tell(peer.name, b)
	}
}

func hardwareAddr(a net.HardwareAddr) (mac carp.MAC) {
	if len(a) == len(mac) {
		mac = carp.MAC(a)
	}
	return mac
}

// syncLink tells whether the sync device can carry frames.
func (p *pulses) syncLink(up bool) {
	if p.thread.down.Swap(!up) == up {
		p.thread.Wake()
	}
}

// plan says anew whom to ask, and has the dataplane answer for our groups.
func (p *pulses) plan() {
	if err := p.findSyncDev(); err != nil {
		p.log.Warn("pulses", zap.Error(err))
	}
	next := &pulsePlan{}
	keep, paths := map[watchKey]*watched{}, map[pathKey]int{}
	served := map[string]servedAt{}
	lines := map[pathKey]*line{}
	for _, m := range p.d.members() {
		at := servedAt{m.dev.port, m.cfg.VHID}
		if p.served[m.cfg.Name] != at {
			if err := p.node.Serve(carp.PulseGroup(m.cfg.Name), at.port, at.vhid); err != nil {
				p.log.Warn("pulses", zap.String("group", m.cfg.Name), zap.Error(err))
				continue
			}
		}
		served[m.cfg.Name] = at
		if m.cfg.Detect == config.DetectOff {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(p.peers)) {
			peer := p.peers[name]
			mac, known := peer.devices[m.cfg.Name]
			if !known || !peer.agreed {
				continue
			}
			key := watchKey{m.cfg.Name, name}
			w := p.watched[key]
			if w == nil || w.watch.Configured() != detects[m.cfg.Detect] {
				w = &watched{watch: carp.NewWatch(detects[m.cfg.Detect]), shown: new(shown)}
			}
			w = &watched{member: m, peer: name, watch: w.watch, shown: w.shown} // the thread has the old one
			keep[key] = w
			next.watched = append(next.watched, w)
			dev := pulseDev{name: m.dev.name, index: m.dev.ifindex, mac: hardwareAddr(m.dev.port.HardwareAddr())}
			p.ask(next, lines, paths, w, carp.PathCarpdev, dev, peer, mac)
			if p.sync != nil {
				p.ask(next, lines, paths, w, carp.PathSync, p.dev, peer, peer.sync)
			}
		}
	}
	for name := range p.served {
		if _, ok := served[name]; !ok {
			_ = p.node.Unserve(carp.PulseGroup(name)) // a carpdev that is gone took it along
		}
	}
	for key, n := range p.paths {
		if _, ok := paths[key]; !ok {
			_ = p.node.Path(n).Clear() // nobody reads it any more
			delete(p.set, n)           // and the same group may come back to it
		}
	}
	p.watched, p.paths, p.served = keep, paths, served
	for _, name := range slices.Sorted(maps.Keys(p.peers)) {
		pp := &planPeer{name: name}
		for _, w := range next.watched {
			if w.peer == name {
				pp.watched = append(pp.watched, w)
			}
		}
		next.peers = append(next.peers, pp)
	}
	p.thread.Follow(next)
}

// ask adds a way to the plan.
func (p *pulses) ask(next *pulsePlan, lines map[pathKey]*line, paths map[pathKey]int, w *watched, way carp.Path, dev pulseDev, peer *pulsePeer, to carp.MAC) {
	if to == (carp.MAC{}) || dev.mac == (carp.MAC{}) {
		return
	}
	key := pathKey{dev.name, w.member.cfg.Name, peer.name}
	n, ok := p.paths[key]
	for i := 0; !ok && i < loader.Paths; i++ {
		free := func(used map[pathKey]int) bool {
			for _, at := range used {
				if at == i {
					return false
				}
			}
			return true
		}
		if n, ok = i, free(p.paths) && free(paths); ok {
			break
		}
	}
	if !ok {
		p.log.Warn("more groups and peers than pulses have room for", zap.String("group", w.member.cfg.Name))
		return
	}
	paths[key] = n
	group := carp.PulseGroup(w.member.cfg.Name)
	a := &askee{
		watched: w, way: way, path: p.node.Path(n), key: peer.key,
		pulse: carp.Pulse{Kind: carp.PulseAsk, Path: uint16(n), Session: peer.theirs.session, Group: group},
		dst:   to, src: dev.mac,
	}
	set := pathSet{peer.key, peer.theirs.session, group}
	if p.set[n] != set {
		if err := a.path.Set(peer.key, peer.theirs.session, group); err != nil {
			p.log.Warn("pulses", zap.Error(err))
			return
		}
		p.set[n] = set
	}
	w.ways[way] = a
	at := pathKey{dev.name, "", peer.name}
	l := lines[at]
	if l == nil {
		l = &line{dev: dev, peer: peer.name, way: way}
		lines[at] = l
		next.lines = append(next.lines, l)
	}
	a.line = l
	l.asks = append(l.asks, a)
}

// pathSet is what a path was last set to; Run's.
type pathSet struct {
	key            carp.PulseKey
	session, group uint32
}
