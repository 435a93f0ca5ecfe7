package sync

import (
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/ct"
)

func TestBulkOnJoin(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a := settled(t, n, 1000)
		defer a.stop()
		stale := newMemTable()
		stale.traffic(udp(1), tcp(5000, ct.TCPEstablished)) // from a former life
		b := start(t, n, "b", stale)
		defer b.stop()
		waitEqual(t, a, b, 2*time.Second, 1000)
		wait(t, time.Second, "demotion 0", func() bool { return b.demotion() == 0 })
		if got := b.demotions(); got[0] != 240 || len(got) != 2 {
			t.Errorf("demotions of b: got %v, want [240 0]", got)
		}
		if got := a.demotion(); got != 0 {
			t.Errorf("demotion of the owner: got %d, want 0", got)
		}
	})
}

func TestEventsArrive(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		defer b.stop()
		a.table.traffic(tcp(1, ct.TCPSynSent))
		time.Sleep(50 * time.Millisecond)
		if got := len(b.table.all()); got != 0 {
			t.Fatalf("flows on b after a SYN: got %d, want 0", got)
		}
		a.table.traffic(tcp(1, ct.TCPSynRecv), udp(2))
		waitEqual(t, a, b, 10*time.Millisecond, 2)
		a.table.traffic(tcp(1, ct.TCPEstablished))
		waitEqual(t, a, b, 10*time.Millisecond, 2)
		a.table.end(tcp(1, 0).Orig)
		waitEqual(t, a, b, 10*time.Millisecond, 1)
		f := b.table.all()[udp(2).Orig]
		if f.Timeout < 590*time.Second {
			t.Errorf("timeout of the copy: got %v, want about %v", f.Timeout, DefaultHold)
		}
	})
}

func TestUpdateWithoutTCPStateKeepsIt(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		defer b.stop()
		f := tcp(1, ct.TCPEstablished)
		a.table.traffic(f)
		waitEqual(t, a, b, 50*time.Millisecond, 1)
		f.Mark = 7
		ev := ct.Event{Change: ct.Update, Flow: f}
		ev.Flow.TCP = ct.TCP{}
		a.m.event(&ev)
		ev = ct.Event{Change: ct.Update, Flow: tcp(2, ct.TCPEstablished)}
		ev.Flow.TCP = ct.TCP{}
		a.m.event(&ev)
		time.Sleep(50 * time.Millisecond)
		got := b.table.states()
		f.Timeout = 0
		if len(got) != 1 || got[f.Orig] != f {
			t.Errorf("flows on b: got %+v, want %+v", got, f)
		}
	})
}
