package loader

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// pair is a guard with the programs that filter for it, and a node that sends to
// both.
type pair struct {
	*rig
	us, them *carp.Guard
	ours     uint64
	theirs   uint64
	counter  uint64
}

const (
	oursNode   = 0x8000_0000_0000_1234
	theirsNode = 0x8000_0000_0000_4321
)

func newPair(tb testing.TB, auth carp.Auth, secrets ...[32]byte) *pair {
	tb.Helper()
	p := &pair{rig: newRig(tb), ours: oursNode, theirs: theirsNode, counter: 1 << 50}
	guard := func(node uint64) (carp.GuardConfig, *carp.Guard) {
		c := carp.GuardConfig{VHID: testVHID, Key: testKey(), Auth: auth, Send: true, Node: node, Epoch: 5, Forget: time.Hour}
		for _, s := range secrets {
			c.Keys = append(c.Keys, carp.NewTrailerKey(s, "lan", testVHID))
		}
		return c, carp.NewGuard(c)
	}
	c, us := guard(oursNode)
	p.us = us
	_, p.them = guard(theirsNode)
	s := Shield{Digests: c.Key.DigestStates(), Enforce: auth == carp.Enforce}
	for _, k := range c.Keys {
		s.Trailers = append(s.Trailers, TrailerKey{ID: k.ID(), TrailerState: k.State()})
	}
	p.setShield(tb, s)
	p.mark(tb, oursNode, p.us.Self(), true)
	return p
}

func (p *pair) mark(tb testing.TB, node uint64, m carp.Mark, own bool) {
	tb.Helper()
	if err := p.port.Mark(testVHID, node, m, own); err != nil {
		tb.Fatal(err)
	}
}

// advert is the next one of a guard's node.
func (p *pair) advert(g *carp.Guard, node uint64) []byte {
	p.counter += carp.FamilyStep
	a := carp.Advert{VHID: testVHID, AdvBase: 1, AdvSkew: 100, Counter: p.counter&^(carp.FamilyStep-1) | node&(carp.FamilyStep-1)}
	return g.Sign(nil, &a, 3)
}

// judge gives a payload to the guard, and what it believes to the programs.
func (p *pair) judge(tb testing.TB, payload []byte) carp.Verdict {
	tb.Helper()
	r, why := carp.ParseFrame(framed4(payload))
	if why != carp.Accepted {
		return carp.Verdict{Why: why}
	}
	v := p.us.Judge(carp.BootTime(bootNow()), &r)
	if v.Why == carp.Accepted && v.Node != 0 {
		p.mark(tb, v.Node, p.us.Mark(v.Node), false)
	}
	return v
}

func (p *pair) check(t *testing.T, name string, payload []byte, want fate) {
	t.Helper()
	for _, prog := range shieldPrograms {
		p.refill(t)
		t.Run(name+" "+prog.name, func(t *testing.T) {
			p.rig.check(t, prog.name, nil, always(name, framed4(payload), want), carp.Backup, prog.verdicts)
		})
	}
}

func TestTrailersInTheProgram(t *testing.T) {
	for _, auth := range []carp.Auth{carp.Compat, carp.Enforce} {
		t.Run(auth.String(), func(t *testing.T) {
			p := newPair(t, auth, [32]byte{1}, [32]byte{2})
			captured := p.advert(p.them, theirsNode)
			p.check(t, "genuine", captured, pass("advert", testVHID))
			if v := p.judge(t, captured); v.Why != carp.Accepted {
				t.Fatalf("the guard says %v of a genuine advert", v.Why)
			}
			p.check(t, "replayed", captured, drop("replay", testVHID))
			stripped := captured[:carp.AdvertLen]
			p.check(t, "stripped", stripped, drop("replay", testVHID))
			relabeled := summed(edit(captured, 2, 0))
			p.check(t, "relabelled", relabeled, drop("replay", testVHID))
			p.check(t, "relabelled and stripped", relabeled[:carp.AdvertLen], drop("replay", testVHID))

			next := p.advert(p.them, theirsNode)
			p.check(t, "the next", next, pass("advert", testVHID))
			// Not heard before, so its digest is all that speaks for it.
			plain := map[carp.Auth]fate{carp.Compat: pass("advert", testVHID), carp.Enforce: drop("badtrailer", testVHID)}[auth]
			foreign := summed(carp.NewGuard(carp.GuardConfig{VHID: testVHID, Key: testKey()}).Sign(nil,
				&carp.Advert{VHID: testVHID, AdvBase: 1, Counter: 77}, 0))
			p.check(t, "a plain peer's", foreign, plain)
			p.check(t, "a plain peer's with an unknown version of the trailer", append(bytes.Clone(foreign), edit(next[36:], 2, 9)...), plain)
			p.check(t, "a plain peer's with an unknown key id", append(bytes.Clone(foreign), edit(next[36:], 3, next[39]^0x55)...), plain)
			p.check(t, "a plain peer's with a trailer of somebody else", append(bytes.Clone(foreign), next[36:]...), plain)

			// A trailer counts even where the lists of addresses differ.
			fewer := carp.GuardConfig{VHID: testVHID, Key: carp.NewKey(testPassword, testVHID, nil, carp.OpenBSD), Send: true,
				Node: theirsNode, Epoch: 5, Keys: []*carp.TrailerKey{carp.NewTrailerKey([32]byte{2}, "lan", testVHID)}}
			p.check(t, "another list of addresses, and the second key", p.advert(carp.NewGuard(fewer), theirsNode), pass("advert", testVHID))
			other := fewer
			other.Keys = []*carp.TrailerKey{carp.NewTrailerKey([32]byte{3}, "lan", testVHID)}
			p.check(t, "neither digest nor key", p.advert(carp.NewGuard(other), theirsNode), drop("badauth", testVHID))
			other.Keys = []*carp.TrailerKey{carp.NewTrailerKey([32]byte{2}, "wan", testVHID)}
			p.check(t, "signed for another group, and another digest", p.advert(carp.NewGuard(other), theirsNode), drop("badauth", testVHID))
			for at := range carp.TrailerLen - 2 {
				bad := bytes.Clone(p.advert(carp.NewGuard(fewer), theirsNode))
				bad[carp.AdvertLen+at] ^= 0x40
				p.check(t, fmt.Sprintf("byte %d of the trailer changed, and another digest", at), bad, drop("badauth", testVHID))
			}

			// Our own.
			own := p.advert(p.us, oursNode)
			p.mark(t, oursNode, p.us.Self(), true)
			p.check(t, "our own", own, drop("loop", testVHID))
			life := carp.GuardConfig{VHID: testVHID, Key: testKey(), Send: true, Node: oursNode, Epoch: 9,
				Keys: []*carp.TrailerKey{carp.NewTrailerKey([32]byte{1}, "lan", testVHID)}}
			p.check(t, "our own of a later life", p.advert(carp.NewGuard(life), oursNode), pass("advert", testVHID))
		})
	}
}

// A node that has lost its storage sends an epoch that is over, or, if that is where
// it was before its last start, the same epoch once more. One a second of these
// passes, so that it can be told; of the last advert none does.
func TestWhatIsOverPassesNowAndThen(t *testing.T) {
	for _, tt := range []struct {
		name string
		seen carp.Mark
		min  int
	}{
		{"an epoch before", carp.Mark{Epoch: 6, Counter: 1}, 1},
		{"the same epoch", carp.Mark{Epoch: 5, Counter: 1 << 60}, 1},
		{"the last one", carp.Mark{Epoch: 5}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, carp.Enforce, [32]byte{1})
			b := p.advert(p.them, theirsNode)
			if tt.seen.Counter == 0 {
				tt.seen = p.them.Self()
			}
			p.mark(t, theirsNode, tt.seen, false)
			in, passed, begun := framed4(b), 0, time.Now()
			for range 100 {
				if v, _ := p.run(t, xdpProgCarpXdp, nil, in); v == 2 {
					passed++
				}
			}
			if most := tt.min * (1 + int(time.Since(begun)/time.Second)); passed < tt.min || passed > most {
				t.Errorf("%d of 100 passed, want %d to %d", passed, tt.min, most)
			}
		})
	}
}

// More nodes than there is room for: the ones heard last are remembered, and we.
func TestMarksOfManyNodes(t *testing.T) {
	p := newPair(t, carp.Enforce, [32]byte{1})
	for n := range uint64(40) {
		p.mark(t, n+1, carp.Mark{Epoch: 1, Counter: 1}, false)
	}
	var v xdpKnown
	if err := p.port.maps.byName[xdpMapKnowns].Lookup(uint32(testVHID), &v); err != nil {
		t.Fatal(err)
	}
	want := map[uint64]bool{oursNode: true, 40: true, 39: true, 38: true, 37: true, 36: true, 35: true, 34: true}
	for _, m := range v.Node[:v.Nodes] {
		if !want[m.Node] {
			t.Errorf("node %d is there", m.Node)
		}
		delete(want, m.Node)
	}
	if len(want) > 0 {
		t.Errorf("not there: %v", want)
	}
}

// contradicts says what is wrong with the programs' verdict, given the guard's:
// they may let pass what it refuses, never refuse what it believes, and they must
// refuse what is certainly false.
func contradicts(guard carp.Drop, enforce, passed bool) string {
	switch {
	case guard == carp.Accepted && !passed:
		return "refuses what the guard believes"
	case !passed:
		return ""
	case guard == carp.DropAuth, guard == carp.DropLength:
		return "lets pass what is certainly false"
	case guard == carp.DropTrailer && enforce:
		return "lets pass what has no trailer"
	}
	return ""
}

// TestProgramsAndGuardAgree mutates genuine adverts and compares the verdicts.
func TestProgramsAndGuardAgree(t *testing.T) {
	for _, auth := range []carp.Auth{carp.Compat, carp.Enforce} {
		t.Run(auth.String(), func(t *testing.T) {
			p := newPair(t, auth, [32]byte{1}, [32]byte{2})
			seed := rand.Uint64()
			rng := rand.New(rand.NewPCG(seed, 0))
			t.Logf("seed %d", seed)
			other := carp.NewGuard(carp.GuardConfig{VHID: testVHID, Send: true, Node: theirsNode, Epoch: 5,
				Key:  carp.NewKey("other", testVHID, []netip.Addr{shared4}, carp.OpenBSD),
				Keys: []*carp.TrailerKey{carp.NewTrailerKey([32]byte{2}, "lan", testVHID)}})
			heard := [][]byte{p.advert(p.them, theirsNode)}
			seen := map[carp.Drop]int{}
			n := 4000
			if os.Getenv("XCARP_TEST_GUEST") == "1" {
				n = 500 // under emulation
			}
			for i := range n {
				var b []byte
				switch rng.IntN(6) {
				case 0:
					b = p.advert(p.them, theirsNode)
				case 1:
					b = p.advert(other, theirsNode)
				case 2:
					b = p.advert(p.us, oursNode)
					p.mark(t, oursNode, p.us.Self(), true)
				default:
					b = bytes.Clone(heard[rng.IntN(len(heard))])
				}
				for range rng.IntN(3) {
					b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
				}
				if rng.IntN(4) == 0 {
					b = b[:36+rng.IntN(len(b)-35)]
				}
				b[0], b[1], b[3] = 0x21, testVHID, 7 // else it is not ours
				if rng.IntN(8) > 0 {
					b = summed(b)
				}
				p.refill(t)
				verdict, _ := p.run(t, xdpProgCarpXdp, nil, framed4(b))
				v := p.judge(t, b)
				seen[v.Why]++
				if text := contradicts(v.Why, auth == carp.Enforce, verdict == 2); text != "" {
					t.Fatalf("advert %d, %x: the program (verdict %d) %s (%v)", i, b, verdict, text, v.Why)
				}
				if v.Why == carp.Accepted {
					heard = append(heard, b)
				}
			}
			t.Logf("the guard said: %v", seen)
			for _, why := range []carp.Drop{carp.Accepted, carp.DropAuth, carp.DropReplay, carp.DropLoop, carp.DropSum} {
				if seen[why] == 0 {
					t.Errorf("none of the adverts was %v: the test shows less than it should", why)
				}
			}
		})
	}
}
