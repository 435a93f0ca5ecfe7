package sync

import (
	"context"
	stdsync "sync"
	"syscall"
	"time"

	"github.com/xcarp/xcarp/internal/ct"
)

// memTable is a connection table in memory that does what the kernel does: its
// flows time out, changes by traffic are events while somebody listens, changes
// by Apply are not, and a slow listener loses events.
type memTable struct {
	mu        stdsync.Mutex
	flows     map[ct.Tuple]memFlow
	listening bool
	events    chan ct.Event
	lost      chan struct{}
	limit     int
	slow      time.Duration // per Apply
	applied   int
	deleted   int // by Apply
	dumped    []time.Time
}

type memFlow struct {
	ct.Flow
	until time.Time
}

func newMemTable() *memTable {
	return &memTable{flows: make(map[ct.Tuple]memFlow), events: make(chan ct.Event, 4096), lost: make(chan struct{}, 1), limit: 1 << 20}
}

func (t *memTable) emit(c ct.Change, f ct.Flow) {
	if !t.listening {
		return
	}
	select {
	case t.events <- ct.Event{Change: c, Flow: f}:
	default:
		select {
		case t.lost <- struct{}{}:
		default:
		}
	}
}

// traffic is what packets do: make, change or refresh a flow.
func (t *memTable) traffic(fs ...ct.Flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range fs {
		old, ok := t.flows[f.Orig]
		ok = ok && time.Now().Before(old.until)
		t.flows[f.Orig] = memFlow{f, time.Now().Add(f.Timeout)}
		if !ok {
			t.emit(ct.New, f)
		} else if !sameState(&old.Flow, &f) {
			t.emit(ct.Update, f)
		}
	}
}

// end is what the end of a connection does, or conntrack -D.
func (t *memTable) end(ks ...ct.Tuple) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range ks {
		if f, ok := t.flows[k]; ok {
			delete(t.flows, k)
			t.emit(ct.Destroy, f.Flow)
		}
	}
}

func (t *memTable) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, f := range t.flows {
		delete(t.flows, k)
		t.emit(ct.Destroy, f.Flow)
	}
}

// loseEvents makes the flows change as in an overrun: nobody hears of it.
func (t *memTable) loseEvents(f func()) {
	t.mu.Lock()
	was := t.listening
	t.listening = false
	t.mu.Unlock()
	f()
	t.mu.Lock()
	t.listening = was
	t.mu.Unlock()
	t.lost <- struct{}{}
}

// expire ends what has timed out.
func (t *memTable) expire() {
	for k, f := range t.flows {
		if !time.Now().Before(f.until) {
			delete(t.flows, k)
			t.emit(ct.Destroy, f.Flow)
		}
	}
}

func (t *memTable) all() map[ct.Tuple]ct.Flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire()
	m := make(map[ct.Tuple]ct.Flow)
	for k, f := range t.flows {
		g := f.Flow
		g.Timeout = time.Until(f.until).Truncate(time.Second)
		m[k] = g
	}
	return m
}

func (t *memTable) Dump(ctx context.Context, fn func(*ct.Flow) error) error {
	t.mu.Lock()
	t.dumped = append(t.dumped, time.Now())
	t.mu.Unlock()
	for _, f := range t.all() {
		if err := fn(&f); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (t *memTable) Apply(ops []ct.Op, failed func(int, error)) {
	if t.slow > 0 {
		time.Sleep(t.slow)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.applied += len(ops)
	for i, op := range ops {
		k := op.Flow.Orig
		if op.Change == ct.Destroy {
			if _, ok := t.flows[k]; !ok {
				failed(i, syscall.ENOENT)
			}
			delete(t.flows, k)
			t.deleted++
			continue
		}
		if _, ok := t.flows[k]; !ok && len(t.flows) >= t.limit {
			failed(i, syscall.ENOSPC)
			continue
		}
		t.flows[k] = memFlow{op.Flow, time.Now().Add(op.Flow.Timeout)}
	}
}

func (t *memTable) Listen(on bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.listening = on
	return nil
}

func (t *memTable) Events(ctx context.Context, fn func(*ct.Event), overrun func()) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev := <-t.events:
			fn(&ev)
		case <-t.lost:
			overrun()
		case <-tick.C:
			t.mu.Lock()
			t.expire()
			t.mu.Unlock()
		}
	}
}

func (t *memTable) Count() (int, int, error) { return len(t.all()), t.limit, nil }
