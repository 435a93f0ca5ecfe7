package sync

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xcarp/xcarp/internal/ct"
)

func TestHandoverAndBack(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		defer b.stop()
		a.table.traffic(many(300)...)
		waitEqual(t, a, b, time.Second, 300)
		for range 2 {
			b.m.Own(true)
			a.m.Own(false)
			a.table.flush()          // an address goes, masquerade entries with it
			a.table.traffic(udp(99)) // a frame in flight, while it drains
			b.table.traffic(udp(500))
			waitEqual(t, b, a, 3*time.Second, 301)
			wait(t, time.Second, "demotion 0", func() bool { return a.demotion() == 0 && b.demotion() == 0 })
			b.table.end(udp(500).Orig)
			waitEqual(t, b, a, time.Second, 300)
			a, b = b, a
		}
	})
}

// TestAPeerThatIsReachedCostsNoDumpAtOnce: a network that has healed has other worries.
func TestAPeerThatIsReachedCostsNoDumpAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a := settled(t, n, 300)
		defer a.stop()
		a.table.mu.Lock()
		a.table.dumped = nil
		a.table.mu.Unlock()
		b := start(t, n, "b", newMemTable())
		defer b.stop()
		wait(t, 5*time.Second, "the session", func() bool { return a.status().Up })
		up := time.Now()
		waitEqual(t, a, b, time.Second, 300)
		a.table.mu.Lock()
		defer a.table.mu.Unlock()
		if d := a.table.dumped; len(d) == 0 || d[0].Before(up.Add(serveAfter-10*time.Millisecond)) {
			t.Errorf("session at %v, dumps at %v; want none within %v", up, d, serveAfter)
		}
	})
}

func TestDeletesOfLeavingNodeKillNothing(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		defer b.stop()
		a.table.traffic(many(300)...)
		waitEqual(t, a, b, time.Second, 300)
		b.m.Own(true)
		a.table.flush() // still an owner: its deletes are sent
		time.Sleep(50 * time.Millisecond)
		a.m.Own(false)
		waitEqual(t, b, a, 3*time.Second, 300)
		if got := b.table.deleted; got != 0 {
			t.Errorf("deletes on the survivor: got %d, want 0", got)
		}
		if got := b.status().Dropped["delete of a flow of ours"]; got < 200 {
			t.Errorf("deletes refused: got %d, want nearly 300", got)
		}
	})
}

func TestPendingIsNotSentAfterOwnFalse(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		defer b.stop()
		a.table.traffic(many(300)...)
		waitEqual(t, a, b, time.Second, 300)
		n.set(func(n *network) { n.cut = true })
		a.table.flush()
		time.Sleep(10 * time.Millisecond)
		a.m.Own(false)
		time.Sleep(10 * time.Millisecond)
		n.set(func(n *network) { n.cut = false })
		time.Sleep(500 * time.Millisecond)
		if got := a.status().Pending; got != 0 {
			t.Errorf("pending on a: got %d, want 0", got)
		}
		if got := len(b.table.all()); got != 300 {
			t.Fatalf("flows on b: got %d, want 300", got)
		}
		b.m.Own(true)
		waitEqual(t, b, a, 3*time.Second, 300)
	})
}

func TestTakeoverAfterCrash(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		a.table.traffic(many(300)...)
		a.table.traffic(udp(400))
		waitEqual(t, a, b, time.Second, 301)
		a.stop()
		b.table.end(tcp(7, 0).Orig) // lost on b, unseen; the takeover notices
		b.m.Own(true)
		time.Sleep(surveyAfter + 100*time.Millisecond)
		if got := len(b.table.all()); got != 301 {
			t.Errorf("flows after the takeover: got %d, want 301", got)
		}
		if got := b.table.all()[udp(400).Orig].Timeout; got > 30*time.Second {
			t.Errorf("timeout of an idle flow after the takeover: got %v, want at most 30s", got)
		}
		time.Sleep(10 * time.Second)
		if got := b.demotion(); got != 0 {
			t.Errorf("demotion of the node that took over: got %d, want 0", got)
		}
		// a comes back with the table it died with; one flow ended meanwhile.
		b.table.end(tcp(1, 0).Orig)
		a = start(t, n, "a", a.table)
		defer a.stop()
		defer b.stop()
		waitEqual(t, b, a, 3*time.Second, 300)
		wait(t, time.Second, "demotion 0", func() bool { return a.demotion() == 0 })
		if got := a.demotions(); !slices.Equal(got, []int{240, 0}) {
			t.Errorf("demotions of a: got %v, want [240 0]", got)
		}
	})
}

func TestSplitBrainHeals(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		defer b.stop()
		a.table.traffic(many(300)...)
		waitEqual(t, a, b, time.Second, 300)
		n.set(func(n *network) { n.cut = true })
		time.Sleep(50 * time.Millisecond)
		b.m.Own(true)
		a.table.traffic(udp(900)) // only a has this one
		b.table.traffic(tcp(5, ct.TCPFinWait), udp(901))
		time.Sleep(10 * time.Second)
		if a.demotion() != 1 || b.demotion() != 0 {
			t.Errorf("demotions apart: a %d, b %d, want 1 and 0", a.demotion(), b.demotion())
		}
		n.set(func(n *network) { n.cut = false })
		wait(t, 2*time.Second, "session", func() bool { return a.status().Up })
		wait(t, time.Second, "union", func() bool { return len(a.table.all()) == 302 && len(b.table.all()) == 302 })
		if got := a.table.all()[tcp(5, 0).Orig].TCP.State; got != ct.TCPFinWait {
			t.Errorf("state of the connection that b carried: got %d, want %d", got, ct.TCPFinWait)
		}
		a.m.Own(false)
		waitEqual(t, b, a, 2*time.Second, 302)
		wait(t, time.Second, "demotion 0", func() bool { return a.demotion() == 0 && b.demotion() == 0 })
		if got := a.demotions(); !slices.Equal(got, []int{240, 0, 1, 0, 240, 0}) && !slices.Equal(got, []int{0, 1, 0, 240, 0}) {
			t.Errorf("demotions of a: got %v", got)
		}
		if got := b.table.deleted; got != 0 {
			t.Errorf("deletes on b: got %d, want 0", got)
		}
		// What a held as an owner is b's now; its end is one everywhere.
		b.table.end(udp(900).Orig)
		waitEqual(t, b, a, time.Second, 301)
	})
}

func TestDemotionOfABackupWithoutSession(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		defer b.stop()
		n.set(func(n *network) { n.cut = true })
		time.Sleep(1500 * time.Millisecond)
		if a.demotion() != 0 || b.demotion() != 1 {
			t.Errorf("after 1.5 s: a %d, b %d, want 0 and 1", a.demotion(), b.demotion())
		}
		time.Sleep(3 * time.Second)
		if a.demotion() != 1 || b.demotion() != 1 {
			t.Errorf("after 4.5 s: a %d, b %d, want 1 and 1", a.demotion(), b.demotion())
		}
		n.set(func(n *network) { n.cut = false })
		wait(t, 3*time.Second, "demotions 0", func() bool { return a.demotion() == 0 && b.demotion() == 0 })
	})
}

// Where load is shared all nodes own. One that dies is no reason for the others to
// doubt themselves: who doubted first would lose its share to the other.
func TestOwnersThatHearEachOtherDoNotDoubt(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		addrs := map[string]netip.AddrPort{"a": addrA, "b": addrB, "c": netip.MustParseAddrPort("10.9.0.3:4112")}
		nodes := map[string]*node{}
		for name, addr := range addrs {
			x := start(t, n, name, newMemTable(), func(c *Config) {
				c.Local, c.Peers = addr, maps.Clone(addrs)
				delete(c.Peers, name)
			})
			defer x.stop()
			x.m.Own(true)
			nodes[name] = x
		}
		a, b := nodes["a"], nodes["b"]
		wait(t, 5*time.Second, "in sync", func() bool {
			for _, x := range nodes {
				if s := x.m.Status(); !s[0].InSync || !s[1].InSync {
					return false
				}
			}
			return true
		})
		time.Sleep(2 * time.Second)
		nodes["c"].stop()
		time.Sleep(10 * time.Second)
		for name, x := range map[string]*node{"a": a, "b": b} {
			if got := x.demotions(); slices.Contains(got, 1) {
				t.Errorf("demotions of %s, which hears the other: got %v, want no 1", name, got)
			}
		}
		// That c has been away for long is no reason to doubt sooner.
		n.set(func(n *network) { n.cut = true })
		time.Sleep(1500 * time.Millisecond)
		if a.demotion() != 0 || b.demotion() != 0 {
			t.Errorf("alone for 1.5 s: a %d, b %d, want 0 and 0", a.demotion(), b.demotion())
		}
		time.Sleep(3 * time.Second)
		if a.demotion() != 1 || b.demotion() != 1 {
			t.Errorf("alone for 4.5 s: a %d, b %d, want 1 and 1", a.demotion(), b.demotion())
		}
	})
}

func TestTwoBackupsHaveNothingToWaitFor(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		table := newMemTable()
		table.traffic(many(10)...)
		a, b := start(t, n, "a", table), start(t, n, "b", newMemTable())
		defer a.stop()
		defer b.stop()
		wait(t, 3*time.Second, "demotions 0", func() bool { return a.demotion() == 0 && b.demotion() == 0 })
		if got := len(table.all()); got != 10 {
			t.Errorf("flows: got %d, want 10: nobody owns, nothing is swept", got)
		}
		a.m.Own(true) // what the kernel had is its own now
		waitEqual(t, a, b, 3*time.Second, 10)
	})
}

func TestBothOwnTheirOwn(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		defer b.stop()
		b.m.Own(true)
		time.Sleep(100 * time.Millisecond)
		a.table.traffic(udp(1), udp(2))
		b.table.traffic(udp(3), udp(4))
		waitEqual(t, a, b, time.Second, 4)
		b.table.end(udp(1).Orig) // a's: only a may end it
		a.table.end(udp(2).Orig)
		b.table.end(udp(3).Orig)
		time.Sleep(time.Second)
		got := a.table.all()
		if _, ok := got[udp(1).Orig]; !ok || len(got) != 2 {
			t.Errorf("flows on a: got %d, want those of 1 and 4", len(got))
		}
	})
}

func TestRolesArrive(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		defer b.stop()
		want := []GroupRole{
			{Name: "wan", State: 2, Term: 7, Ears: 1, Targets: []netip.Addr{addrA.Addr()}, Marks: []Mark{{1, 2, 3}, {4, 5, 6}}},
			{Name: "lan", State: 1, Term: 1 << 40, Demotion: -3},
		}
		a.m.SetRoles(want)
		wait(t, 10*time.Millisecond, "roles", func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return cmp.Diff(b.roles, want, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) == ""
		})
	})
}

// TestAnOwnerWhosePeerIsVouchedForIsNotCutOff: the sync link alone is gone. What was
// vouched for does not become doubtful when the link is back.
func TestAnOwnerWhosePeerIsVouchedForIsNotCutOff(t *testing.T) {
	for _, vouched := range []bool{true, false} {
		bubble(t, func(t *testing.T, n *network) {
			a := start(t, n, "a", newMemTable(), func(c *Config) { c.Vouched = func(peer string) bool { return vouched && peer == "b" } })
			defer a.stop()
			a.m.Own(true)
			b := start(t, n, "b", newMemTable())
			defer b.stop()
			clear := func() bool { return a.last() == Demotion{} && b.last() == Demotion{} }
			wait(t, 5*time.Second, "no demotion", clear)
			n.set(func(n *network) { n.cut = true })
			wait(t, 10*time.Second, "doubt of the backup", func() bool { return b.last() == Demotion{1, 1} })
			time.Sleep(2 * cutOff)
			if got, want := a.last().Held == 0, vouched; got != want {
				t.Errorf("vouched for: %v; the owner asks for %v", vouched, a.last())
			}
			n.set(func(n *network) { n.cut = false })
			wait(t, 10*time.Second, "no demotion", clear)
			if len(a.asked) == 0 || vouched != !slices.ContainsFunc(a.asked, func(d Demotion) bool { return d.Held == 1 }) {
				t.Errorf("vouched for: %v; the owner asked for %v", vouched, a.asked)
			}
		})
	}
}

// TestOwnersThatAreCutOffAreNoBetterElsewhere: where load is shared both are owners. A
// group must not move because its master doubts itself before its backup does.
func TestOwnersThatAreCutOffAreNoBetterElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		a, b := pair(t, n)
		defer a.stop()
		defer b.stop()
		b.m.Own(true)
		clear := func() bool { return a.last() == Demotion{} && b.last() == Demotion{} }
		wait(t, 5*time.Second, "no demotion", clear)
		time.Sleep(2 * time.Second) // both have heard the other as owners
		n.set(func(n *network) { n.cut = true })
		wait(t, 10*time.Second, "doubt of both", func() bool { return a.last() == Demotion{1, 1} && b.last() == Demotion{1, 1} })
		n.set(func(n *network) { n.cut = false })
		wait(t, 10*time.Second, "no demotion", clear)
		for _, x := range []*node{a, b} {
			for _, d := range x.asked {
				if d.Held > d.Others {
					t.Errorf("asked for %v: the groups of the others were the better ones", x.asked)
				}
			}
		}
	})
}
