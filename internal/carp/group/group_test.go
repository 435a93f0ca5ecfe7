package group

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

func wantState(tb testing.TB, n *node, want carp.State) {
	tb.Helper()
	synctest.Wait()
	if got := n.state(); got != want {
		tb.Errorf("state: got %v, want %v; transitions %v", got, want, n.transitions())
	}
}

func TestTheFasterOfThreeBecomesMasterAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		a := start(t, s, 1, carp.Config{AdvBase: 1})
		b := start(t, s, 2, carp.Config{AdvBase: 1, AdvSkew: 100})
		c := start(t, s, 3, carp.Config{AdvBase: 1, AdvSkew: 200})
		time.Sleep(3*time.Second - time.Nanosecond)
		wantState(t, a, carp.Backup)
		time.Sleep(time.Nanosecond)
		wantState(t, a, carp.Master)
		time.Sleep(10 * time.Second)
		wantState(t, a, carp.Master)
		wantState(t, b, carp.Backup)
		wantState(t, c, carp.Backup)
		if got := a.transitions(); len(got) != 2 || got[1].Term != 1 || got[1].Reason != "master timed out" {
			t.Errorf("transitions of the master: %v", got)
		}
		if got, want := b.Status().Received, a.Status().Sent; got != want || got != 22 {
			t.Errorf("adverts received by the backup: got %d, want the %d sent, 11 in two families", got, want)
		}
		if m := c.Status().Masters; len(m) != 1 || m[0].Addr.String() != "192.0.2.1" || m[0].Addr6.String() != "fe80::1" {
			t.Errorf("masters seen: got %v, want one in two families", m)
		}
		last := uint64(0) // replay checks want every frame's counter to be new
		for _, f := range s.frames() {
			if r, why := carp.ParseFrame(f); why == carp.Accepted {
				if r.Counter <= last {
					t.Errorf("counter %d after %d", r.Counter, last)
				}
				last = r.Counter
			}
		}
		for _, n := range []*node{c, b, a} {
			n.stop(t)
		}
	})
}

// TestEffectsComeInOrder looks at what a takeover does, frame by frame.
func TestEffectsComeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		var a *node
		s.lose = func(_ *port, b []byte) bool { return false }
		tap := s.plug()
		a = start(t, s, 1, carp.Config{AdvBase: 1})
		s.set(func() {
			s.lose = func(from *port, b []byte) bool {
				if from == a.port {
					a.mu.Lock()
					defer a.mu.Unlock()
					a.order = append(a.order, kind(b))
				}
				return false
			}
		})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		a.stop(t)
		tap.Close()
		got := slices.Clone(a.order)
		want := []string{
			"role BACKUP", "before", "role MASTER", "advert4 v", "advert6 v", "arp v", "na v",
			"advert4 v", "advert6 v", // 4 s
			"advert4 v", "advert6 v", "arp v", "na v", // 5 s: the second following
			"role DRAIN", "goodbye4 nic", "goodbye6 nic", "role INIT",
		}
		if !slices.Equal(got, want) {
			t.Errorf("order of effects:\n got %q\nwant %q", got, want)
		}
	})
}

// kind names a frame and whose MAC it comes from.
func kind(b []byte) string {
	who := " nic"
	if vmac := carp.VirtualMAC(7); bytes.Equal(b[6:12], vmac[:]) {
		who = " v"
	}
	r, why := carp.ParseFrame(b)
	if why == carp.Accepted {
		name, family := "advert", "6"
		if r.Goodbye() {
			name = "goodbye"
		}
		if r.From.Is4() {
			family = "4"
		}
		return name + family + who
	}
	if b[12] == 0x08 && b[13] == 0x06 {
		return "arp" + who
	}
	return "na" + who
}

func TestABackupNeverSendsAnything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		a := start(t, s, 1, carp.Config{AdvBase: 1})
		b := start(t, s, 2, carp.Config{AdvBase: 1, AdvSkew: 100})
		b.Demote("test", 10)
		time.Sleep(20 * time.Second)
		b.Link(false)
		time.Sleep(time.Second)
		b.Link(true)
		time.Sleep(time.Second)
		b.stop(t)
		a.stop(t)
		if st := b.Status(); st.Sent != 0 || st.SendErrs != 0 {
			t.Errorf("the backup sent %d adverts and failed to send %d", st.Sent, st.SendErrs)
		}
		for _, f := range s.frames() {
			if r, why := carp.ParseFrame(f); why == carp.Accepted && r.From.Is4() && r.From.As4()[3] == 2 {
				t.Errorf("the backup sent %x", f)
			}
		}
	})
}

func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		a := start(t, s, 1, carp.Config{AdvBase: 1})
		b := start(t, s, 2, carp.Config{AdvBase: 1, AdvSkew: 100})
		time.Sleep(3500 * time.Millisecond) // adverts at 3 s and no more
		s.set(func() { s.lose = func(*port, []byte) bool { return true } })
		time.Sleep(3*time.Second + carp.Interval(0, 100) - 500*time.Millisecond - time.Nanosecond)
		wantState(t, b, carp.Backup)
		time.Sleep(time.Nanosecond)
		wantState(t, b, carp.Master)
		wantState(t, a, carp.Master) // it cannot know

		// When they hear each other again the slower one makes way.
		s.set(func() { s.lose = nil })
		time.Sleep(1500 * time.Millisecond)
		wantState(t, a, carp.Master)
		wantState(t, b, carp.Backup)
		last := b.transitions()[len(b.transitions())-2]
		if last.To != carp.Drain || last.Reason != "more frequent advertisement received" {
			t.Errorf("the slower master left by %v", last)
		}
		b.stop(t)
		a.stop(t)
	})
}

// TestNeverTwoActWhenAMasterCannotSend: the lease ends before the backup's
// patience, although the daemon of the master runs on.
func TestNeverTwoActWhenAMasterCannotSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		a := start(t, s, 1, carp.Config{AdvBase: 1})
		time.Sleep(3500 * time.Millisecond)
		b := start(t, s, 2, carp.Config{AdvBase: 1, AdvSkew: 0}) // the most impatient there is
		time.Sleep(2 * time.Second)
		wantState(t, a, carp.Master)
		s.set(func() { a.port.fail = errors.New("no buffer space available") })
		for range 6000 {
			time.Sleep(time.Millisecond)
			now := time.Now()
			if a.acts(now) && b.acts(now) {
				t.Fatalf("two act at once")
			}
		}
		wantState(t, b, carp.Master)
		if got := a.Status(); got.State == carp.Master || got.SendErrs < 3 {
			t.Errorf("the mute one: %+v", got)
		}
		s.set(func() { a.port.fail = nil })
		b.stop(t)
		a.stop(t)
	})
}

func TestGoodbyeHandsOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		a := start(t, s, 1, carp.Config{AdvBase: 1})
		b := start(t, s, 2, carp.Config{AdvBase: 1, AdvSkew: 100})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		before := time.Now()
		a.stop(t)
		if got := time.Since(before); got != 100*time.Millisecond {
			t.Errorf("Run took %v to end, want the 100ms of the drain", got)
		}
		wantState(t, b, carp.Master)
		tr := b.transitions()
		if last := tr[len(tr)-1]; !last.At.Equal(before) || last.Reason != "master said goodbye" {
			t.Errorf("takeover %v after the stop by %q", last.At.Sub(before), last.Reason)
		}
		if a.role.State != carp.Init {
			t.Errorf("role left behind: %v", a.role)
		}
		b.stop(t)
	})
}

func TestPreempt(t *testing.T) {
	for _, preempt := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := new(segment)
			b := start(t, s, 2, carp.Config{AdvBase: 1, AdvSkew: 100})
			time.Sleep(5 * time.Second)
			a := start(t, s, 1, carp.Config{AdvBase: 1, Preempt: preempt})
			time.Sleep(10 * time.Second)
			synctest.Wait()
			want := []carp.State{carp.Backup, carp.Master}
			if preempt {
				want = []carp.State{carp.Master, carp.Backup}
			}
			wantState(t, a, want[0])
			wantState(t, b, want[1])
			a.stop(t)
			b.stop(t)
		})
	}
}

func TestDemotionMovesTheRoleWithoutPreempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		a := start(t, s, 1, carp.Config{AdvBase: 1})
		b := start(t, s, 2, carp.Config{AdvBase: 1, AdvSkew: 100})
		time.Sleep(5 * time.Second)
		before := time.Now()
		a.Demote("track upstream", 240)
		synctest.Wait()
		if tr := b.transitions(); !tr[len(tr)-1].At.Equal(before) {
			t.Errorf("the backup did not take over at once: %v", tr)
		}
		time.Sleep(time.Second)
		wantState(t, a, carp.Backup)
		wantState(t, b, carp.Master)
		st := a.Status()
		if st.Demotion != 240 || st.DemotedBy["track upstream"] != 240 {
			t.Errorf("demotion: got %d by %v", st.Demotion, st.DemotedBy)
		}
		for _, tr := range a.transitions() {
			if want := map[bool]string{true: "track upstream 240"}[!tr.At.Before(before)]; tr.Demoted != want {
				t.Errorf("%v → %v: demoted by %q, want %q", tr.From, tr.To, tr.Demoted, want)
			}
		}
		a.stop(t)
		b.stop(t)
	})
}

// TestLostAdverts loses every second frame: still one master.
func TestLostAdverts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		n := 0
		s.lose = func(*port, []byte) bool { n++; return n%4 < 2 }
		a := start(t, s, 1, carp.Config{AdvBase: 1})
		b := start(t, s, 2, carp.Config{AdvBase: 1, AdvSkew: 100})
		time.Sleep(60 * time.Second)
		wantState(t, a, carp.Master)
		wantState(t, b, carp.Backup)
		if tr := b.transitions(); len(tr) != 1 {
			t.Errorf("the backup moved: %v", tr)
		}
		a.stop(t)
		b.stop(t)
	})
}

// TestFramesBeforeTheDeadlineCount: after a short stop of the process the
// deadline has passed and the master's advert lies in the socket. It counts.
func TestFramesBeforeTheDeadlineCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		a := start(t, s, 1, carp.Config{AdvBase: 1})
		late := start(t, s, 2, carp.Config{AdvBase: 1, AdvSkew: 100})
		late.stop(t) // only its port and its ways are wanted
		p := s.plug()
		r := newReader(p)
		go r.run()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		before := late.Status().Received
		late.catchUp(r)
		synctest.Wait()
		if got := late.Status().Received - before; got == 0 {
			t.Error("no advert was taken from the queue")
		}
		close(r.stop)
		p.Close()
		a.stop(t)
	})
}

func TestEqualsAgreeOnTheLowerAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		b := start(t, s, 2, carp.Config{AdvBase: 1})
		a := start(t, s, 1, carp.Config{AdvBase: 1})
		s.set(func() { s.lose = func(*port, []byte) bool { return true } })
		time.Sleep(5500 * time.Millisecond)
		wantState(t, a, carp.Master)
		wantState(t, b, carp.Master)
		s.set(func() { s.lose = nil })
		time.Sleep(2500 * time.Millisecond)
		wantState(t, a, carp.Master)
		wantState(t, b, carp.Backup)
		if len(a.transitions()) != 2 {
			t.Errorf("the lower address moved: %v", a.transitions())
		}
		a.stop(t)
		b.stop(t)
	})
}

func TestOwnEchoIsALoopAndNotAPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		a := start(t, s, 1, carp.Config{AdvBase: 1})
		s.set(func() { a.port.echo = true })
		time.Sleep(10500 * time.Millisecond)
		wantState(t, a, carp.Master)
		st := a.Status()
		if got, want := st.Drops["loop"], st.Sent; got != want || st.Received != 0 {
			t.Errorf("loops: got %d, want %d; received %d", got, want, st.Received)
		}
		a.stop(t)
	})
}

func TestAStrangerIsCountedAndNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		a := start(t, s, 1, carp.Config{AdvBase: 1})
		b := start(t, s, 2, carp.Config{AdvBase: 1, AdvSkew: 100}, func(c *Config) {
			c.Guard.Key = carp.NewKey("other", 7, nil, carp.OpenBSD)
		})
		time.Sleep(10 * time.Second)
		wantState(t, a, carp.Master)
		wantState(t, b, carp.Master)
		if d := b.Status().Drops; d["badauth"] == 0 || d["notcarp"] == 0 {
			t.Errorf("drops: %v", d)
		}
		a.stop(t)
		b.stop(t)
	})
}

func TestAdoptionGoesOnWithinTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		b := start(t, s, 2, carp.Config{AdvBase: 1, AdvSkew: 100})
		a := start(t, s, 1, carp.Config{AdvBase: 1}, func(c *Config) {
			c.Adopt = carp.Role{State: carp.Master, Until: time.Now().Add(time.Second)}
			c.Term = 41
		})
		synctest.Wait()
		if got := s.frames(); len(got) != 2 {
			t.Errorf("frames at once: got %d, want an advert in two families", len(got))
		}
		time.Sleep(10 * time.Second)
		wantState(t, a, carp.Master)
		if st := a.Status(); st.Term != 41 || len(a.transitions()) != 1 {
			t.Errorf("term %d, transitions %v", st.Term, a.transitions())
		}
		if a.order[0] != "before" {
			t.Errorf("first: %q", a.order[0])
		}
		if got := len(b.transitions()); got != 1 {
			t.Errorf("the backup moved %d times", got)
		}
		a.stop(t)
		b.stop(t)
	})
}

// TestTheNewerTermStays: after a split both are master; the one that took over
// has the table, however slow it is.
func TestTheNewerTermStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		a := start(t, s, 1, carp.Config{AdvBase: 1})
		b := start(t, s, 2, carp.Config{AdvBase: 1, AdvSkew: 100})
		time.Sleep(4500 * time.Millisecond)
		b.Peer("fw-a", carp.Said{State: a.Status().State, Term: a.Status().Term})
		s.set(func() { s.lose = func(*port, []byte) bool { return true } })
		time.Sleep(5 * time.Second)
		wantState(t, b, carp.Master)
		s.set(func() { s.lose = nil })
		for range 50 { // what the sync channel says meanwhile
			b.Peer("fw-a", carp.Said{State: a.Status().State, Term: a.Status().Term})
			a.Peer("fw-b", carp.Said{State: b.Status().State, Term: b.Status().Term})
			time.Sleep(100 * time.Millisecond)
		}
		wantState(t, b, carp.Master)
		wantState(t, a, carp.Backup)
		if at, bt := a.Status().Term, b.Status().Term; at != 2 || bt != 2 {
			t.Errorf("terms: got %d and %d, want 2", at, bt)
		}
		a.stop(t)
		b.stop(t)
	})
}

func TestARoleThatDidNotReachTheDataplaneIsNotClaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		a := start(t, s, 1, carp.Config{AdvBase: 1})
		synctest.Wait()
		a.mu.Lock()
		a.fail = errors.New("no such map")
		a.mu.Unlock()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := s.frames(); len(got) != 0 {
			t.Errorf("sent %d frames without a role", len(got))
		}
		a.mu.Lock()
		a.fail = nil
		a.mu.Unlock()
		a.stop(t)
	})
}

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		a := start(t, s, 1, carp.Config{AdvBase: 1, AdvSkew: 20})
		b := start(t, s, 2, carp.Config{AdvBase: 1, AdvSkew: 100})
		time.Sleep(3*time.Second + carp.Interval(0, 20) + 500*time.Millisecond)
		synctest.Wait()
		st := a.Status()
		if st.State != carp.Master || st.Lease != 2200*time.Millisecond || st.Sent != 2 {
			t.Errorf("master: %+v", st)
		}
		st = b.Status()
		if st.Interval != 1390625*time.Microsecond || st.MasterDown != 3390625*time.Microsecond || st.Lease != 0 {
			t.Errorf("timers: %+v", st)
		}
		if len(st.Masters) != 1 || st.Masters[0].AdvSkew != 20 {
			t.Errorf("masters: %+v", st.Masters)
		}
		a.stop(t)
		synctest.Wait()
		if m := b.Status().Masters; len(m) != 0 {
			t.Errorf("masters after the goodbye: %+v", m)
		}
		b.stop(t)
	})
}

// A sign of life comes from the election's own goroutine, once for each question.
func TestStampIsASignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stamps := 0
		a := start(t, new(segment), 1, carp.Config{AdvBase: 1}, func(c *Config) { c.OnStamp = func(time.Time) { stamps++ } })
		for want := 1; want <= 3; want++ {
			a.Stamp()
			synctest.Wait()
			if stamps != want {
				t.Errorf("%d signs of life, want %d", stamps, want)
			}
		}
		a.stop(t)
	})
}

// Two nodes without addresses of their own, started together, settle.
func TestEqualsWithoutAddressesSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		none := func(c *Config) {
			c.Addrs = []netip.Prefix{vip4}
			c.Source4 = func() netip.Addr { return netip.Addr{} }
		}
		a := start(t, s, 1, carp.Config{AdvBase: 1}, none)
		b := start(t, s, 2, carp.Config{AdvBase: 1}, none)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		// Which one is the order of two timers at the same instant.
		if a, b := a.state(), b.state(); a == b || a != carp.Master && b != carp.Master {
			t.Errorf("states %v and %v, want one MASTER and one BACKUP", a, b)
		}
		a.stop(t)
		b.stop(t)
	})
}

// A group that is replaced says nothing and leaves its role for the next one.
func TestAReplacedGroupLeavesItsRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		a := start(t, s, 1, carp.Config{AdvBase: 1})
		b := start(t, s, 2, carp.Config{AdvBase: 1, AdvSkew: 100})
		time.Sleep(5*time.Second + time.Second/2)
		wantState(t, a, carp.Master)
		frames, role := len(s.frames()), a.role
		a.end(ErrReplaced)
		if err := <-a.ended; err != nil {
			t.Error(err)
		}
		if got := len(s.frames()); got != frames {
			t.Errorf("%d frames more: it was to leave without a word", got-frames)
		}
		if a.role != role || role.State != carp.Master {
			t.Errorf("role %v, was %v", a.role, role)
		}
		next := start(t, s, 1, carp.Config{AdvBase: 1, AdvSkew: 50, Preempt: true}, func(c *Config) {
			c.Adopt, c.Term = role, a.Status().Term
			c.Machine.Counter = a.Counter() // or the backup takes it for a replay
		})
		wantState(t, next, carp.Master)
		time.Sleep(10 * time.Second)
		wantState(t, next, carp.Master)
		wantState(t, b, carp.Backup)
		if got := b.transitions(); len(got) != 1 {
			t.Errorf("the backup went through %v", got)
		}
		for _, n := range []*node{b, next} {
			n.stop(t)
		}
	})
}
