package test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/daemon"
	"github.com/xcarp/xcarp/internal/lab"
	"github.com/xcarp/xcarp/internal/nstest"
)

// device is the host's interface.
func (h host) device(tb testing.TB) (dev *net.Interface) {
	tb.Helper()
	h.Must(func() (err error) {
		dev, err = net.InterfaceByName("eth0")
		return err
	})
	return dev
}

// shieldCounts are the adverts of the LAN group that a node has dealt with.
func shieldCounts(n *node) (g daemon.GroupStatus, warnings int) {
	for line := range strings.Lines(n.log.String()) {
		var e struct{ Level string }
		if json.Unmarshal([]byte(line), &e) == nil && e.Level != "info" && e.Level != "debug" {
			warnings++
		}
	}
	return n.group("lan"), warnings
}

// TestFloodIsRefusedBeforeTheDaemon is the short version of `xcarp-lab bench
// shield`: so many frames of each kind, and what became of them by the counters.
func TestFloodIsRefusedBeforeTheDaemon(t *testing.T) {
	const flood = 20000
	p := newPair(t)
	p.up()
	dev := p.client.device(t)
	mac := carp.MAC(dev.HardwareAddr)
	frame, err := lab.Capture(t.Context(), p.client.Do, dev.Index, lanVHID)
	if err != nil {
		t.Fatal(err)
	}
	moves := map[*node]int{p.a: len(p.a.log.transitions("lan")), p.b: len(p.b.log.transitions("lan"))}
	for _, c := range []struct {
		attack lab.Attack
		why    map[*node]string // the reason on each node
	}{
		{lab.Forged, map[*node]string{p.a: "badauth", p.b: "badauth"}},
		{lab.Replayed, map[*node]string{p.a: "loop", p.b: "replay"}},
		{lab.Relabelled, map[*node]string{p.a: "replay", p.b: "replay"}},
	} {
		frames, err := c.attack.Frames(frame, mac)
		if err != nil {
			t.Fatal(err)
		}
		before := map[*node]daemon.GroupStatus{}
		for _, n := range []*node{p.a, p.b} {
			before[n], _ = shieldCounts(n)
		}
		if sent, err := lab.Flood(t.Context(), p.client.Do, dev.Index, frames, flood); err != nil || sent != flood {
			t.Fatalf("sent %d of %d: %v", sent, flood, err)
		}
		for n, why := range c.why {
			nstest.Eventually(t, 10*time.Second, fmt.Sprintf("most %s adverts refused by %s as %s", c.attack, n.name, why), func() bool {
				g, _ := shieldCounts(n)
				return g.Packets[why]-before[n].Packets[why] >= flood*9/10 // a veth's queue may lose some
			})
			g, _ := shieldCounts(n)
			// What the daemon itself had to look at and refuse.
			var inXDP, all uint64
			for _, r := range []string{"badauth", "badtrailer", "replay", "loop", "ratelimit"} {
				inXDP += g.Packets[r] - before[n].Packets[r]
				all += g.Drops[r] - before[n].Drops[r]
			}
			if woken := all - inXDP; woken > 100 {
				t.Errorf("%s adverts: the daemon of %s was woken by %d of %d", c.attack, n.name, woken, flood)
			}
		}
	}
	for n, had := range moves {
		if got := n.log.transitions("lan"); len(got) != had {
			t.Errorf("%s moved in the flood: %v", n.name, got)
		}
		g, warnings := shieldCounts(n)
		if warnings > 10 {
			t.Errorf("%s wrote %d warnings", n.name, warnings)
		}
		if g.Hint == "" {
			t.Errorf("%s has no hint", n.name)
		}
		if g.Shield != "verify" {
			t.Errorf("the shield of %s is %q, want verify", n.name, g.Shield)
		}
	}
	// The backup went on hearing its master.
	heard := p.b.group("lan").Received
	nstest.Eventually(t, 10*time.Second, "two more adverts accepted", func() bool { return p.b.group("lan").Received >= heard+2 })

	// And a master that dies while the flood goes on is missed.
	frames, err := lab.Forged.Frames(frame, mac)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := lab.Flood(ctx, p.client.Do, dev.Index, frames, 0)
		done <- err
	}()
	p.a.kill(unix.SIGKILL)
	p.b.waitState(3*4400*time.Millisecond, "MASTER", "lan") // 3.39 s and an interval promised
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestHintOfAnAddressMore: the lists of addresses differ by one, and show says by
// which.
func TestHintOfAnAddressMore(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.reconfigure(func(c string) string { return strings.Replace(c, "10.0.0.1/24,", "10.0.0.1/24, 10.0.0.7/24,", 1) })
	p.a.start()
	p.a.waitState(15*time.Second, "MASTER", "lan")
	p.b.start()
	nstest.Eventually(t, 20*time.Second, "a hint on fw-b", func() bool {
		// Of the IPv4 advert or of the IPv6 one: the kernel samples one a second.
		return strings.Contains(p.b.group("lan").Hint, " has 10.0.0.7 as well")
	})
	// The trailer is right, so there is one master all the same.
	if g := p.b.group("lan"); g.State != "BACKUP" || g.Received == 0 {
		t.Errorf("fw-b is %s and accepted %d adverts, want BACKUP and some", g.State, g.Received)
	}
	out, err := p.b.xcarp("show", "lan")
	if err != nil || !strings.Contains(out, "hint") {
		t.Errorf("show has no hint: %v\n%s", err, out)
	}
}

// TestHintOfVRRP: a VRRP router with the number of our vhid.
func TestHintOfVRRP(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.b.start()
	p.b.waitState(15*time.Second, "MASTER", "lan")
	vrrp := []byte{0x31, lanVHID, 100, 1, 0, 100, 0, 0, 10, 0, 0, 9}
	dev := p.client.device(t)
	frame := carp.AppendFrame(nil, carp.MAC(dev.HardwareAddr), netip.MustParseAddr("10.0.0.99"), vrrp)
	if _, err := lab.Flood(t.Context(), p.client.Do, dev.Index, [][]byte{frame}, 1); err != nil {
		t.Fatal(err)
	}
	nstest.Eventually(t, 10*time.Second, "a hint", func() bool {
		return strings.Contains(p.b.group("lan").Hint, fmt.Sprintf("VRRPv3 with the same id %d: 10.0.0.99", lanVHID))
	})
}
