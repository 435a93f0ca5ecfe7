package group

import (
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// witness is a peer's Guard, which has seen node 1<<1 come far in epoch 9.
type witness struct {
	*carp.Guard
	conn net.PacketConn
	from netip.Addr
}

const witnessed = 9

func epochGuard() carp.GuardConfig {
	return carp.GuardConfig{
		Auth: carp.Enforce, Send: true, Epoch: 1, Keys: []*carp.TrailerKey{carp.NewTrailerKey([32]byte{1}, "lan", 7)},
		Key: carp.NewKey("secret", 7, []netip.Addr{vip4.Addr(), vip6.Addr()}, carp.OpenBSD),
	}
}

func newWitness(s *segment) *witness {
	c := epochGuard()
	c.VHID, c.Node, c.Forget = 7, 4, 10*time.Second
	c.Seen = map[uint64]carp.Mark{1 << 1: {Epoch: witnessed, Counter: 1 << 60}}
	return &witness{Guard: carp.NewGuard(c), conn: s.plug(), from: netip.AddrFrom4([4]byte{192, 0, 2, 4})}
}

// say sends a payload to the segment.
func (w *witness) say(tb testing.TB, payload []byte) {
	tb.Helper()
	if _, err := w.conn.WriteTo(carp.AppendFrame(nil, carp.MAC{2, 0, 0, 0, 0, 4}, w.from, payload), nil); err != nil {
		tb.Fatal(err)
	}
	synctest.Wait()
}

// hear judges what the segment carried since and returns what it says to the node.
func (w *witness) hear(s *segment) (seen []byte) {
	for _, f := range s.frames() {
		if r, why := carp.ParseFrame(f); why == carp.Accepted {
			if v := w.Judge(time.Now(), &r); v.Seen != nil {
				seen = v.Seen
			}
		}
	}
	return seen
}

// TestAReminderIsNoVRRP says twice how far a node had come: the second time it
// knows, and it is still no packet of another version.
func TestAReminderIsNoVRRP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		w := newWitness(s)
		a := start(t, s, 1, carp.Config{AdvBase: 1}, func(c *Config) { c.Guard = epochGuard() })
		time.Sleep(3500 * time.Millisecond)
		seen := w.hear(s)
		if seen == nil {
			t.Fatal("nobody tells the node")
		}
		for range 2 {
			w.say(t, seen)
		}
		if d := a.Status().Drops; d["badver"] != 0 {
			t.Errorf("drops: %v", d)
		}
		if self, _ := a.Marks(); self.Epoch != witnessed+1 {
			t.Errorf("epoch %d, want %d", self.Epoch, witnessed+1)
		}
		a.stop(t)
	})
}

// TestANewEpochWaitsUntilItIsStored tells a node that it was set back, by a
// reminder and by an advert of its own life before. It goes on as it was until the
// epoch is stored.
func TestANewEpochWaitsUntilItIsStored(t *testing.T) {
	before := func() []byte { // of the same node
		c := epochGuard()
		c.VHID, c.Node, c.Epoch = 7, 1<<1, witnessed
		return carp.NewGuard(c).Sign(nil, &carp.Advert{VHID: 7, AdvBase: 1, Counter: 1<<60 | 1<<1}, 1)
	}
	for name, tell := range map[string]func(w *witness, s *segment) []byte{
		"by a reminder": (*witness).hear,
		"by a twin":     func(*witness, *segment) []byte { return before() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(segment)
				w := newWitness(s)
				asked := []uint64{}
				a := start(t, s, 1, carp.Config{AdvBase: 1}, func(c *Config) {
					c.Guard = epochGuard()
					c.OnEpoch = func(epoch uint64) { asked = append(asked, epoch) }
				})
				time.Sleep(3500 * time.Millisecond)
				told := tell(w, s)
				for range 3 {
					w.say(t, told)
				}
				if len(asked) != 1 || asked[0] != witnessed+1 {
					t.Fatalf("asked for %v, want once for %d", asked, witnessed+1)
				}
				time.Sleep(2 * time.Second)
				if self, _ := a.Marks(); self.Epoch != 1 {
					t.Errorf("epoch %d is in use and not stored", self.Epoch)
				}
				a.Begin(asked[0])
				time.Sleep(time.Second)
				if w.hear(s); w.Mark(1<<1).Epoch != witnessed+1 {
					t.Errorf("the peer believes epoch %d, want %d", w.Mark(1<<1).Epoch, witnessed+1)
				}
				a.stop(t)
			})
		})
	}
}
