package sync

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	stdsync "sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/xcarp/xcarp/internal/ct"
)

// Table is the kernel's connection table as Mirror needs it. ct.Table
// implements it.
type Table interface {
	// Dump calls fn for every flow. The flow is fn's only until it returns.
	Dump(ctx context.Context, fn func(*ct.Flow) error) error

	// Apply makes the changes in order. It calls failed, before it returns,
	// for each that the kernel refused.
	Apply(ops []ct.Op, failed func(i int, err error))

	// Listen turns events on or off. When it returns, changes are events.
	Listen(on bool) error

	// Events calls fn for each event until the context ends, and overrun when
	// events were lost. The event is fn's only until it returns. Changes made
	// by Apply are no events. An Update whose TCP state is TCPNone says that
	// the state is what it was.
	Events(ctx context.Context, fn func(*ct.Event), overrun func()) error

	// Count returns the number of entries and the limit.
	Count() (n, max int, err error)
}

// Config is what a Mirror needs to know.
type Config struct {
	Node  string     // this node's name
	Key   [32]byte   // shared by all nodes; HKDF of the key file
	Keys  [][32]byte // others that are accepted; see SetKeys
	Dev   string     // the sync link; frames neither leave nor enter by another
	Local netip.AddrPort
	Peers map[string]netip.AddrPort // the other nodes by name

	// Hold is the least timeout of a peer's flow in our table, 600 s by
	// default. A third of it is the period of the pass that keeps quiet
	// entries of busy flows alive.
	Hold time.Duration

	Table Table

	// NotShared reports whether an address belongs to this node alone: flows
	// from and to it are not mirrored. It is called for each event. Nil means
	// that none does.
	NotShared func(netip.Addr) bool

	// Demote is told how much this node's table asks the groups to be demoted, whenever
	// that changes, the first time when Run starts. OnRoles is told the peer's
	// groups with each of its heartbeats. Both may be nil; neither may block.
	Demote  func(n Demotion)
	OnRoles func(peer string, roles []GroupRole)

	// Vouched reports whether it is known in another way that a peer without a session has
	// taken nothing over that this node owns. It must not block. Nil means that it is not.
	Vouched func(peer string) bool

	// OnPeer is called with what a peer has given to Tell; the body is its only
	// until it returns. It must not block. May be nil.
	OnPeer func(peer string, body []byte)

	Conn net.PacketConn // instead of a socket of our own, if not nil
	Log  *zap.Logger
}

// DefaultHold is the Hold of a Config that has none.
const DefaultHold = 600 * time.Second

// defaultPayload is the size of our UDP payloads where the device does not say.
const defaultPayload = 1400

// Mirror keeps the tables of the peers equal to ours, or ours to theirs.
type Mirror struct {
	cfg     Config
	log     *zap.Logger
	conn    *conn
	payload int // bytes of UDP payload per frame
	boot    uint64
	base    time.Time
	peers   []*peer // by name
	byAddr  map[netip.AddrPort]*peer

	table   gate
	batches chan *batch
	spare   chan *batch // to be used again
	worked  chan struct{}
	watched chan struct{}

	strangers atomic.Uint64 // frames from addresses of nobody
	turn      stdsync.Mutex // one Own at a time

	mu           stdsync.Mutex // all below, and the peers
	keys         [][32]byte    // the first one begins handshakes, all answer them
	shadow       shadow
	own          bool
	ownSince     time.Duration
	complete     bool // our table has been that of an owner since we own nothing
	swept        bool // the kernel's own table holds nothing that the shadow does not know of
	takeover     bool // the worker is to become owner of what is known
	reconcile    string
	recheckAt    time.Duration
	flushAt      time.Duration
	flushPause   time.Duration
	roles        []GroupRole
	keyIDs       []byte // that peers are told
	bulkID       uint32
	shakes       uint64
	overruns     uint64
	repairErrors uint64
	reinjected   uint64
	ignored      uint64
}

// New opens the socket, in the network namespace of the caller's thread.
func New(cfg Config) (*Mirror, error) {
	if cfg.Node == "" || cfg.Table == nil {
		return nil, errors.New("sync: the configuration has no node name or no table")
	}
	if cfg.Hold == 0 {
		cfg.Hold = DefaultHold
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	var seed [12]byte
	rand.Read(seed[:]) // never fails
	m := &Mirror{
		keys: append([][32]byte{cfg.Key}, cfg.Keys...),
		cfg:  cfg, log: cfg.Log, payload: defaultPayload,
		boot: binary.BigEndian.Uint64(seed[:]), bulkID: binary.BigEndian.Uint32(seed[8:]),
		base:    time.Now(),
		byAddr:  make(map[netip.AddrPort]*peer),
		table:   make(gate, 1),
		batches: make(chan *batch, 2*window),
		spare:   make(chan *batch, 2*window),
		worked:  make(chan struct{}, 1),
		watched: make(chan struct{}, 1),
		shadow:  newShadow(len(cfg.Peers)),
	}
	for name, addr := range cfg.Peers {
		if name == cfg.Node {
			return nil, fmt.Errorf("sync: node %q is its own peer", name)
		}
		addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
		if q := m.byAddr[addr]; q != nil {
			return nil, fmt.Errorf("sync: %q and %q have the same address %v", q.name, name, addr)
		}
		p := &peer{
			m: m, name: name, addr: addr, initiator: cfg.Node < name,
			log: cfg.Log.With(zap.String("peer", name)), wake: make(chan struct{}, 1),
			backoff: handshakeMin, behind: true, stats: newStats(),
		}
		m.byAddr[addr] = p
		m.peers = append(m.peers, p)
	}
	slices.SortFunc(m.peers, func(a, b *peer) int { return cmp.Compare(a.name, b.name) })
	for i, p := range m.peers {
		p.index = i
	}
	var err error
	if cfg.Conn != nil {
		m.conn = wrap(cfg.Conn)
	} else if m.conn, m.payload, err = open(cfg.Dev, cfg.Local); err != nil {
		return nil, err
	}
	return m, nil
}

// SetKeys replaces the keys. Sessions go on: they have keys of their own, agreed
// upon when they began.
func (m *Mirror) SetKeys(keys [][32]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys = slices.Clone(keys)
}

// now is the time since New: monotonic, and comparable with 0 as "never".
func (m *Mirror) now() time.Duration { return time.Since(m.base) + 1 }

// Run keeps the tables equal until the context ends, then closes the socket. It
// owns all goroutines of the Mirror and may be called once.
func (m *Mirror) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, m.conn.interrupt)
	defer stop()
	g.Go(func() error { return m.receive(ctx) })
	g.Go(func() error { return m.inject(ctx) })
	g.Go(func() error { return m.worker(ctx) })
	g.Go(func() error { return m.watch(ctx) })
	g.Go(func() error {
		err := m.cfg.Table.Events(ctx, m.event, m.overrun)
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("read connection events: %w", cmp.Or(err, errors.New("ended early")))
	})
	for _, p := range m.peers {
		g.Go(func() error { return m.send(ctx, p) })
	}
	err := g.Wait()
	return errors.Join(err, m.conn.close())
}

// Own says whether this node is MASTER of at least one group. It is meant for
// the takeover path: it turns the listener on before it returns, and the rest
// happens later. What a node says that owns nothing does not count: after
// Own(false) nothing that was pending is sent, and the table is repaired from
// whoever owns the flows now.
func (m *Mirror) Own(own bool) {
	m.turn.Lock()
	defer m.turn.Unlock()
	m.mu.Lock()
	same := m.own == own
	m.mu.Unlock()
	if same {
		return
	}
	if own {
		m.listen(true) // first: a change after the dump must be an event
	}
	m.mu.Lock()
	now := m.now()
	m.own = own
	m.shadow.epoch++ // every flow is ours, or nobody's, until somebody tells it
	m.takeover = own
	if own {
		m.ownSince, m.complete, m.swept = now, true, true
	} else {
		// What changes from here on is no event any more, so the repair looks
		// at the kernel's table, too.
		m.complete, m.swept, m.reconcile = false, false, ""
	}
	for _, p := range m.peers {
		p.everUp, p.suspect = false, false
		p.beatAt = 0
		if own {
			p.dirty++ // the peer asks for a bulk update then
		} else {
			p.dropping = true
			if p.serve.phase == bulkRunning {
				p.serve.phase, p.serve.due = bulkNotOwner, false
			}
			p.request(now, "leave", true)
		}
		p.kick()
	}
	m.work()
	m.mu.Unlock()
	if !own {
		m.listen(false)
	}
}

func (m *Mirror) listen(on bool) {
	if err := m.cfg.Table.Listen(on); err != nil {
		m.log.Error("listen for connection events", zap.Bool("on", on), zap.Error(err))
	}
}

// SetRoles says where this node's groups stand, at most 255 of them. Peers are
// told at once and with every heartbeat.
func (m *Mirror) SetRoles(roles []GroupRole) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.roles = slices.Clone(roles[:min(len(roles), 255)])
	for _, p := range m.peers {
		p.beatAt = 0
		p.kick()
	}
}

// SetKeyIDs says which keys this node accepts, the one it signs with first. Peers
// are told at once and with every heartbeat.
func (m *Mirror) SetKeyIDs(ids []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keyIDs = slices.Clone(ids)
	for _, p := range m.peers {
		p.beatAt = 0
		p.kick()
	}
}

// Resync compares the tables anew, as after lost events: an owner with the
// kernel's table and the peers with its own, others with the owner's.
func (m *Mirror) Resync(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if m.own {
		m.reconcile = reason
	}
	for _, p := range m.peers {
		if m.own {
			p.dirty++
		}
		p.request(now, reason, true)
		p.beatAt = 0
		p.kick()
	}
	m.work()
}

// overrun is called when the kernel has lost events.
func (m *Mirror) overrun() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.overruns++
	if m.own {
		// The kernel reports the loss before what is still queued, and a lost
		// delete of something that is queued as new would not be noticed: look
		// again when the queue has been read.
		m.reconcile, m.recheckAt = "overrun", m.now()+recheckAfter
		m.work()
	}
}

// work makes the worker and the watch look.
func (m *Mirror) work() {
	select {
	case m.worked <- struct{}{}:
	default:
	}
	select {
	case m.watched <- struct{}{}:
	default:
	}
}

// event takes one change of the kernel's table to the peers' queues. It neither
// blocks nor allocates while the number of flows is steady.
func (m *Mirror) event(ev *ct.Event) {
	// Of an update the kernel tells the TCP state only if it changed.
	partial := ev.Change == ct.Update && ev.Flow.Orig.Proto == protoTCP && ev.Flow.TCP.State == ct.TCPNone
	if ev.Change != ct.Destroy && !partial && !m.mirrored(&ev.Flow) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.own {
		m.ignored++ // on its way when the role changed
		return
	}
	e := m.shadow.find(ev.Flow.Orig)
	if ev.Change == ct.Destroy {
		m.destroyed(e, &ev.Flow)
		return
	}
	if partial {
		if e == nil || e.dead {
			return // not mirrored yet, or no more
		}
		ev.Flow.TCP = e.flow.TCP
	}
	switch {
	case e == nil:
		e = m.shadow.add(&ev.Flow)
	case e.dead:
		m.shadow.revive(e)
	case sameState(&e.flow, &ev.Flow):
		// What we put there ourselves, or nothing a peer needs to hear.
		e.gen = m.shadow.gen
		return
	}
	e.flow, e.from, e.held, e.gen = ev.Flow, nil, false, m.shadow.gen
	m.tell(e)
}

func (m *Mirror) destroyed(e *entry, f *ct.Flow) {
	if e == nil {
		if !m.shadow.dumping || !m.addressed(f) {
			return
		}
		e = m.shadow.add(f) // the dump may still bring it
	}
	if e.dead || m.shadow.source(e) != nil {
		return // a peer's flow ends when the peer says so
	}
	e.gen = m.shadow.gen
	m.shadow.kill(e)
	m.tell(e)
	m.shadow.reap(e)
	if m.shadow.dead > m.shadow.live+deadReserve {
		m.overflow()
	}
}

// overflow gives up the queues of peers that do not keep up; they get a bulk
// update instead. So memory is bounded by the number of flows.
func (m *Mirror) overflow() {
	for _, p := range m.peers {
		if !p.dropping && (p.pending > 0 || p.flight.n > 0) {
			p.dropping = true
			p.stats.Overflows++
			p.kick()
		}
	}
}

// tell makes the entry's state pending for every peer.
func (m *Mirror) tell(e *entry) {
	now := m.now()
	for _, p := range m.peers {
		m.tellOne(p, e, now)
	}
}

func (m *Mirror) tellOne(p *peer, e *entry, now time.Duration) {
	if p.session == nil || p.dropping || !m.own {
		return // a bulk update follows
	}
	if s := p.slot(e); e.dead && !s.known && s.sent == 0 {
		return // it was never told; if it is pending, load passes over it
	}
	p.enqueue(e, now, false)
	p.kick()
}
