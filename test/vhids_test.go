package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// in counts the groups in a state.
func (n *node) in(state string) int {
	s := n.status()
	if s == nil {
		return 0
	}
	k := 0
	for _, g := range s.Groups {
		if g.State == state {
			k++
		}
	}
	return k
}

// TestAllVHIDsOfACarpdev: 255 vhids on one carpdev, dual-stack, on two nodes. The
// figures are printed; the limits are far away from them.
func TestAllVHIDsOfACarpdev(t *testing.T) {
	t.Parallel()
	const all = 255
	p := newPair(t)
	for i, n := range []*node{p.a, p.b} {
		n.ns.Addr("lan0", fmt.Sprintf("10.1.1.%d/16", i+1))
		n.ns.Addr("lan0", fmt.Sprintf("fd00:2::1:%d/64", i+1))
		var b strings.Builder
		fmt.Fprintf(&b, "node: %s\nkey_file: xcarp.key\npreempt: true\nadvskew: {fw-a: 0, fw-b: 100}\ngroups:\n", n.name)
		for v := 1; v <= all; v++ {
			fmt.Fprintf(&b, "  g%d: {vhid: %d, carpdev: lan0, addresses: [10.1.0.%d/16, \"fd00:2::2:%x/64\"], pass: carpdiem}\n", v, v, v, v)
		}
		n.conf = n.write("xcarp.yaml", b.String())
	}
	begin := time.Now()
	p.a.start()
	nstest.Eventually(t, 60*time.Second, "a answers", func() bool { return p.a.status() != nil })
	up := time.Since(begin)
	nstest.Eventually(t, 60*time.Second, "a is master of all", func() bool { return p.a.in("MASTER") == all })
	master := time.Since(begin)
	p.b.start()
	nstest.Eventually(t, 60*time.Second, "b is backup of all", func() bool { return p.b.in("BACKUP") == all })
	heard := func(least uint64) (missing []string) {
		s := p.b.status()
		if s == nil {
			return []string{"no answer"}
		}
		for _, g := range s.Groups {
			if g.Received < least || g.State != "BACKUP" {
				missing = append(missing, fmt.Sprintf("%s is %s, received %d, drops %v, adverts past the shield %d", g.Name, g.State, g.Received, g.Drops, g.Packets["advert"]))
			}
		}
		return missing
	}
	for end := time.Now().Add(30 * time.Second); len(heard(4)) > 0; {
		if time.Now().After(end) {
			t.Fatalf("b has not heard all vhids: %d missing, such as %s", len(heard(4)), heard(4)[0])
		}
		<-time.After(100 * time.Millisecond)
	}

	const idle = 10 * time.Second
	a, b := p.a.cpu(), p.b.cpu()
	<-time.After(idle) // not to wait for something, but to measure the time itself
	a, b = p.a.cpu()-a, p.b.cpu()-b
	begin = time.Now()
	s := p.b.status()
	show := time.Since(begin)
	lost := uint64(0)
	for _, g := range s.Groups {
		lost += g.Drops["overrun"]
	}
	t.Logf("%d vhids: answers after %v, master of all after %v; in %v idle the master used %v, the backup %v; show takes %v; %d frames lost",
		all, up.Round(time.Millisecond), master.Round(time.Millisecond), idle, a, b, show.Round(time.Millisecond), lost)
	if lost > 0 || p.a.in("MASTER") != all || p.b.in("BACKUP") != all {
		t.Errorf("lost %d frames, %d masters at a, %d backups at b", lost, p.a.in("MASTER"), p.b.in("BACKUP"))
	}
	if limit := idle / 2; a > limit || b > limit {
		t.Errorf("idle nodes use half a processor and more: %v and %v in %v", a, b, idle)
	}

	p.a.kill(unix.SIGTERM)
	nstest.Eventually(t, 30*time.Second, "b is master of all", func() bool { return p.b.in("MASTER") == all })
}
