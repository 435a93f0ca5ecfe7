package sync

import (
	"net/netip"
	"time"

	"go.uber.org/zap"
)

const (
	beatEvery   = 100 * time.Millisecond
	lostAfter   = time.Second
	rekeyEvery  = time.Hour              // a new session, with new keys
	coalesce    = 500 * time.Microsecond // between frames that are not full
	maxPending  = 4                      // handshakes we have answered and not seen used
	pokedPause  = 500 * time.Millisecond // between handshakes that hints may start
	initPause   = 20 * time.Millisecond  // between handshakes we answer
	deadReserve = 1 << 16                // deletes kept for a peer beyond the number of flows
)

// peer is one other node. All of it is guarded by Mirror.mu, except that only
// Mirror.send seals and only Mirror.receive opens frames.
type peer struct {
	m         *Mirror
	index     int
	name      string
	addr      netip.AddrPort
	initiator bool
	log       *zap.Logger
	wake      chan struct{} // capacity 1: something to send

	// The session.
	session     *Session
	unproven    []*Session // answered, no data frame yet
	lastHeard   time.Duration
	established time.Duration // when the session began
	lost        time.Duration // since when there is no session
	handshake   *initiation
	handshakeAt time.Duration // when to try next
	backoff     time.Duration
	rehandshake bool          // the peer hinted that it has no session
	poked       time.Duration // when a hint last started a handshake
	initAt      time.Duration // when we last answered one
	peerBoot    uint64        // of the newest handshake
	peerCounter uint64
	peerBootOf  uint64 // of the session
	peerKeys    []byte // ids of the keys it accepts, by its last heartbeat
	warned      time.Duration

	// To the peer.
	head, tail *entry // pending, linked by slot.next
	pending    int
	flight     flight
	dropping   bool // empty the queue: we own nothing, or start anew
	lastData   time.Duration
	beatAt     time.Duration
	ackDue     bool
	serve      serving
	dirty      uint32
	plain      []byte
	told       [][]byte // messages of Tell

	// From the peer.
	owner      bool
	flagSeen   bool // owner was told in this session
	peerSynced bool
	peerFlows  uint32
	peerDirty  uint32
	dirtySeen  bool
	want       uint32 // outstanding request, 0: none
	wanted     uint32 // last request
	wantCause  string
	wantSince  time.Duration
	sweepDue   bool // the bulk update of sweepID has ended
	sweepID    uint32
	synced     bool // since the last cause for doubt the peer has told us all it knows
	behind     bool // no session, or not synced since there is one again
	everUp     bool // heard while we were owner
	suspect    bool // we are owner, but were cut off from it
	lastSeen   time.Time

	stats stats
}

// serving is our answer to the peer's request for a bulk update.
type serving struct {
	id     uint32
	phase  bulkPhase
	left   int // flows not acknowledged yet
	count  uint32
	dumped bool // every flow has been queued
	due    bool // the dump has not begun
}

func (p *peer) up() bool { return p.session != nil }

// kick makes Mirror.send look.
func (p *peer) kick() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *peer) slot(e *entry) *slot { return &e.slots[p.index] }

// enqueue makes the entry's current state pending. A state that was pending
// already is replaced by it, as the record is written when it is sent.
func (p *peer) enqueue(e *entry, now time.Duration, bulk bool) {
	s := p.slot(e)
	if bulk && !s.bulk {
		s.bulk = true
		p.serve.left++
	}
	if s.queued {
		return
	}
	if s.sent == 0 {
		s.at = now
	}
	s.queued, s.next = true, nil
	if p.tail == nil {
		p.head = e
	} else {
		p.slot(p.tail).next = e
	}
	p.tail = e
	p.pending++
}

func (p *peer) dequeue() *entry {
	e := p.head
	s := p.slot(e)
	p.head = s.next
	if p.head == nil {
		p.tail = nil
	}
	s.queued, s.next = false, nil
	p.pending--
	return e
}

// settle notes that the peer has the entry's state, or need not have it.
func (p *peer) settle(e *entry) {
	s := p.slot(e)
	if s.bulk {
		s.bulk = false
		p.serve.left--
	}
	p.m.shadow.reap(e)
}

// abandon empties the queue by at most n entries and lets go of what is in
// flight. It reports whether it is done.
func (p *peer) abandon(n int) bool {
	for p.flight.n > 0 {
		f := p.flight.first()
		for _, e := range f.entries {
			if s := p.slot(e); s.sent == f.seq {
				s.sent = 0
				if !s.queued {
					p.settle(e)
				}
			}
		}
		p.flight.pop()
	}
	for ; p.head != nil && n > 0; n-- {
		p.settle(p.dequeue())
	}
	return p.head == nil
}

// requeue makes what the oldest frame in flight carried pending again, with its
// current state.
func (p *peer) requeue(now time.Duration) {
	f := p.flight.first()
	for _, e := range f.entries {
		if s := p.slot(e); s.sent == f.seq {
			s.sent = 0
			at := s.at
			p.enqueue(e, now, false)
			s.at = at
		}
	}
	p.flight.pop()
}

// acked takes an ack of the peer. Frames reach the table in order, so every
// frame up to the top is now either applied or lost.
func (p *peer) acked(a *ack, now time.Duration) {
	for p.flight.n > 0 {
		f := p.flight.first()
		if f.seq > a.top {
			break
		}
		if !a.has(f.seq) {
			p.stats.Resent += uint64(len(f.entries))
			p.stats.LostFrames++
			p.requeue(now)
			continue
		}
		p.flight.measure(now - f.at)
		for _, e := range f.entries {
			s := p.slot(e)
			if s.sent != f.seq {
				continue
			}
			s.sent = 0
			p.stats.lagged(now - s.at)
			p.settle(e)
		}
		p.flight.pop()
	}
	p.checkServed()
}

// checkServed ends our bulk update when all of it has arrived.
func (p *peer) checkServed() {
	if p.serve.phase == bulkRunning && p.serve.dumped && p.serve.left == 0 {
		p.serve.phase = bulkEnd
		p.beatAt = 0
		p.kick()
	}
}

// asked takes the peer's wish for a bulk update from its heartbeat.
func (p *peer) asked(id uint32) {
	if id == 0 || id == p.serve.id {
		return
	}
	p.serve = serving{id: id, phase: bulkNotOwner, left: p.serve.left}
	if p.m.own {
		p.serve.phase, p.serve.due = bulkRunning, true
		p.m.work()
	}
	p.beatAt = 0
}

// request asks the peer for a bulk update. doubt says that our table may be
// wrong until it has come.
func (p *peer) request(now time.Duration, cause string, doubt bool) {
	if doubt {
		p.synced = false
	}
	if p.session == nil {
		return // the session's start asks
	}
	if !doubt && p.want != 0 {
		return
	}
	p.m.bulkID++
	if p.m.bulkID == 0 {
		p.m.bulkID = 1
	}
	p.want, p.wanted, p.wantCause, p.wantSince = p.m.bulkID, p.m.bulkID, cause, now
	p.stats.Resyncs[cause]++
	p.beatAt = 0
	p.kick()
	p.log.Debug("bulk update asked for", zap.String("reason", cause), zap.Uint32("id", p.want))
}

// periodic is the cause of the bulk updates that are asked for again and again.
const periodic = "periodic"

// answered takes the end of the bulk update we asked for.
func (p *peer) answered(owner bool, count uint32, now time.Duration) {
	id := p.want
	p.want = 0
	say := p.log.Info
	if p.wantCause == periodic {
		say = p.log.Debug // for all the time that nothing happens
	}
	say("bulk update", zap.String("reason", p.wantCause), zap.Bool("owner", owner),
		zap.Uint32("flows", count), zap.Duration("took", now-p.wantSince))
	if owner {
		p.sweepDue, p.sweepID = true, id
		p.m.work()
		return
	}
	p.settled(id)
}

// settled notes that the bulk update is in our table.
func (p *peer) settled(id uint32) {
	if p.wanted != id || p.session == nil {
		return // there was new cause for doubt
	}
	p.synced, p.behind, p.suspect = true, false, false
	p.beatAt = 0
	p.kick()
	p.m.work()
}

// establish makes s the session. One that replaces a live session with the same
// boot of the peer carries on where that stood.
func (p *peer) establish(s *Session, now time.Duration) {
	same := p.session != nil && p.peerBootOf == s.boot
	p.session, p.unproven, p.rehandshake = s, nil, false
	p.handshake, p.backoff = nil, handshakeMin
	p.established, p.lastHeard, p.beatAt, p.ackDue, p.lost = now, now, 0, false, 0
	for p.flight.n > 0 {
		p.requeue(now)
	}
	if same {
		p.kick()
		return
	}
	p.peerBootOf = s.boot
	p.flight.srtt, p.flight.rttvar, p.flight.backoff = 0, 0, 0
	p.dropping = true
	p.serve = serving{left: p.serve.left}
	p.dirtySeen = false
	p.owner, p.peerSynced, p.flagSeen = false, false, false
	if p.m.own {
		p.everUp = true
	}
	p.want = 0
	p.request(now, "start", true)
	p.log.Info("session up", zap.String("addr", p.addr.String()))
	p.kick()
}

// lose ends the session.
func (p *peer) lose(now time.Duration) {
	p.log.Info("session lost", zap.Duration("silent", now-p.lastHeard))
	p.session, p.want, p.synced, p.behind, p.lost = nil, 0, false, true, p.lastHeard
	p.sweepDue, p.told = false, nil
	p.owner, p.peerSynced = false, false
	p.dropping, p.serve = true, serving{left: p.serve.left}
	p.handshakeAt, p.backoff = now, handshakeMin
	p.m.work()
}
