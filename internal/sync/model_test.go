package sync

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/ct"
)

// TestRandomFaults runs seeded histories of traffic, faults and role changes;
// after each, with one owner and a whole link, the backup must hold exactly the
// owner's table within 5 s, and nothing that the owner had before may have been
// taken from it by the peer.
func TestRandomFaults(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, n *network) {
				r := rand.New(rand.NewPCG(seed, 0))
				n.rand = rand.New(rand.NewPCG(seed, 1))
				a, b := pair(t, n)
				defer func() { a.stop(); b.stop() }()
				for range 60 {
					randomStep(t, r, n, &a, &b)
					time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
				}
				n.set(func(n *network) { n.loss, n.double, n.reorder, n.cut = 0, 0, 0, false })
				if r.IntN(2) == 0 {
					a, b = b, a
				}
				a.m.Own(true)
				b.m.Own(false)
				end := time.Now().Add(5 * time.Second)
				for !(equal(a, b) && a.status().InSync && b.status().InSync) {
					if time.Now().After(end) {
						t.Fatalf("not within 5 s: equal tables\n%s\n%+v\n%+v", difference(a, b), a.status(), b.status())
					}
					time.Sleep(5 * time.Millisecond)
				}
				if a.demotion() != 0 || b.demotion() != 0 {
					t.Errorf("demotions: got %d and %d, want 0", a.demotion(), b.demotion())
				}
				survivors := len(a.table.all())
				time.Sleep(3 * time.Second)
				if got := len(a.table.all()); got != survivors || !equal(a, b) {
					t.Errorf("3 s later: the owner has %d flows, want %d; equal: %v", got, survivors, equal(a, b))
				}
			})
		})
	}
}

// randomStep does one thing to the pair.
func randomStep(t *testing.T, r *rand.Rand, n *network, a, b **node) {
	x, y := *a, *b
	if r.IntN(2) == 0 {
		x, y = y, x
	}
	owns := func(x *node) bool { x.m.mu.Lock(); defer x.m.mu.Unlock(); return x.m.own }
	switch k := r.IntN(20); {
	case k < 10:
		if !owns(x) {
			x = y
		}
		if !owns(x) {
			return // nobody takes traffic
		}
		for range r.IntN(200) {
			i := r.IntN(500)
			if r.IntN(3) == 0 {
				x.table.end(tcp(i, 0).Orig)
			} else {
				f := tcp(i, ct.TCPState(2+r.IntN(7)))
				f.Timeout = 432000 * time.Second
				x.table.traffic(f)
			}
		}
	case k < 12:
		n.set(func(n *network) { n.loss, n.reorder, n.double = r.Float64()*0.5, r.Float64()*0.2, r.Float64()*0.2 })
	case k < 13:
		n.set(func(n *network) { n.loss, n.reorder, n.double = 0, 0, 0 })
	case k < 15:
		n.set(func(n *network) { n.cut = !n.cut })
	case k < 16: // handover
		x.m.Own(true)
		y.m.Own(false)
	case k < 17: // split
		x.m.Own(true)
	case k < 18:
		x.table.flush()
	case k < 19:
		x.m.Resync("test")
	default: // crash, and a table of a former life
		x.stop()
		name := "a"
		if x == *b {
			name = "b"
		}
		z := start(t, n, name, x.table)
		x.table.Listen(false)
		if x == *b {
			*b = z
		} else {
			*a = z
		}
		if r.IntN(2) == 0 {
			y.m.Own(true)
		}
	}
}

// difference describes where two tables differ.
func difference(a, b *node) string {
	x, y := a.table.states(), b.table.states()
	missing, other, more := 0, 0, 0
	for k, f := range x {
		if g, ok := y[k]; !ok {
			missing++
		} else if f != g {
			other++
		}
		delete(y, k)
	}
	more = len(y)
	return fmt.Sprintf("of %d flows %d are missing, %d differ, %d are too many", len(x), missing, other, more)
}
