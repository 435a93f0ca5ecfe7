package sync

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/ct"
)

// discard is a table that takes everything.
type discard struct{ n int }

func (d *discard) Dump(context.Context, func(*ct.Flow) error) error { return nil }
func (d *discard) Apply(ops []ct.Op, _ func(int, error))            { d.n += len(ops) }
func (d *discard) Listen(bool) error                                { return nil }
func (d *discard) Count() (int, int, error)                         { return 1 << 30, 1 << 30, nil }
func (d *discard) Events(ctx context.Context, _ func(*ct.Event), _ func()) error {
	<-ctx.Done()
	return ctx.Err()
}

// connected returns two Mirrors with a session, whose goroutines do not run.
func connected(tb testing.TB) (a, b *Mirror) {
	tb.Helper()
	n := newNetwork()
	make := func(node, peer string, own, other netip.AddrPort) *Mirror {
		m, err := New(Config{Node: node, Key: [32]byte{1}, Peers: map[string]netip.AddrPort{peer: other}, Table: new(discard), Conn: n.listen(own)})
		if err != nil {
			tb.Fatal(err)
		}
		return m
	}
	a, b = make("a", "b", addrA, addrB), make("b", "a", addrB, addrA)
	i, first, err := initiate(&a.keys[0], a.greeting(a.peers[0]))
	if err != nil {
		tb.Fatal(err)
	}
	sb, _, second, err := respond(&b.keys[0], first[5:], b.greeting(b.peers[0]))
	if err != nil {
		tb.Fatal(err)
	}
	sa, err := i.finish(second[5:], "b", "a")
	if err != nil {
		tb.Fatal(err)
	}
	a.peers[0].establish(sa, a.now())
	b.peers[0].establish(sb, b.now())
	a.Own(true)
	a.peers[0].dropping = false
	return a, b
}

var ops [applyMax]ct.Op

// exchange sends everything that is pending on a to b's table and the ack back.
func exchange(tb testing.TB, a, b *Mirror, buf, plain []byte) (frames, bytes int) {
	pa, pb := a.peers[0], b.peers[0]
	for {
		pa.lastData, pa.lastHeard, pb.lastHeard = 0, a.now(), b.now()
		o := pa.next(a.now())
		if o.seq == 0 {
			if o.again {
				continue
			}
			return frames, bytes
		}
		buf = o.session.seal(buf[:0], o.seq, pa.plain)
		frames++
		bytes += len(buf) + 28
		b.frame(buf, addrA, plain)
		select {
		case x := <-b.batches:
			n := 0
			b.mu.Lock()
			for i := range x.records {
				if op, ok := b.accept(pb, &x.records[i], b.now()); ok {
					ops[n] = op
					n++
				}
			}
			b.mu.Unlock()
			b.apply(ops[:n], pb)
			x.session.applied.mark(x.seq)
			pb.ackDue = true
			b.spare <- x
		default:
		}
		if o := pb.next(b.now()); o.seq != 0 {
			buf = o.session.seal(buf[:0], o.seq, pb.plain)
			a.frame(buf, addrB, plain)
		}
	}
}

// BenchmarkRecords takes flows from the event of the owner to the changes of the
// peer's table: shadow, record, seal, open, record, shadow, ack.
func BenchmarkRecords(b *testing.B) {
	for _, tt := range []struct {
		name string
		flow func(int) ct.Flow
	}{
		{"udp", udp},
		{"tcp", func(i int) ct.Flow { return tcp(2*i+1, ct.TCPEstablished) }},
		{"tcp-snat", func(i int) ct.Flow { return tcp(2*i, ct.TCPEstablished) }},
	} {
		b.Run(tt.name, func(b *testing.B) {
			x, y := connected(b)
			fs := make([]ct.Flow, 4000)
			for i := range fs {
				fs[i] = tt.flow(i)
			}
			buf, plain := make([]byte, 0, 1<<16), make([]byte, 0, 1<<16)
			ev := new(ct.Event)
			bytes, done := 0, 0
			round := func(n int, mark uint32) {
				for i := range n {
					*ev = ct.Event{Change: ct.Update, Flow: fs[i]}
					ev.Flow.Mark = mark
					x.event(ev)
				}
				_, k := exchange(b, x, y, buf, plain)
				bytes += k
				done += n
			}
			round(len(fs), 0)
			round(len(fs), 1)
			bytes, done = 0, 0
			mark := uint32(2)
			b.ReportAllocs()
			begin := time.Now()
			for b.Loop() {
				// One benchmark operation is 1000 records.
				round(1000, mark&1*0x10)
				mark++
			}
			b.ReportMetric(float64(time.Since(begin).Nanoseconds())/float64(done), "ns/record")
			b.ReportMetric(float64(bytes)/float64(done), "B/record")
		})
	}
}

func TestEventsDoNotAllocate(t *testing.T) {
	a, b := connected(t)
	buf, plain := make([]byte, 0, 1<<16), make([]byte, 0, 1<<16)
	ev := new(ct.Event)
	life := func() {
		for i := range 200 {
			*ev = ct.Event{Change: ct.New, Flow: tcp(i, ct.TCPSynRecv)}
			a.event(ev)
			*ev = ct.Event{Change: ct.Update, Flow: tcp(i, ct.TCPEstablished)}
			a.event(ev)
		}
		exchange(t, a, b, buf, plain)
		for i := range 200 {
			*ev = ct.Event{Change: ct.Destroy, Flow: tcp(i, ct.TCPEstablished)}
			a.event(ev)
		}
		exchange(t, a, b, buf, plain)
	}
	for range 50 {
		life() // until the maps and slices have their size
	}
	// What is left is the growth of Go's map by tombstones and one call of the
	// table per frame, by far less than one allocation per event.
	if got := testing.AllocsPerRun(50, life); got > 60 {
		t.Errorf("allocations for the lives of 200 flows: got %v, want none per event", got)
	} else {
		t.Logf("%v allocations for 600 events", got)
	}
	if n := len(a.shadow.slab); n > 200 {
		t.Errorf("entries: got %d, want 200", n)
	}
}
