package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/nstest"
)

// filter drops at the switch what comes from a node's ports, by the rules of an
// nftables chain. Frames of the other direction and of other protocols pass.
func (p *pair) filter(rule string, ports ...string) {
	p.tb.Helper()
	var b strings.Builder
	b.WriteString("table netdev fault {\n")
	for _, port := range ports {
		fmt.Fprintf(&b, "chain %s { type filter hook ingress device %s priority 0; %s; }\n", port, port, rule)
	}
	b.WriteString("}\n")
	p.sw.Exec("nft", b.String())
}

func (p *pair) unfilter() {
	p.tb.Helper()
	p.sw.Exec("nft", "delete", "table", "netdev", "fault")
}

// Adverts of both families, and all that goes to many.
const (
	onlyCARP      = "ip protocol 112 counter drop; ip6 nexthdr 112 counter drop"
	onlyMulticast = "ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 ether daddr != ff:ff:ff:ff:ff:ff counter drop"
)

// settled waits until the groups are where they were at first.
func (p *pair) settled(limit time.Duration) {
	p.tb.Helper()
	p.a.waitState(limit, "MASTER", "lan", "wan")
	p.b.waitState(limit, "BACKUP", "lan", "wan")
}

// masters returns which nodes are MASTER of the group.
func (p *pair) masters(group string) (names []string) {
	for _, n := range []*node{p.a, p.b} {
		if n.group(group).State == "MASTER" {
			names = append(names, n.name)
		}
	}
	return names
}

// However the network falls apart, it comes together with one master; and as long
// as the nodes can talk on any way there is one all the time.
func TestFault55_Partitions(t *testing.T) {
	const slot = 50 * time.Millisecond
	for _, tt := range []struct {
		name string
		hold bool // nobody moves
		cut  func(p *pair)
		heal func(p *pair)
	}{
		{"full", false, func(p *pair) { p.cut(p.a) }, func(p *pair) { p.heal(p.a) }},
		{"sync only", true,
			func(p *pair) { p.sw.Exec("bridge", "link", "set", "dev", p.a.syncPort, "state", "0") },
			func(p *pair) { p.sw.Exec("bridge", "link", "set", "dev", p.a.syncPort, "state", "3") }},
		{"CARP only", true,
			func(p *pair) { p.filter(onlyCARP, p.a.lanPort, p.b.lanPort, p.a.wanPort, p.b.wanPort) }, (*pair).unfilter},
		{"CARP only, split: takeover", false,
			func(p *pair) { p.filter(onlyCARP, p.a.lanPort, p.b.lanPort, p.a.wanPort, p.b.wanPort) }, (*pair).unfilter},
		{"CARP only, one way", true,
			func(p *pair) { p.filter(onlyCARP, p.a.lanPort, p.a.wanPort) }, (*pair).unfilter},
		{"no multicast", true,
			func(p *pair) { p.filter(onlyMulticast, p.a.lanPort, p.b.lanPort, p.a.wanPort, p.b.wanPort) }, (*pair).unfilter},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			if strings.HasSuffix(tt.name, "takeover") {
				for _, n := range []*node{p.a, p.b} {
					n.reconfigure(func(s string) string { return s + "split: takeover\n" })
				}
			}
			p.calm()
			w := newWatch(t, p.a, p.b)
			q := p.questions(t, slot/5)
			tt.cut(p)
			if tt.hold {
				wait(t, 8*time.Second) // more than two master-down times
				w.unmoved(12)
				if tt.name == "sync only" {
					nstest.Eventually(t, 10*time.Second, "sync down", func() bool { return !p.a.status().Sync[0].Up })
				}
			} else {
				p.b.waitState(12*time.Second, "MASTER", "lan", "wan")
			}
			q.forget()
			tt.heal(p)
			p.settled(40 * time.Second)
			for _, n := range []*node{p.a, p.b} {
				n.waitInSync(30 * time.Second)
			}
			both := q.both(slot)
			for _, g := range []string{"lan", "wan"} {
				if m := p.masters(g); len(m) != 1 {
					t.Errorf("masters of %s after the heal: %v, want one", g, m)
				}
			}
			// What each asked of the switches before it heard of the other.
			if limit := time.Second; both > limit {
				t.Errorf("both answered for %v after the heal, want at most %v", both, limit)
			}
			figure(t, "changes of state", "fw-a %d, fw-b %d", p.a.transitions()-w.states[p.a], p.b.transitions()-w.states[p.b])
			figure(t, "both answered after the heal", "%v", both)
		})
	}
}

// forget drops the answers so far.
func (q *questions) forget() {
	for _, tap := range q.taps {
		tap.forget()
	}
}

// What goes through two groups goes through one node.
func TestFault57_BundleMovesTogether(t *testing.T) {
	for _, tt := range []struct {
		name    string
		preempt string // of the groups, after the global one
	}{
		{"both preempt", ""},
		{"the WAN alone preempts", "wan"},
		{"the LAN alone preempts", "lan"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			for _, n := range []*node{p.a, p.b} {
				n.reconfigure(func(s string) string {
					if tt.preempt == "" {
						return s
					}
					s = strings.Replace(s, "preempt: true\n", "", 1)
					return strings.Replace(s, "  "+tt.preempt+": {", "  "+tt.preempt+": {preempt: true, ", 1)
				})
			}
			// The node that is to be master has to be first, where not all preempt.
			p.a.start()
			p.a.waitState(15*time.Second, "MASTER", "lan", "wan")
			p.b.start()
			p.b.waitState(15*time.Second, "BACKUP", "lan", "wan")
			p.a.waitInSync(15 * time.Second)
			p.b.waitInSync(15 * time.Second)
			w := newWatch(t, p.a, p.b)

			p.sw.Exec("ip", "link", "set", p.a.wanPort, "down") // no carrier
			cut := time.Now()
			p.b.waitState(10*time.Second, "MASTER", "lan", "wan")
			p.a.waitState(5*time.Second, "BACKUP", "lan")
			p.a.waitState(5*time.Second, "INIT", "wan")
			figure(t, "both groups moved", "%v after the carrier fell", time.Since(cut).Round(10*time.Millisecond))

			p.sw.Exec("ip", "link", "set", p.a.wanPort, "up")
			back := time.Now()
			// Wherever they end up, it is one place.
			one := func() bool {
				lan, wan := p.masters("lan"), p.masters("wan")
				return len(lan) == 1 && len(wan) == 1 && lan[0] == wan[0]
			}
			mover := "wan"
			if tt.preempt != "" {
				mover = tt.preempt
			}
			p.a.waitState(20*time.Second, "MASTER", mover)
			nstest.Eventually(t, 20*time.Second, "one master of both groups", one)
			figure(t, "after the link is back", "%v has both, after %v", p.masters("lan"), time.Since(back).Round(10*time.Millisecond))
			wait(t, 4*time.Second)
			if !one() {
				t.Errorf("masters of lan %v, of wan %v: not one place", p.masters("lan"), p.masters("wan"))
			}
			figure(t, "changes of state", "fw-a %d, fw-b %d", p.a.transitions()-w.states[p.a], p.b.transitions()-w.states[p.b])
		})
	}
}
