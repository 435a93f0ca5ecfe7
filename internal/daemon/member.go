package daemon

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	stdsync "sync"
	"sync/atomic"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/carp/group"
	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/loader"
	"github.com/xcarp/xcarp/internal/sync"
	"github.com/xcarp/xcarp/internal/version"
)

var buildVersion = version.Version

// A member is one group of this node, with what it hangs on.
type member struct {
	cfg       *config.Group
	dev       *carpdev
	group     *group.Group
	conn      net.PacketConn
	ifDown    int // how much a carpdev that is down demotes the siblings
	sendErr   int // how much adverts that cannot be sent demote
	clues     clues
	state     atomic.Int32                     // the carp.State that it was last known to be in
	alive     atomic.Int64                     // when the election loop last gave a sign of life, ns since boot
	siblings  atomic.Pointer[[]*member]        // of the same bundle, without this one
	ahead     atomic.Pointer[time.Time]        // the dataplane's stamp is of the time after a restart
	claimedAt atomic.Int64                     // when a peer last claimed the group from us, ns since boot
	first     atomic.Pointer[group.Transition] // that made us master, until a frame has come

	joined io.Closer // multicast groups; nil once another member has them
	peers  []*peer   // that adverts go to alone
	offUp  func()    // ends what the carpdev tells of its link
	end    context.CancelCauseFunc
	done   chan struct{} // closed when the group has ended
	awake  chan struct{} // closed by its first sign of life
	woke   stdsync.Once
}

// newMember prepares the group on its carpdev. What the dataplane still holds
// of an earlier run (a crash, an upgrade) or of the old member, if there is one, is
// adopted. What it opened is closed when it fails.
func (d *Daemon) newMember(g *config.Group, dev *carpdev, old *member) (_ *member, err error) {
	cfg := d.now.Load()
	var joined io.Closer
	m := &member{cfg: g, dev: dev, ifDown: cfg.IfDown, sendErr: cfg.SendErr, done: make(chan struct{}), awake: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.abandon(m, old, joined))
		}
	}()
	addrs := addrsOf(g)
	// The fence goes up first, and comes down last: see below.
	if err := d.own(m, append(slices.Clone(addrs), old.addrs()...)); err != nil {
		return nil, err
	}
	if m.conn, err = dev.conn(g); err != nil {
		return nil, err
	}
	twin := d.twin(g, dev, old)
	if twin == nil {
		if joined, err = group.JoinAddrs(dev.name, addrs); err != nil {
			return nil, err
		}
	}
	adopt := dev.port.Role(g.VHID) // the group takes it if it is MASTER and its lease holds
	adopted := adopt.State == carp.Master && group.BootClock().Before(adopt.Until)
	c := group.Config{
		Name:    g.Name,
		Carpdev: dev.name,
		Machine: carp.Config{
			VHID:    g.VHID,
			AdvBase: g.AdvBase,
			AdvSkew: g.AdvSkew,
			Preempt: g.Preempt,
			Split:   splits[g.Split],

			SendErrDemotion: cmp.Or(cfg.SendErr, -1),
		},
		Guard: carp.GuardConfig{
			Key:  digestKey(d.signingKey(), g),
			Auth: auths[g.Auth],
			Keys: trailerKeys(d.keysNow(), g),
			Send: g.Trailer,
		},
		Addrs:        g.Addresses,
		Quiet:        len(g.CarpNodes) > 0,
		Conn:         m.conn,
		HardwareAddr: dev.port.HardwareAddr(),
		Source4:      dev.source4.Load,
		Source6:      dev.source6.Load,
		To4:          d.destination(m, g.Peer4, g.Mcast4),
		To6:          d.destination(m, g.Peer6, g.Mcast6),
		TOS:          tos(g),
		Dataplane:    dev.port,
		Router:       forwards6(dev.name),
		BeforeMaster: func() { dev.port.AwaitFirst(g.VHID); d.beforeMaster(g.Name) },
		OnRole:       func(t group.Transition) { d.onRole(m, t) },
		OnStamp:      m.stamp,
		OnClaim:      func(c carp.Claim, claiming bool) { d.pulses.Claim(m, c, claiming) },
		OnDeaf:       func(deaf bool) { m.demoteSiblings("deaf "+dev.name, deaf) },
		Adopt:        adopt,
		Term:         max(d.terms.Get(g.Name), dev.port.Term(g.VHID)), // what is on disk may be older
		OnEpoch:      func(epoch uint64) { d.identity.Epoch(epoch, func() { m.group.Begin(epoch) }) },
		Log:          d.log,
	}
	d.identity.Machine(&c.Machine)
	d.identity.Guard(g.Name, &c.Guard)
	if old != nil { // what it has said and heard is not on the disk yet
		self, others := old.group.Marks()
		c.Machine.Counter = max(c.Machine.Counter, old.group.Counter())
		c.Guard.Epoch, c.Guard.Seen = max(c.Guard.Epoch, self.Epoch), others
	}
	m.clues = clues{vhid: g.VHID, advbase: g.AdvBase, password: groupPassword(d.signingKey(), g), keys: idsOf(d.keysNow()), prefixes: g.Addresses, others: slices.Collect(maps.Keys(shared(cfg)))}
	if err := d.shield(m, &c); err != nil {
		return nil, err
	}
	// Addresses that go leave the kernel while the fence still stands.
	d.keeper.Yield(g.Name, dev.ifindex, addrs)
	if err := d.own(m, addrs); err != nil {
		return nil, err
	}
	m.group = group.New(c)
	if adopted {
		d.beforeMaster(g.Name) // before the mirror would say that our table is incomplete
	} else if d.mirror != nil {
		d.followSync(m) // until the mirror knows better
	}
	state := carp.Init
	if adopted {
		state = carp.Master
	}
	d.keeper.Own(g.Name, dev.ifindex, addrs, g.Mode == config.Local, state)
	d.demoted(m)
	if old != nil {
		d.start.Replace(old, m)
	} else {
		d.start.Add(m, cfg.Ready.Settle, d.pending(g.Shared()), adopted || d.synced(), adopted)
	}
	if m.joined = joined; twin != nil {
		m.joined, twin.joined = twin.joined, nil
	}
	m.offUp = dev.OnUp(func(up bool) { d.start.Link(m, up) })
	return m, nil
}

// addrs are the shared addresses; none of nobody.
func (m *member) addrs() []netip.Addr {
	if m == nil {
		return nil
	}
	return addrsOf(m.cfg)
}

func addrsOf(g *config.Group) []netip.Addr {
	addrs := make([]netip.Addr, len(g.Addresses))
	for i, p := range g.Addresses {
		addrs[i] = p.Addr()
	}
	return addrs
}

// isShared reports whether an address is a group's.
func (d *Daemon) isShared(a netip.Addr) bool {
	return slices.ContainsFunc(d.members(), func(m *member) bool { return slices.Contains(addrsOf(m.cfg), a) })
}

// twin returns a member that has ended and is in the multicast groups of the same
// addresses, to stay there for its successor; nil if there is none.
func (d *Daemon) twin(g *config.Group, dev *carpdev, old *member) *member {
	all := d.former
	if old != nil {
		all = append([]*member{old}, all...)
	}
	for _, m := range all {
		if m.joined != nil && m.dev == dev && m.cfg.Name == g.Name && slices.Equal(m.cfg.Addresses, g.Addresses) {
			return m
		}
	}
	return nil
}

// abandon closes what a member that never ran has opened. In a node that runs it
// also takes out of the dataplane what no other member was there before.
func (d *Daemon) abandon(m, old *member, joined io.Closer) error {
	d.unicast.Drop(m.peers)
	var errs []error
	if old == nil && d.running != nil {
		errs = append(errs, m.dev.port.DeleteGroup(m.cfg.VHID))
		first := leader(m.cfg)
		if !slices.ContainsFunc(d.members(), func(o *member) bool { return o.dev == m.dev && o.cfg.VHID == first }) {
			errs = append(errs, m.dev.port.DeleteGroup(first)) // it would own the addresses
		}
	}
	if m.conn != nil {
		errs = append(errs, m.conn.Close())
	}
	if joined != nil {
		errs = append(errs, joined.Close())
	}
	return errors.Join(errs...)
}

// synced reports whether the mirror, if there is one, has said that this node's
// table is complete.
func (d *Daemon) synced() bool {
	return d.mirror == nil || d.syncDemotion.Load().Held < sync.Incomplete
}

var splits = map[config.Split]carp.Split{config.SplitHold: carp.SplitHold, config.SplitTakeover: carp.SplitTakeover}

var auths = map[config.Auth]carp.Auth{
	config.AuthCompat:     carp.Compat,
	config.AuthPermissive: carp.Permissive,
	config.AuthEnforce:    carp.Enforce,
}

// forwards6 is the R flag of neighbour advertisements from the interface, which
// the dataplane takes from the same place.
func forwards6(dev string) bool {
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + dev + "/forwarding")
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

// ownerSync is an owner of demotion that the daemon itself speaks for.
const ownerSync = "sync"

// link tells the group of its own link, and its siblings that the bundle is not
// whole here: they move, so that both sides of a flow stay on one node.
func (m *member) link(up bool) {
	m.group.Link(up)
	m.demoteSiblings("link "+m.dev.name, !up)
}

// demoteSiblings makes the rest of the bundle move while this group cannot be
// MASTER here.
func (m *member) demoteSiblings(owner string, on bool) {
	n := 0
	if on {
		n = m.ifDown
	}
	for _, s := range m.bundled() {
		s.group.Demote(owner, n)
	}
}

// bundled returns the siblings.
func (m *member) bundled() []*member {
	if s := m.siblings.Load(); s != nil {
		return *s
	}
	return nil
}

// bundle makes siblings of the members that move together, and tells them what they
// have to know of each other.
func (d *Daemon) bundle() {
	for _, m := range d.members() {
		var siblings []*member
		for _, s := range d.members() {
			if d.now.Load().Together(m.cfg.Name, s.cfg.Name) {
				siblings = append(siblings, s)
			}
		}
		m.siblings.Store(&siblings)
	}
	for _, m := range d.members() {
		if m.dev.Down() { // a new sibling has not been told
			m.demoteSiblings("link "+m.dev.name, true)
		}
	}
	d.start.Begin()
	d.pulses.Changed()
}

// beforeMaster is on the takeover path: it opens the event source, so that no
// flow of ours goes unseen, and notes that we own what we see.
func (d *Daemon) beforeMaster(name string) {
	if d.mirror == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.roles[name]
	r.Name, r.State = name, uint8(carp.Master)
	d.roles[name] = r
	d.mirror.Own(true)
}

// onRole spreads a change of role that has taken effect.
func (d *Daemon) onRole(m *member, t group.Transition) {
	d.keeper.Role(t.Name, t.To)
	d.terms.Set(t.Name, t.Term)
	if !t.Adopted {
		d.metrics.transitions.WithLabelValues(t.Name, t.To.String(), t.Reason).Inc()
		d.hooks.Tell(m.cfg, t)
		if t.To == carp.Master {
			m.awaitsFirst(t)
		}
	}
	m.state.Store(int32(t.To))
	if d.mirror != nil {
		d.shareRoles(t)
		if !t.Adopted {
			d.story.Add(d, t)
		}
		if !t.Adopted { // that comes with its table, whatever the mirror knows yet
			d.followSync(m)
		}
	}
	if t.To == carp.Master {
		d.start.Master(m)
		for _, s := range m.bundled() {
			s.group.Follow()
		}
	}
}

func (d *Daemon) shareRoles(t group.Transition) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.roles[t.Name] = sync.GroupRole{Name: t.Name, State: uint8(t.To), Term: t.Term, Marks: d.roles[t.Name].Marks}
	d.tellRoles()
}

// heard spreads what this node hears on a carpdev.
func (d *Daemon) heard(dev *carpdev, e carp.Ears) {
	for _, m := range d.members() {
		if m.dev == dev {
			m.group.Ears(e)
		}
	}
	if d.mirror != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.tellRoles()
	}
}

// tellRoles gives the roles to the peers. The caller holds mu.
func (d *Daemon) tellRoles() {
	all := make([]sync.GroupRole, 0, len(d.roles))
	owner := false
	for _, m := range d.members() {
		r, ok := d.roles[m.cfg.Name]
		if !ok {
			continue
		}
		e, targets := m.dev.ears.State()
		r.Ears, r.Targets = uint8(e), targets
		owner = owner || carp.State(r.State) == carp.Master
		all = append(all, r)
	}
	if !owner {
		d.mirror.Own(false)
	}
	d.mirror.SetRoles(all)
}

// marked takes the marks that a peer knows: ours, which we may have forgotten, and
// those of nodes that we have not heard yet.
func (m *member) marked(self uint64, marks []sync.Mark) {
	for _, k := range marks {
		at := carp.Mark{Epoch: k.Epoch, Counter: k.Counter}
		if k.Node == self {
			m.group.Remind(at)
		} else {
			m.group.Meet(k.Node, at)
		}
	}
}

// marksEvery is how often the marks go to the disk and to the peers.
const marksEvery = time.Second

// marksGroups is of how many groups a heartbeat tells the marks: one after the
// other, or they would not fit into a frame.
const marksGroups = 8

// keepMarks spreads how far the adverts of all nodes have come.
func (d *Daemon) keepMarks(ctx context.Context) error {
	t := time.NewTicker(marksEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			d.spreadMarks()
			return nil
		}
		d.spreadMarks()
	}
}

func (d *Daemon) spreadMarks() {
	id := d.identity.ID()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.marksTurn++
	members := d.members()
	turns := (len(members) + marksGroups - 1) / marksGroups
	for i, m := range members {
		self, others := m.group.Marks()
		d.identity.Seen(m.cfg.Name, others)
		r, ok := d.roles[m.cfg.Name]
		if !ok {
			continue
		}
		if r.Marks = nil; i/marksGroups != d.marksTurn%turns {
			d.roles[m.cfg.Name] = r
			continue
		}
		r.Marks = []sync.Mark{{Node: id, Epoch: self.Epoch, Counter: self.Counter}}
		for node, at := range others {
			r.Marks = append(r.Marks, sync.Mark{Node: node, Epoch: at.Epoch, Counter: at.Counter})
		}
		d.roles[m.cfg.Name] = r
	}
	if d.mirror != nil {
		d.tellRoles()
	}
}

// demoteBySync carries the mirror's demotion to the election.
func (d *Daemon) demoteBySync(n sync.Demotion) {
	d.syncDemotion.Store(&n)
	for _, m := range d.members() {
		d.followSync(m)
	}
	d.keeper.Incomplete(n.Held >= sync.Incomplete)
	d.start.Synced(n.Held < sync.Incomplete)
}

// followSync demotes a group as the mirror asks for. Where load is shared that depends
// on what the group is now; elsewhere the groups of a node move together, and one that
// follows a sibling must not be doubted for being a moment later.
func (d *Daemon) followSync(m *member) {
	n := d.syncDemotion.Load()
	if m.cfg.Of != "" && m.state.Load() != int32(carp.Master) {
		m.group.Demote(ownerSync, n.Others)
	} else {
		m.group.Demote(ownerSync, n.Held)
	}
}

// peerRoles carries what a peer says of itself to the groups of the same name.
func (d *Daemon) peerRoles(node string, roles []sync.GroupRole) {
	for _, r := range roles {
		for _, m := range d.members() {
			if m.cfg.Name == r.Name {
				m.marked(d.identity.ID(), r.Marks)
				m.dev.ears.Told(r.Targets)
				m.group.Peer(node, carp.Said{State: carp.State(r.State), Term: r.Term, Ears: carp.Ears(r.Ears)})
			}
		}
	}
}

// status describes the group; packets are the dataplane's verdicts for its vhid.
func (m *member) status(packets map[string]uint64, now time.Time) GroupStatus {
	s := m.group.Status()
	role := m.dev.port.Role(m.cfg.VHID)
	g := GroupStatus{
		Name:         m.cfg.Name,
		VHID:         m.cfg.VHID,
		Carpdev:      m.dev.name,
		State:        s.State.String(),
		Since:        time.Now().Add(-now.Sub(s.Since)),
		Reason:       s.Reason,
		Term:         s.Term,
		Demotion:     s.Demotion,
		Demotions:    s.DemotedBy,
		LeaseMS:      max(0, float64(role.Until.Sub(now))/1e6),
		XDPMode:      string(m.dev.port.Mode()),
		Answer:       m.dev.port.Answer(),
		MastersSeen:  []string{},
		Drops:        m.drops(s.Drops, packets),
		Hint:         m.clues.hint(now),
		Shield:       string(m.dev.port.Shielding()),
		Alarms:       s.Alarms,
		Split:        s.Split,
		Auth:         string(m.cfg.Auth),
		Trailer:      m.cfg.Trailer,
		Packets:      packets,
		Addresses:    []string{},
		VMAC:         told(m.cfg).String(),
		Group:        m.cfg.Of,
		Balance:      string(m.cfg.Balance),
		BalanceBy:    string(m.cfg.BalanceBy),
		Mode:         string(m.cfg.Mode),
		AdvBase:      m.cfg.AdvBase,
		AdvSkew:      m.cfg.AdvSkew,
		Preempt:      m.cfg.Preempt,
		IntervalMS:   float64(s.Interval) / 1e6,
		MasterDownMS: float64(s.MasterDown) / 1e6,
		Sent:         s.Sent,
		Received:     s.Received,
		SendErrors:   s.SendErrs,
		MTU:          m.dev.mtu,
		Masters:      []MasterStatus{},
		SilentFamily: s.SilentFamily,
		SilentAlarms: s.SilentAlarms,
	}
	e, _ := m.dev.ears.State()
	g.Ears = e.String()
	if role.State != carp.Master && role.State != carp.Drain {
		g.LeaseMS = 0
	}
	for _, a := range m.cfg.Addresses {
		g.Addresses = append(g.Addresses, a.String())
	}
	for _, a := range s.Masters {
		g.MastersSeen = append(g.MastersSeen, a.Addr.String())
		seen := MasterStatus{
			Address: a.Addr.String(), AdvBase: a.AdvBase, AdvSkew: a.AdvSkew, Demotion: a.Demotion,
			AgoMS: float64(now.Sub(a.At)) / 1e6,
		}
		if a.Addr6.IsValid() {
			seen.Address6 = a.Addr6.String()
		}
		g.Masters = append(g.Masters, seen)
	}
	if n := m.lost(); n > 0 {
		g.Drops["overrun"] = n
	}
	return g
}

// lost returns how many frames found the group's queue full.
func (m *member) lost() uint64 {
	if l, ok := m.conn.(interface{ Lost() uint64 }); ok {
		return l.Lost()
	}
	return 0
}

// droppedEarly are the dataplane's reasons to drop an advert. What XDP dropped the
// daemon never saw; what tc drops it has counted itself.
var droppedEarly = []string{"badttl", "badlen", "badsum", "badfrag", "badauth", "badtrailer", "replay", "loop", "ratelimit"}

// drops adds up why adverts were refused, wherever that was.
func (m *member) drops(daemon, packets map[string]uint64) map[string]uint64 {
	all := maps.Clone(daemon)
	if m.dev.port.Mode() == loader.TC {
		return all
	}
	for _, why := range droppedEarly {
		all[why] += packets[why]
	}
	return all
}

func syncStatus(p sync.PeerStatus) SyncStatus {
	return SyncStatus{
		Peer:      p.Peer,
		Up:        p.Up,
		InSync:    p.InSync,
		LagMS:     float64(p.Lag) / 1e6,
		Flows:     p.Flows,
		Pending:   p.Pending,
		Sent:      p.Sent,
		Received:  p.Received,
		Gaps:      p.Gaps,
		Resyncs:   p.Resyncs,
		Overruns:  p.Overruns,
		Errors:    p.InsertErrors,
		Dropped:   p.Dropped,
		BytesSent: p.Bytes,
		BytesRecv: p.BytesIn,
		Keys:      hexIDs(p.Keys),
	}
}
