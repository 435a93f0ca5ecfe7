package loader

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// passing is the verdict by which a program lets a frame go on.
var passing = map[string]int32{
	xdpProgCarpXdp: 2, xdpProgCarpXdpFrags: 2, xdpProgCarpXdpLight: 2, xdpProgCarpXdpLightFrags: 2,
	ingressProgCarpIngress: -1, ingressProgCarpIngressLight: -1,
}

var lightPrograms = []string{xdpProgCarpXdpLight, ingressProgCarpIngressLight}

// floodCase is what an attacker who has listened can send without a key, as the peer.
type floodCase struct {
	name   string
	frames [][]byte
	light  bool // what a program without cryptography can tell from the peer's own
}

// vrrp is a VRRP packet with the number of the vhid, as if it came from the peer.
func vrrp(version byte) []byte {
	b := edit(advertHeader(testVHID), 3, 1) // one address
	return framed4(edit(b, 0, version<<4|1))
}

// floods makes all of them from adverts that were captured.
func floods(tb testing.TB, captured [][]byte, reminders ...[]byte) []floodCase {
	tb.Helper()
	rng := rand.New(rand.NewPCG(3, 4))
	last := captured[len(captured)-1]
	var forged, replayed, relabelled, stripped, strangers [][]byte
	for range 64 {
		b := edit(last, 2, byte(rng.Uint32()))
		for i := 8; i < carp.AdvertLen; i++ {
			b[i] = byte(rng.Uint32())
		}
		forged = append(forged, framed4(summed(b)))
		from := netip.AddrFrom4([4]byte{10, 0, 1, byte(rng.Uint32())})
		strangers = append(strangers, ethernet(carp4MAC, otherMAC, 0x0800, ipv4(from, carp4, 112, 255, summed(b))))
	}
	for _, c := range captured {
		replayed = append(replayed, framed4(c))
		for skew := range 8 {
			b := summed(edit(edit(c, 2, byte(skew)), 5, 0))
			relabelled = append(relabelled, framed4(b))
			stripped = append(stripped, framed4(b[:carp.AdvertLen]))
		}
	}
	all := []floodCase{
		{"forged", forged, false},
		{"forged by strangers", strangers, true},
		{"replayed", replayed, true},
		{"relabelled", relabelled, true},
		{"relabelled and stripped", stripped, true},
		{"VRRPv2", [][]byte{vrrp(2)}, true},
		{"VRRPv3", [][]byte{vrrp(3)}, true},
		{"another type", [][]byte{framed4(edit(last, 0, 0x22))}, true},
	}
	for _, r := range reminders {
		bad := append([]byte(nil), r...)
		bad[50] ^= 1
		all = append(all, floodCase{"reminders", [][]byte{framed4(r), framed4(bad)}, true})
	}
	return all
}

// reminder is what a member tells us that has seen us in an epoch.
func (p *pair) reminder(tb testing.TB, secret [32]byte, epoch uint64) []byte {
	tb.Helper()
	g := carp.NewGuard(carp.GuardConfig{VHID: testVHID, Key: testKey(), Node: theirsNode,
		Keys: []*carp.TrailerKey{carp.NewTrailerKey(secret, "lan", testVHID)},
		Seen: map[uint64]carp.Mark{oursNode: {Epoch: epoch, Counter: 1 << 60}}})
	r, why := carp.ParseFrame(framed4(p.advert(p.us, oursNode)))
	if why != carp.Accepted {
		tb.Fatal(why)
	}
	v := g.Judge(carp.BootTime(bootNow()), &r)
	if v.Seen == nil {
		tb.Fatalf("nobody reminds us: %+v", v)
	}
	return v.Seen
}

// Whatever is sent as the peer, and however often: the peer's next advert passes,
// and what wakes the daemon is bounded.
func TestNoFloodIsAtTheCostOfThePeer(t *testing.T) {
	const rounds, each = 50, 40 // fewer rounds than adverts may come at once
	for _, peer := range []struct {
		name string
		auth carp.Auth
		keys bool
	}{{"plain", carp.Compat, false}, {"signed, compat", carp.Compat, true}, {"signed, enforce", carp.Enforce, true}} {
		t.Run(peer.name, func(t *testing.T) {
			var secrets [][32]byte
			if peer.keys {
				secrets = append(secrets, [32]byte{1})
			}
			p := newPair(t, peer.auth, secrets...)
			if err := p.port.Peer(testVHID, own4); err != nil {
				t.Fatal(err)
			}
			plain := uint64(1 << 40)
			next := func() []byte {
				if peer.keys {
					return p.advert(p.them, theirsNode)
				}
				plain++
				return signed(t, testKey(), plain)
			}
			programs := append(slices.Clone(lightPrograms), xdpProgCarpXdp, xdpProgCarpXdpFrags, ingressProgCarpIngress)
			for _, prog := range programs {
				light := slices.Contains(lightPrograms, prog)
				t.Run(prog, func(t *testing.T) {
					p.refill(t)
					var captured [][]byte
					for range 4 {
						captured = append(captured, next())
						if v, _ := p.run(t, prog, nil, framed4(captured[len(captured)-1])); v != passing[prog] {
							t.Fatal("a genuine advert was refused before the flood")
						}
					}
					var reminders [][]byte
					if peer.keys {
						reminders = append(reminders, p.reminder(t, secrets[0], 6))
					}
					for _, f := range floods(t, captured, reminders...) {
						if light && !f.light {
							continue
						}
						t.Run(f.name, func(t *testing.T) {
							p.refill(t)
							for _, c := range captured {
								p.run(t, prog, nil, framed4(c)) // heard when it was sent
							}
							passed, begun, n := 0, time.Now(), 0
							for i := range rounds {
								for range each {
									if v, _ := p.run(t, prog, nil, f.frames[n%len(f.frames)]); v == passing[prog] {
										passed++
									}
									n++
								}
								if v, _ := p.run(t, prog, nil, framed4(next())); v != passing[prog] {
									t.Fatalf("genuine advert %d was refused in the flood", i+1)
								}
							}
							// Two buckets at most are drawn from, same and altered; and
							// what was heard with a trailer is new without.
							if most := len(captured) + 2*(atOnce+2+int(time.Since(begun)/slowest)); passed > most {
								t.Errorf("%d of %d frames passed, at most %d may", passed, n, most)
							}
						})
					}
				})
			}
		})
	}
}

// OpenBSD's counter stands still, so all its adverts are one. Copies with other
// values in them are not at its cost.
func TestACounterThatStandsStillIsHeardBesideCopies(t *testing.T) {
	p := newPair(t, carp.Compat)
	genuine := signed(t, testKey(), 77)
	altered := framed4(summed(edit(genuine, 2, 0)))
	for _, prog := range []string{xdpProgCarpXdp, ingressProgCarpIngress, xdpProgCarpXdpLight, ingressProgCarpIngressLight} {
		t.Run(prog, func(t *testing.T) {
			p.refill(t)
			for i := range 50 {
				if v, _ := p.run(t, prog, nil, framed4(genuine)); v != passing[prog] {
					t.Fatalf("genuine advert %d was refused", i+1)
				}
				for range 40 {
					p.run(t, prog, nil, altered)
				}
			}
			if n := p.rig.counter(t, testVHID, "replay"); n == 0 {
				t.Error("no copy counts as a replay")
			}
		})
	}
}

// A node that lost its storage is told so, whoever else talks: reminders with a
// wrong MAC end in the program, and those with no news for us.
func TestReminderPassesBesideForgedOnes(t *testing.T) {
	secret := [32]byte{1}
	p := newPair(t, carp.Enforce, secret)
	news := p.reminder(t, secret, 6)
	old := p.reminder(t, secret, 5)
	binary.BigEndian.PutUint64(old[24:], 1) // its MAC is wrong now
	for _, prog := range shieldPrograms {
		t.Run(prog.name, func(t *testing.T) {
			p.refill(t)
			count := p.rig.counter(t, 0, "badauth")
			for i := range 60 {
				for at := range 16 {
					bad := append([]byte(nil), news...)
					bad[44+at] ^= 1 << (i % 8)
					if v, _ := p.run(t, prog.name, nil, framed4(bad)); v == passing[prog.name] {
						t.Fatalf("with byte %d of the MAC changed it passes", at)
					}
				}
				p.run(t, prog.name, nil, vrrp(3))
				p.run(t, prog.name, nil, framed4(old))
				if v, _ := p.run(t, prog.name, nil, framed4(news)); v != passing[prog.name] {
					t.Fatalf("genuine reminder %d was refused", i+1)
				}
			}
			if n := p.rig.counter(t, 0, "badauth") - count; n < 60*16 {
				t.Errorf("%d forged reminders counted as badauth, want %d", n, 60*16)
			}
			if p.rig.counter(t, 0, "reminder") == 0 {
				t.Error("no reminder was counted")
			}
		})
	}
	p.mark(t, oursNode, carp.Mark{Epoch: 7, Counter: 1}, true)
	for _, prog := range shieldPrograms {
		p.rig.check(t, prog.name, nil, always("one that we know", framed4(news), drop("replay", 0)), carp.Backup, prog.verdicts)
	}
}
