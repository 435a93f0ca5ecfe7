package sync

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/ct"
)

func TestLossyLinkConvergesOverRestart(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		n.set(func(n *network) { n.loss, n.double, n.reorder = 0.3, 0.1, 0.1 })
		fs := many(1200)
		for i, f := range fs {
			a.table.traffic(f)
			if i%10 == 0 {
				time.Sleep(time.Millisecond)
			}
			if i == 600 {
				b.stop()
				b = start(t, n, "b", newMemTable())
				defer b.stop()
			}
		}
		for _, f := range fs[:300] {
			a.table.end(f.Orig)
		}
		waitEqual(t, a, b, 10*time.Second, 900)
		if s := a.status(); s.LostFrames == 0 {
			t.Error("no frame was lost: the test tests nothing")
		}
	})
}

func TestLostDeleteIsRepaired(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		defer b.stop()
		a.table.traffic(many(10)...)
		waitEqual(t, a, b, 50*time.Millisecond, 10)
		n.set(func(n *network) { n.cut = true })
		a.table.end(tcp(3, 0).Orig)
		time.Sleep(300 * time.Millisecond)
		n.set(func(n *network) { n.cut = false })
		waitEqual(t, a, b, 500*time.Millisecond, 9)
		if got := b.status().Resyncs["start"]; got != 1 {
			t.Errorf("sessions: got %d, want 1: the delete was to be repaired without a new one", got)
		}
	})
}

func TestHostileFramesAreCountedAndHarmless(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		defer b.stop()
		var seen [][]byte
		n.set(func(n *network) {
			n.tap = func(from, _ netip.AddrPort, b []byte) {
				if from == addrA && b[0] == frameData {
					n.set(func(*network) { seen = append(seen, b) })
				}
			}
		})
		a.table.traffic(many(100)...)
		waitEqual(t, a, b, 50*time.Millisecond, 100)
		n.set(func(n *network) { n.tap = nil })
		time.Sleep(initPause)
		before := b.status()
		r := rand.New(rand.NewPCG(3, 4))
		frames := 0
		for _, f := range seen {
			n.inject(addrA, addrB, f) // replay
			high := bytes.Clone(f)    // a sequence number ahead, so that only the tag can tell
			high[5] ^= 0x40
			n.inject(addrA, addrB, high)
			flip := bytes.Clone(f)
			flip[r.IntN(len(flip))] ^= 1 << r.IntN(8)
			n.inject(addrA, addrB, flip)
			n.inject(addrA, addrB, f[:r.IntN(len(f))])
			n.inject(netip.MustParseAddrPort("10.9.0.9:4112"), addrB, f)
			frames++
		}
		n.inject(addrA, addrB, []byte{99, 1, 2, 3})
		n.inject(addrA, addrB, []byte{frameInit, 0, 0, 0, 1, 2, 3, 4})
		n.inject(addrA, addrB, nil)
		for range 50 {
			n.inject(addrB, addrA, []byte{frameHello})
		}
		time.Sleep(time.Second)
		after := b.status()
		for _, why := range []drop{dropLate, dropForged, dropShort, dropType, dropKey} {
			if after.Dropped[dropNames[why]] <= before.Dropped[dropNames[why]] {
				t.Errorf("drops %q: got %d, had %d", dropNames[why], after.Dropped[dropNames[why]], before.Dropped[dropNames[why]])
			}
		}
		if got := b.m.Strangers(); got != uint64(frames) {
			t.Errorf("frames of strangers: got %d, want %d", got, frames)
		}
		if !equal(a, b) || !after.InSync || after.Resyncs["start"] != 1 || after.Resyncs["malformed"] != 0 {
			t.Errorf("after hostile frames: in sync %v, resyncs %v", after.InSync, after.Resyncs)
		}
		a.table.traffic(udp(1))
		waitEqual(t, a, b, 50*time.Millisecond, 101)
	})
}

func TestOtherKeyNeverComesUp(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a := start(t, n, "a", newMemTable(), func(c *Config) { c.Key[0] = 9 })
		b := start(t, n, "b", newMemTable())
		defer a.stop()
		defer b.stop()
		a.m.Own(true)
		a.table.traffic(many(10)...)
		time.Sleep(20 * time.Second)
		if a.status().Up || b.status().Up {
			t.Error("a session with another key is up")
		}
		if got := b.status().Dropped["other key"]; got < 20 {
			t.Errorf("handshakes refused: got %d, want at least 20", got)
		}
		if len(b.table.all()) != 0 || b.demotion() != 240 {
			t.Errorf("b has %d flows and demotion %d, want 0 and 240", len(b.table.all()), b.demotion())
		}
	})
}

func TestOtherNameNeverComesUp(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a := start(t, n, "a", newMemTable(), func(c *Config) { c.Node = "a2" })
		b := start(t, n, "b", newMemTable())
		defer a.stop()
		defer b.stop()
		time.Sleep(5 * time.Second)
		if a.status().Up || b.status().Up {
			t.Error("a session with another name is up")
		}
		if got := b.status().Dropped["other name"]; got < 5 {
			t.Errorf("handshakes refused: got %d, want at least 5", got)
		}
	})
}

func TestOldSessionReplayedAfterRestart(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		var seen [][]byte
		n.set(func(n *network) {
			n.tap = func(from, _ netip.AddrPort, b []byte) {
				if from == addrA {
					n.set(func(*network) { seen = append(seen, b) })
				}
			}
		})
		a.table.traffic(many(100)...)
		waitEqual(t, a, b, 50*time.Millisecond, 100)
		a.m.Resync("test") // and a handshake to be recorded
		n.inject(addrB, addrA, []byte{frameHello})
		time.Sleep(2 * time.Second)
		n.set(func(n *network) { n.tap = nil })
		for _, f := range many(100) {
			a.table.end(f.Orig)
		}
		waitEqual(t, a, b, 50*time.Millisecond, 0)
		b.stop()
		b = start(t, n, "b", newMemTable())
		defer b.stop()
		wait(t, 5*time.Second, "in sync", func() bool { return b.status().InSync })
		for range 3 {
			for _, f := range seen {
				n.inject(addrA, addrB, f)
				time.Sleep(5 * time.Millisecond)
			}
		}
		if got := len(b.table.all()); got != 0 {
			t.Errorf("flows after a replay: got %d, want 0", got)
		}
		if s := b.status(); !s.InSync || s.Resyncs["start"] != 1 {
			t.Errorf("after a replay: in sync %v, resyncs %v", s.InSync, s.Resyncs)
		}
		a.table.traffic(udp(1))
		waitEqual(t, a, b, 100*time.Millisecond, 1)
	})
}

func TestFlushOnBackupIsRepaired(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		defer b.stop()
		a.table.traffic(many(500)...)
		waitEqual(t, a, b, time.Second, 500)
		b.table.flush()
		waitEqual(t, a, b, 2*time.Second, 500)
		if got := b.status().Reinjected; got != 500 {
			t.Errorf("put back: got %d, want 500", got)
		}
		if got := len(a.table.all()); got != 500 {
			t.Errorf("flows of the owner: got %d, want 500", got)
		}
	})
}

func TestOverrunIsReconciled(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		defer b.stop()
		a.table.traffic(many(100)...)
		waitEqual(t, a, b, time.Second, 100)
		a.table.loseEvents(func() {
			for i := range 50 {
				a.table.end(tcp(i, 0).Orig)
			}
			a.table.traffic(tcp(60, ct.TCPFinWait), udp(200))
		})
		waitEqual(t, a, b, time.Second, 51)
		if got := a.status().Overruns; got != 1 {
			t.Errorf("overruns: got %d, want 1", got)
		}
	})
}

func TestBusyUDPOutlivesHold(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n, func(c *Config) { c.Hold = 5 * time.Second })
		defer a.stop()
		defer b.stop()
		f, idle := udp(1), udp(2)
		f.Timeout, idle.Timeout = 3*time.Second, 3*time.Second
		a.table.traffic(idle)
		for range 20 {
			a.table.traffic(f)
			time.Sleep(time.Second)
			if _, ok := b.table.all()[f.Orig]; !ok {
				t.Fatal("a busy flow timed out on the backup")
			}
		}
		if _, ok := b.table.all()[idle.Orig]; ok {
			t.Error("an idle flow outlives its owner's")
		}
	})
}

func TestSlowAndDeadPeerBoundMemory(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		slow := newMemTable()
		slow.slow = 300 * time.Millisecond
		a, b := start(t, n, "a", newMemTable()), start(t, n, "b", slow)
		defer a.stop()
		defer b.stop()
		a.m.Own(true)
		wait(t, 10*time.Second, "in sync", func() bool { return a.status().InSync })
		for range 30 {
			for i := range 3000 {
				f := udp(i)
				a.table.traffic(f)
				a.table.end(f.Orig)
			}
			time.Sleep(50 * time.Millisecond)
		}
		a.table.traffic(many(1000)...)
		if got := a.status().Pending; got > 4000 {
			t.Errorf("pending with a slow peer: got %d, want at most one per flow, 4000", got)
		}
		n.set(func(n *network) { n.cut = true }) // dead
		time.Sleep(3 * time.Second)
		a.table.traffic(udp(1))
		time.Sleep(time.Second)
		a.m.mu.Lock()
		dead, live, slab := a.m.shadow.dead, a.m.shadow.live, len(a.m.shadow.slab)
		a.m.mu.Unlock()
		if got := a.status().Pending; got != 0 || dead != 0 || live != 1001 || slab > 5000 {
			t.Errorf("with a dead peer: %d pending, %d dead, %d live, %d entries; want 0, 0, 1001, at most 5000", got, dead, live, slab)
		}
		n.set(func(n *network) { n.cut = false })
		slow.mu.Lock()
		slow.slow = 0
		slow.mu.Unlock()
		waitEqual(t, a, b, 10*time.Second, 1001)
	})
}

func TestDeletesOverflowToBulkUpdate(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		defer b.stop()
		fs := make([]ct.Flow, deadReserve+5000)
		for i := range fs {
			fs[i] = udp(i % 60000)
			fs[i].Orig.DstPort = uint16(i / 60000)
			fs[i].Reply = fs[i].Orig.Inverse()
			ev := ct.Event{Change: ct.New, Flow: fs[i]}
			a.m.event(&ev)
		}
		wait(t, 20*time.Second, "all told", func() bool { return a.status().Pending == 0 && a.status().InFlight == 0 })
		n.set(func(n *network) { n.cut = true })
		for i := range fs {
			ev := ct.Event{Change: ct.Destroy, Flow: fs[i]}
			a.m.event(&ev)
		}
		time.Sleep(300 * time.Millisecond)
		n.set(func(n *network) { n.cut = false })
		waitEqual(t, a, b, 20*time.Second, 0)
		if got := a.status().Overflows; got != 1 {
			t.Errorf("overflows: got %d, want 1", got)
		}
		if got := b.status().Resyncs["peer"]; got < 1 {
			t.Errorf("bulk updates by the owner's wish: got %d, want 1", got)
		}
	})
}

func TestKeysChangeWithoutAGap(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		defer b.stop()
		session := func(x *node) uint32 { x.m.mu.Lock(); defer x.m.mu.Unlock(); return x.m.peers[0].session.local }
		before := session(a)
		for i := range 100 {
			a.table.traffic(tcp(i, ct.TCPEstablished))
			time.Sleep(40 * time.Second)
		}
		waitEqual(t, a, b, time.Second, 100)
		if session(a) == before {
			t.Error("after 66 minutes the session is the same")
		}
		if s := b.status(); s.Resyncs["start"] != 1 || !s.InSync {
			t.Errorf("after new keys: in sync %v, resyncs %v, want one start", s.InSync, s.Resyncs)
		}
	})
}
