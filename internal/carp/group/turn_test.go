package group

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// TestTogetherStoresFirst is a bundle that moves by one decision: every dataplane has
// its role before the first frame leaves, and who waits for logs waits elsewhere.
func TestTogetherStoresFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &segment{}
		a := start(t, s, 1, carp.Config{VHID: 7, AdvBase: 1})
		b := start(t, s, 1, carp.Config{VHID: 8, AdvBase: 1})
		synctest.Wait()
		frames, early := 0, 0
		s.set(func() {
			s.lose = func(*port, []byte) bool {
				frames++
				if !a.acts(time.Now()) || !b.acts(time.Now()) {
					early++
				}
				return true
			}
		})
		told := len(a.transitions())
		silent := func(m *carp.Machine, now time.Time) carp.Effects { return m.Silent(now, 0, "silent") }
		Together([]Move{{Group: a.Group, Verb: silent}, {Group: b.Group, Verb: silent}})
		if early != 0 || frames == 0 || a.state() != carp.Master || b.state() != carp.Master {
			t.Fatalf("%d of %d frames left before both were MASTER: %v, %v", early, frames, a.state(), b.state())
		}
		synctest.Wait()
		for _, n := range []*node{a, b} {
			if all := n.transitions(); len(all) != told+1 || all[told].Reason != "silent" || all[told].Steps.Announced < 0 {
				t.Errorf("told of %+v", all)
			}
		}
		a.stop(t)
		b.stop(t)
	})
}

// TestClaimsAreTold is a node that preempts by a claim, and the node that it claims
// from.
func TestClaimsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &segment{}
		var mu sync.Mutex
		var claims []carp.Claim
		none := 0
		told := func() ([]carp.Claim, int) {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(claims), none
		}
		slow := start(t, s, 1, carp.Config{AdvBase: 1, AdvSkew: 100})
		time.Sleep(4 * time.Second)
		fast := start(t, s, 2, carp.Config{AdvBase: 1, Preempt: true}, func(c *Config) {
			c.OnClaim = func(c carp.Claim, claiming bool) {
				mu.Lock()
				defer mu.Unlock()
				if claiming {
					claims = append(claims, c)
				} else {
					none++
				}
			}
		})
		Together([]Move{{Group: fast.Group, Verb: func(m *carp.Machine, _ time.Time) carp.Effects { m.Pulses(true); return carp.Effects{} }}})
		all, _ := told()
		for len(all) == 0 {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			all, _ = told()
		}
		if fast.state() != carp.Backup || slow.state() != carp.Master {
			t.Fatalf("while it claims: %v and %v", fast.state(), slow.state())
		}
		term := all[0].Term
		Together([]Move{{Group: slow.Group, Verb: func(m *carp.Machine, now time.Time) carp.Effects { return m.Claimed(now, term) }}})
		Together([]Move{{Group: fast.Group, Verb: func(m *carp.Machine, now time.Time) carp.Effects { return m.Acked(now, term) }}})
		all, ended := told()
		if fast.state() != carp.Master || slow.state() != carp.Drain || ended != 1 || len(all) != 1 {
			t.Fatalf("after that: %v and %v, claims %v, ended %d", fast.state(), slow.state(), all, ended)
		}
		slow.mu.Lock()
		last := slices.Clone(slow.order[len(slow.order)-1:])
		slow.mu.Unlock()
		if !slices.Equal(last, []string{"accept"}) {
			t.Errorf("the claimed dataplane was told %v", last)
		}
		slow.stop(t)
		fast.stop(t)
	})
}
