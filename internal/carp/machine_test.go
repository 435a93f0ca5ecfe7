package carp

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestConfigValidate(t *testing.T) {
	for _, tt := range []struct {
		c    Config
		want string
	}{
		{Config{VHID: 1}, ""},
		{Config{AdvBase: 1}, "vhid 0"},
		{Config{VHID: 1, AdvSkew: 255}, "advskew 255"},
	} {
		err := tt.c.Validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.c, err, tt.want)
		}
	}
}

// TestCountersNeverRepeatOrVanish goes over the end of the counter, too.
func TestCountersNeverRepeatOrVanish(t *testing.T) {
	m := NewMachine(Config{VHID: 1, AdvBase: 1, Counter: ^uint64(0) - 4})
	now := BootTime(time.Hour)
	m.Link(now, true)
	var last uint64
	for i := range 6 {
		now, _ = m.Deadline()
		e := m.Tick(now)
		if e.Advert == nil {
			t.Fatalf("advert %d is missing", i)
		}
		m.Sent(now, now, nil)
		if c := e.Advert.Counter; c == 0 || c+1 == 0 || c == last || c == last+1 {
			t.Errorf("advert %d: counters %d and %d after %d", i, c, c+1, last)
		}
		last = e.Advert.Counter
	}
}

// FuzzMachine throws facts at a Machine in any order and checks what must hold
// after each: what a network can see of it, and that it makes progress.
func FuzzMachine(f *testing.F) {
	f.Add([]byte{0, 0, 0, 5, 0, 255, 6, 0, 1, 1, 0, 10, 5, 0, 100, 6, 1, 0, 7, 0, 0})
	f.Add([]byte{0, 0, 0, 5, 0, 255, 9, 3, 0, 2, 250, 200, 5, 0, 20, 4, 0, 0, 5, 0, 255, 5, 0, 255})
	f.Add([]byte{8, 1, 1, 6, 0, 0, 5, 0, 90, 6, 1, 0, 5, 0, 90, 6, 1, 0, 5, 0, 90, 6, 1, 0})
	f.Add([]byte{0, 0, 0, 11, 1, 5, 2, 200, 1, 14, 0, 5, 18, 0, 0, 6, 0, 1, 15, 9, 3, 5, 0, 10, 5, 0, 10})
	f.Add([]byte{0, 0, 0, 5, 0, 255, 16, 1, 3, 15, 9, 3, 4, 1, 10, 2, 200, 10, 13, 0, 1, 17, 30, 1, 12, 200, 1})
	f.Fuzz(func(t *testing.T, facts []byte) {
		c := Config{VHID: 1, AdvBase: 1, AdvSkew: 50}
		if len(facts) > 1 {
			c.AdvBase, c.AdvSkew, c.Preempt = facts[0]%4, facts[1]%255, facts[0]&4 != 0
		}
		x := &checker{t: t, m: NewMachine(c), now: BootTime(time.Hour), lease: Lease(c.AdvBase, c.AdvSkew)}
		for ; len(facts) >= 3; facts = facts[3:] {
			x.now = x.now.Add(time.Duration(facts[2]) * 20 * time.Millisecond)
			x.fact(facts[0]%19, facts[1])
			for i := 0; ; i++ {
				if at, ok := x.m.Deadline(); !ok || x.now.Before(at) {
					break
				}
				if i == 4 {
					t.Fatalf("%v: no progress at its own deadline", x.m.State())
				}
				x.do(x.m.Tick)
			}
		}
	})
}

type checker struct {
	t       *testing.T
	m       *Machine
	now     time.Time
	lease   time.Duration
	proof   time.Time // the last instant that entitles to a lease
	counter uint64
	term    uint64
}

func (x *checker) fact(what, arg byte) {
	m := x.m
	h := Heard{From: netip.AddrFrom4([4]byte{10, 0, 0, arg}), Own: netip.AddrFrom4([4]byte{10, 0, 0, 100})}
	h.AdvBase, h.AdvSkew = 1, arg
	switch what {
	case 0, 1:
		x.do(func(now time.Time) Effects { return m.Link(now, what == 0) })
	case 2:
		x.do(func(now time.Time) Effects { return m.Receive(now, h) })
	case 3:
		h.AdvBase, h.AdvSkew = 255, 255
		x.do(func(now time.Time) Effects { return m.Receive(now, h) })
	case 4:
		h.Demotion = arg
		x.do(func(now time.Time) Effects { return m.Receive(now, h) })
	case 5:
		x.do(m.Tick)
	case 6:
		at := x.now
		var err error
		if arg&1 != 0 {
			err = errors.New("no")
		} else if m.State() == Master && x.now.Before(m.Lease()) {
			x.proof = at
		}
		x.do(func(now time.Time) Effects { return m.Sent(now, at, err) })
	case 7:
		x.do(m.Follow)
	case 8:
		if m.State() == Init && arg&1 != 0 {
			x.proof = x.now
		}
		x.do(func(now time.Time) Effects {
			return m.Adopt(now, Role{State(arg & 3), now.Add(time.Duration(arg) * time.Second)}, x.term+1)
		})
	case 9:
		x.do(func(now time.Time) Effects {
			return m.Peer(now, "fw-b", Said{State(arg & 3), uint64(arg >> 3), Ears(arg >> 2 & 1 * 2)})
		})
	case 10:
		if arg > 200 {
			x.do(m.Stop)
			return
		}
		x.do(func(now time.Time) Effects { return m.Demote(now, string('a'+rune(arg&3)), int(arg)-50) })
	case 11:
		m.Pulses(arg&1 != 0)
	case 12:
		x.do(func(now time.Time) Effects { return m.Silent(now, uint64(arg), "silent") })
	case 13:
		x.do(m.CutOff)
	case 14:
		x.do(func(now time.Time) Effects { return m.Claim(now, "hung") })
	case 15:
		x.do(func(now time.Time) Effects { return m.Claimed(now, uint64(arg)) })
	case 16:
		x.do(func(now time.Time) Effects { return m.Handover(now, arg&1 != 0) })
	case 17, 18:
		c, _ := m.Claiming()
		x.do(func(now time.Time) Effects {
			if what == 17 {
				return m.Refused(now, c.Term, uint64(arg))
			}
			return m.Acked(now, c.Term)
		})
	}
}

// do calls one verb and checks the Effects.
func (x *checker) do(verb func(time.Time) Effects) {
	t, m := x.t, x.m
	from, lapsed := m.State(), m.State() == Master && !x.now.Before(m.Lease())
	stopped := m.Stopped()
	e := verb(x.now)
	to := m.State()
	if (from != to) != (e.Reason != "") {
		t.Errorf("%v to %v: reason %q", from, to, e.Reason)
	}
	if lapsed && to == Master {
		t.Errorf("MASTER after the lease ran out")
	}
	if stopped && to != Init {
		t.Errorf("%v after a stop", to)
	}
	if from != to && from != Init && e.Role == nil && !e.Accept || e.Role != nil && e.Role.State != to {
		t.Errorf("%v to %v: role %+v", from, to, e.Role)
	}
	if to == Master && from != Master {
		if from == Init && e.Role != nil {
			t.Errorf("from INIT to MASTER without listening")
		}
		x.proof = x.now
		if m.Term() <= x.term && x.term != 0 {
			t.Errorf("term %d after %d", m.Term(), x.term)
		}
		x.term = m.Term()
	}
	if to == Master {
		if limit := x.proof.Add(x.lease); m.Lease().After(limit) {
			t.Errorf("lease until %v, proof only for %v", m.Lease(), limit)
		}
		if e.Role != nil && !e.Role.Until.Equal(m.Lease()) {
			t.Errorf("role until %v, lease until %v", e.Role.Until, m.Lease())
		}
	}
	if e.Announce && to != Master {
		t.Errorf("announcement as %v", to)
	}
	if e.Claim != nil && (to != Backup || e.Claim.Term <= x.term) {
		t.Errorf("claim of term %d as %v, after %d", e.Claim.Term, to, x.term)
	}
	if a := e.Advert; a != nil {
		if a.Goodbye() != (to == Drain) || to != Master && to != Drain {
			t.Errorf("advert %+v as %v", a, to)
		}
		if a.Counter <= x.counter {
			t.Errorf("counter %d after %d", a.Counter, x.counter)
		}
		x.counter = a.Counter + 1
	}
}

func BenchmarkReceive(b *testing.B) {
	m := NewMachine(Config{VHID: 1, AdvBase: 1, AdvSkew: 100})
	now := BootTime(time.Hour)
	m.Link(now, true)
	h := Heard{Advert: Advert{VHID: 1, AdvBase: 1}, From: netip.MustParseAddr("10.0.0.1"), Own: netip.MustParseAddr("10.0.0.2")}
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		if e := m.Receive(now, h); e.Role != nil {
			b.Fatal("took over from a living master")
		}
	}
}
