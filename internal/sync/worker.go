package sync

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/ct"
)

const (
	workEvery = 100 * time.Millisecond
	countRate = time.Second      // between looks at the size of the table
	countMax  = 64 * time.Second // the same while repairs do not help
	retryDump = time.Second

	recheckAfter = time.Second // an overrun, to reconcile once more

	// surveyAfter is how long a new owner leaves the kernel's table alone. The kernel
	// walks through all of its buckets at one go, with softirqs off: that took 9 ms of
	// 262144 empty ones, a time in which a CPU forwards nothing, and nobody needs the
	// result at the instant of a takeover.
	surveyAfter = 300 * time.Millisecond

	// serveAfter is the same for a peer that has just been reached: where a network
	// has healed, two masters agree meanwhile who is to stop.
	serveAfter = 150 * time.Millisecond
)

// errRole ends a dump whose result nobody needs any more.
var errRole = errors.New("the role has changed")

// worker is the goroutine that does what takes long, one thing after the other:
// whatever walks through the whole table. Everybody else goes on meanwhile.
func (m *Mirror) worker(ctx context.Context) error {
	tick := time.NewTicker(workEvery)
	defer tick.Stop()
	for {
		if err := m.job(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, errRole) {
			m.log.Error("walk through the connection table", zap.Error(err))
			select {
			case <-ctx.Done():
			case <-time.After(retryDump):
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.worked:
		case <-tick.C:
		}
	}
}

// job does everything that is due.
func (m *Mirror) job(ctx context.Context) error {
	for ctx.Err() == nil {
		m.mu.Lock()
		now := m.now()
		s := m.due(now)
		m.mu.Unlock()
		var err error
		switch {
		case s.survey:
			err = m.survey(ctx, s)
		case s.sweep != nil:
			err = m.sweep(ctx, s.sweep, s.sweepID)
		case s.count:
			err = m.checkCount(ctx)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// task is one thing to do for the worker.
type task struct {
	survey   bool // compare the kernel's table with the shadow, as its owner
	takeover bool // … and become owner of what peers told
	reason   string
	serve    []*peer // … and tell these peers everything

	sweep   *peer
	sweepID uint32
	count   bool
}

// due picks the next task and notes that it has begun.
func (m *Mirror) due(now time.Duration) task {
	if m.recheckAt != 0 && now >= m.recheckAt {
		m.recheckAt, m.reconcile = 0, "overrun"
	}
	t := task{takeover: m.takeover, reason: m.reconcile}
	early := m.own && now < m.ownSince+surveyAfter
	for _, p := range m.peers {
		if p.serve.due && !p.dropping && !early && now >= p.established+serveAfter {
			p.serve.due = false
			t.serve = append(t.serve, p)
		}
		if p.session != nil && p.owner && p.want == 0 && now-p.wantSince >= m.cfg.Hold/3 {
			p.request(now, periodic, false)
		}
	}
	if m.own && !early && (t.takeover || t.reason != "" || t.serve != nil) {
		m.takeover, m.reconcile = false, ""
		t.survey = true
		return t
	}
	for _, p := range m.peers {
		if p.sweepDue {
			p.sweepDue = false
			t.sweep, t.sweepID = p, p.sweepID
			return t
		}
	}
	if !m.own && now >= m.flushAt {
		m.flushPause = max(m.flushPause, countRate)
		m.flushAt = now + m.flushPause
		t.count = true
	}
	return t
}

// survey compares the kernel's table with what we know, as its owner: after a
// takeover, after lost events, and to answer a request for a bulk update.
func (m *Mirror) survey(ctx context.Context, t task) error {
	m.mu.Lock()
	m.shadow.gen++
	m.shadow.dumping = true
	m.mu.Unlock()
	begin := time.Now()
	err := m.cfg.Table.Dump(ctx, func(f *ct.Flow) error {
		if !m.mirrored(f) {
			return nil
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.own {
			return errRole
		}
		m.surveyed(f, &t)
		return nil
	})
	m.mu.Lock()
	m.shadow.dumping = false
	m.mu.Unlock()
	if err == nil {
		err = m.walk(ctx, func(e *entry, now time.Duration) (ct.Op, bool) { return m.missing(e, &t, now) })
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		if m.own { // begin anew
			m.takeover = m.takeover || t.takeover
			m.reconcile = t.reason
			for _, p := range t.serve {
				p.serve.due = p.serve.phase == bulkRunning
			}
		}
		return err
	}
	for _, p := range t.serve {
		p.serve.dumped, p.serve.count = true, uint32(m.shadow.live)
		p.checkServed()
	}
	m.log.Debug("table compared", zap.Bool("takeover", t.takeover), zap.String("reason", t.reason),
		zap.Int("flows", m.shadow.live), zap.Duration("took", time.Since(begin)))
	return nil
}

// surveyed takes one flow of the dump. What an event told during the dump is
// newer than what the dump says.
func (m *Mirror) surveyed(f *ct.Flow, t *task) {
	e := m.shadow.find(f.Orig)
	changed := false
	switch {
	case e == nil:
		e, changed = m.shadow.add(f), true
	case e.gen == m.shadow.gen:
		if e.dead {
			return
		}
	case m.shadow.source(e) != nil:
		e.gen = m.shadow.gen
		return
	case e.dead:
		m.shadow.revive(e)
		e.flow, e.from, e.held, changed = *f, nil, false, true
	default:
		changed = !sameState(&e.flow, f)
		told := e.flow.Timeout
		e.flow = *f
		if e.held {
			e.flow.Timeout = min(f.Timeout, told)
		}
	}
	e.gen = m.shadow.gen
	if m.shadow.source(e) != nil {
		return
	}
	if changed {
		m.tell(e)
	}
	for _, p := range t.serve {
		if p.session != nil && !p.dropping {
			p.enqueue(e, m.now(), true)
			p.kick()
		}
	}
}

// missing judges one entry after the dump.
func (m *Mirror) missing(e *entry, t *task, now time.Duration) (ct.Op, bool) {
	if e.dead {
		m.shadow.reap(e)
		return ct.Op{}, false
	}
	if !m.own || m.shadow.source(e) != nil {
		return ct.Op{}, false
	}
	if int32(e.gen-m.shadow.gen) >= 0 {
		if !t.takeover || !e.held {
			return ct.Op{}, false
		}
		// The kernel counts down our Hold unless there was traffic since. Give
		// the flow what its last owner said it had.
		e.held = false
		f := e.flow
		f.Timeout = max(f.Timeout, leastLeft)
		return ct.Op{Change: ct.Update, Flow: f}, true
	}
	if t.takeover && e.from != nil && e.expires > now {
		// A peer told it and something took it out of our table: back with it.
		e.gen, e.held, e.from = m.shadow.gen, false, nil
		f := e.flow
		f.Timeout = max(f.Timeout, leastLeft)
		m.reinjected++
		m.tell(e)
		return ct.Op{Change: ct.New, Flow: f}, true
	}
	m.shadow.kill(e)
	m.tell(e)
	m.shadow.reap(e)
	return ct.Op{}, false
}

// leastLeft is the shortest timeout that a takeover gives a flow: the last
// owner's word may be old, and one packet restores the real one.
const leastLeft = 10 * time.Second

// walk calls judge for each entry, under the lock but in steps, and makes the
// changes it returns.
func (m *Mirror) walk(ctx context.Context, judge func(*entry, time.Duration) (ct.Op, bool)) error {
	var ops []ct.Op
	for i, more := 0, true; more; {
		if !m.table.enter(ctx) {
			return ctx.Err()
		}
		m.mu.Lock()
		now := m.now()
		ops = ops[:0]
		end := min(i+applyMax, len(m.shadow.slab))
		for ; i < end; i++ {
			if e := m.shadow.slab[i]; e.used {
				if op, ok := judge(e, now); ok {
					ops = append(ops, op)
				}
			}
		}
		more = i < len(m.shadow.slab)
		m.mu.Unlock()
		m.apply(ops, nil)
		m.table.leave()
	}
	return nil
}

// sweep ends a bulk update of the peer: what it did not mention is gone. The
// first one after a start goes through the kernel's own table, too, where a
// former life of this node may have left something.
func (m *Mirror) sweep(ctx context.Context, p *peer, id uint32) error {
	err := m.walk(ctx, func(e *entry, _ time.Duration) (ct.Op, bool) {
		if e.dead || !p.owner || e.from == p && e.epoch == m.shadow.epoch && int32(e.bulk-id) >= 0 {
			return ct.Op{}, false
		}
		if s := m.shadow.source(e); s != p && (s != nil || m.own || !m.only(p)) {
			return ct.Op{}, false
		}
		op := ct.Op{Change: ct.Destroy, Flow: e.flow}
		m.shadow.kill(e)
		m.shadow.reap(e)
		p.stats.Swept++
		return op, true
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	first := !m.swept && !m.own && m.only(p)
	m.mu.Unlock()
	if first {
		if err := m.sweepKernel(ctx, p); err != nil {
			m.mu.Lock()
			p.sweepDue = p.session != nil && p.sweepID == id
			m.mu.Unlock()
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p.settled(id)
	return nil
}

// only reports whether the peer is the one owner among the peers.
func (m *Mirror) only(p *peer) bool {
	for _, q := range m.peers {
		if q.owner != (q == p) {
			return false
		}
	}
	return true
}

// sweepKernel deletes the flows of the kernel's table that should be the peer's
// and that it did not mention.
func (m *Mirror) sweepKernel(ctx context.Context, p *peer) error {
	var strays []ct.Flow
	unknown := func(f *ct.Flow) bool {
		e := m.shadow.find(f.Orig)
		return !m.own && p.owner && (e == nil || e.dead)
	}
	err := m.cfg.Table.Dump(ctx, func(f *ct.Flow) error {
		if m.mirrored(f) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if unknown(f) {
				strays = append(strays, *f)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var ops []ct.Op
	for len(strays) > 0 {
		if !m.table.enter(ctx) {
			return ctx.Err()
		}
		n := min(len(strays), applyMax)
		ops = ops[:0]
		m.mu.Lock()
		for i := range strays[:n] {
			if unknown(&strays[i]) {
				ops = append(ops, ct.Op{Change: ct.Destroy, Flow: strays[i]})
				p.stats.Swept++
			}
		}
		m.mu.Unlock()
		m.apply(ops, nil)
		m.table.leave()
		strays = strays[n:]
	}
	m.mu.Lock()
	m.swept = true
	m.mu.Unlock()
	return nil
}

// checkCount looks, on a node that owns nothing and so has no listener, whether
// somebody has flushed the table; then what the peers told goes back into it.
func (m *Mirror) checkCount(ctx context.Context) error {
	n, _, err := m.cfg.Table.Count()
	if err != nil {
		return err
	}
	m.mu.Lock()
	enough := n >= m.shadow.live
	if enough {
		m.flushPause = 0
	} else {
		m.flushPause = min(2*m.flushPause, countMax)
		m.shadow.gen++
	}
	m.mu.Unlock()
	if enough {
		return nil
	}
	err = m.cfg.Table.Dump(ctx, func(f *ct.Flow) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.own {
			return errRole
		}
		if e := m.shadow.find(f.Orig); e != nil {
			e.gen = m.shadow.gen
		}
		return nil
	})
	if err != nil {
		return err
	}
	lost := 0
	err = m.walk(ctx, func(e *entry, now time.Duration) (ct.Op, bool) {
		if m.own || e.dead || int32(e.gen-m.shadow.gen) >= 0 {
			return ct.Op{}, false
		}
		left := (e.expires - now).Truncate(time.Second)
		if left <= 0 {
			m.shadow.kill(e) // its time was over
			m.shadow.reap(e)
			return ct.Op{}, false
		}
		lost++
		m.reinjected++
		f := e.flow
		f.Timeout = max(left, f.Timeout)
		return ct.Op{Change: ct.New, Flow: f}, true
	})
	if lost > 0 {
		m.log.Warn("flows were missing in the connection table", zap.Int("flows", lost))
	}
	return err
}
