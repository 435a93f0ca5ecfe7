package sync

import (
	"context"
	"net/netip"
	"time"

	"github.com/xcarp/xcarp/internal/ct"
)

// applyMax is how many changes go to the table in one call. It bounds how long
// the shadow's lock is held, too.
const applyMax = 256

// record is one decoded record.
type record struct {
	flow ct.Flow
	del  bool
}

// batch is the records of one frame.
type batch struct {
	peer    *peer
	session *Session
	seq     uint64
	records []record
}

// inject is the goroutine that puts the peers' records into the table, in the
// order of their frames, and acknowledges them then. It takes what has come
// meanwhile along, up to applyMax.
func (m *Mirror) inject(ctx context.Context) error {
	var got []*batch
	var ops []ct.Op
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-m.batches:
			got = append(got[:0], b)
		}
		for n := len(got[0].records); n < applyMax; {
			select {
			case b := <-m.batches:
				got = append(got, b)
				n += len(b.records)
				continue
			default:
			}
			break
		}
		if !m.table.enter(ctx) {
			return nil
		}
		m.mu.Lock()
		now := m.now()
		ops = ops[:0]
		for _, b := range got {
			if b.peer.session != b.session {
				continue
			}
			for i := range b.records {
				if op, ok := m.accept(b.peer, &b.records[i], now); ok {
					ops = append(ops, op)
				}
			}
			b.peer.stats.Received += uint64(len(b.records))
		}
		m.mu.Unlock()
		m.apply(ops, got[0].peer)
		m.table.leave()
		m.mu.Lock()
		for _, b := range got {
			if b.peer.session == b.session {
				b.session.applied.mark(b.seq)
				b.peer.ackDue = true
				b.peer.kick()
			}
		}
		m.mu.Unlock()
		for _, b := range got {
			select {
			case m.spare <- b:
			default:
			}
		}
	}
}

// apply makes the changes and counts what the kernel refused at the peer.
func (m *Mirror) apply(ops []ct.Op, p *peer) {
	if len(ops) == 0 {
		return
	}
	m.cfg.Table.Apply(ops, func(i int, err error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if p != nil {
			p.stats.failed(err)
		} else {
			m.repairErrors++
		}
	})
}

// accept takes one record of the peer into the shadow and returns what the
// table must do.
func (m *Mirror) accept(p *peer, r *record, now time.Duration) (ct.Op, bool) {
	if !p.owner {
		p.stats.dropped(dropNotOwner)
		return ct.Op{}, false
	}
	e := m.shadow.find(r.flow.Orig)
	if r.del {
		return m.acceptDelete(p, e)
	}
	if !m.addressed(&r.flow) {
		p.stats.dropped(dropLocal)
		return ct.Op{}, false
	}
	switch {
	case e == nil:
		e = m.shadow.add(&r.flow)
	case e.dead:
		m.shadow.revive(e)
	case m.own && m.shadow.source(e) == nil:
		// Ours, and both own something: the connection never goes backwards.
		if !later(&r.flow, &e.flow) {
			if later(&e.flow, &r.flow) {
				m.tellOne(p, e, now)
			}
			return ct.Op{}, false
		}
		e.flow = r.flow
		return ct.Op{Change: ct.Update, Flow: m.hold(e, now)}, true
	}
	e.flow = r.flow
	e.from, e.epoch, e.bulk = p, m.shadow.epoch, p.wanted
	p.slot(e).known = true
	return ct.Op{Change: ct.New, Flow: m.hold(e, now)}, true
}

// acceptDelete: only an owner's word counts, and only about its own flows.
func (m *Mirror) acceptDelete(p *peer, e *entry) (ct.Op, bool) {
	if e == nil || e.dead {
		return ct.Op{}, false
	}
	switch m.shadow.source(e) {
	case p:
	case nil:
		if m.own {
			p.stats.dropped(dropOurs)
			return ct.Op{}, false
		}
	default:
		p.stats.dropped(dropOurs)
		return ct.Op{}, false
	}
	op := ct.Op{Change: ct.Destroy, Flow: e.flow}
	m.shadow.kill(e)
	m.shadow.reap(e)
	return op, true
}

// hold returns the entry's flow as the table is to have it: with a timeout that
// outlasts the peer's refreshes, which are no events.
func (m *Mirror) hold(e *entry, now time.Duration) ct.Flow {
	f := e.flow
	f.Timeout = max(f.Timeout, m.cfg.Hold)
	e.held = f.Timeout > e.flow.Timeout
	e.expires = now + f.Timeout
	return f
}

// mirrored reports whether the flow is one that peers get: see the package
// comment.
func (m *Mirror) mirrored(f *ct.Flow) bool {
	if f.Orig.Proto == protoTCP && (f.Status&ct.SeenReply == 0 || rank(f.TCP.State) < 2) {
		return false
	}
	return m.addressed(f)
}

// addressed reports whether the flow is between others than this node itself.
func (m *Mirror) addressed(f *ct.Flow) bool {
	return encodable(f) && m.foreign(f.Orig.Src) && m.foreign(f.Orig.Dst)
}

func (m *Mirror) foreign(a netip.Addr) bool {
	return !a.IsLoopback() && !a.IsMulticast() && (m.cfg.NotShared == nil || !m.cfg.NotShared(a))
}
