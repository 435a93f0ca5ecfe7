package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A starter is one of two equal members that are started together.
type starter struct {
	start, stop func()
	state       func() string // the word of carp(4), or "" while there is none
}

// xcarpStarter is our daemon, which has forgotten everything at each start.
func xcarpStarter(n *node) starter {
	return starter{
		start: n.start,
		stop: func() {
			n.kill(unix.SIGTERM)
			os.RemoveAll(filepath.Join(n.dir, "state"))
		},
		state: func() string { return n.group("lan").State },
	}
}

// ucarpStarter is a ucarp on the node's place, with the node's address.
func ucarpStarter(tb testing.TB, n *node, src string) starter {
	var p *process
	return starter{
		start: func() { p = ucarp(tb, n.ns, src, 1, 0, "--preempt") },
		stop:  func() { p.kill() },
		state: func() string {
			out := p.log.String()
			const word = "Switching to state: "
			i := strings.LastIndex(out, word)
			if i < 0 {
				return ""
			}
			s, _, _ := strings.Cut(out[i+len(word):], "\n")
			return strings.TrimSpace(s)
		},
	}
}

// oneMaster waits until one of the two is MASTER and the other BACKUP, and that
// has been so for as long as the slower of them waits for a master. It fails the
// test if that takes longer than the limit.
func oneMaster(tb testing.TB, a, b starter, limit time.Duration) {
	tb.Helper()
	const still = 3500 * time.Millisecond
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	var was string
	var saw []string
	begin := time.Now()
	since := begin
	for now := range poll.C {
		is := a.state() + " " + b.state()
		if is != was {
			was, since = is, now
			saw = append(saw, fmt.Sprintf("%.2f s: %s", now.Sub(begin).Seconds(), is))
		}
		if (is == "MASTER BACKUP" || is == "BACKUP MASTER") && now.Sub(since) >= still {
			return
		}
		if now.Sub(begin) > limit {
			tb.Fatalf("no single master for %v within %v: %q", still, limit, saw)
		}
	}
}

// TestEqualNodesStartTogether: twenty real starts of each kind end with one master,
// every time.
func TestEqualNodesStartTogether(t *testing.T) {
	t.Parallel()
	const rounds = 10 // of each of two pairs
	key := func(n *node, yes bool) string {
		if !yes {
			return ""
		}
		return "key_file: " + filepath.Join(n.dir, "xcarp.key") + "\n"
	}
	config := func(n *node, trailer bool) {
		n.conf = n.write("xcarp.yaml", fmt.Sprintf(`node: %s
%spreempt: true
groups:
  lan: {vhid: %d, carpdev: lan0, addresses: [10.0.0.1/24], pass: carpdiem}
`, n.name, key(n, trailer), lanVHID))
	}
	withoutAddress := func(n *node) {
		n.ns.Exec("ip", "-4", "addr", "flush", "dev", "lan0")
		n.ns.Exec("ip", "route", "add", "10.0.0.0/24", "dev", "lan0")
	}
	for _, tt := range []struct {
		name string
		make func(t *testing.T, p *pair, trailer bool) (a, b starter)
	}{
		{"both xcarp", func(_ *testing.T, p *pair, trailer bool) (a, b starter) {
			return xcarpStarter(p.a), xcarpStarter(p.b)
		}},
		{"without own addresses", func(_ *testing.T, p *pair, trailer bool) (a, b starter) {
			withoutAddress(p.a)
			withoutAddress(p.b)
			return xcarpStarter(p.a), xcarpStarter(p.b)
		}},
		{"beside ucarp", func(t *testing.T, p *pair, trailer bool) (a, b starter) {
			if trailer { // once with the lower, once with the higher address
				return xcarpStarter(p.a), ucarpStarter(t, p.b, "10.0.0.3")
			}
			return ucarpStarter(t, p.a, "10.0.0.2"), xcarpStarter(p.b)
		}},
	} {
		for _, trailer := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, trailer %v", tt.name, trailer), func(t *testing.T) {
				t.Parallel()
				p := newPair(t)
				config(p.a, trailer)
				config(p.b, trailer)
				a, b := tt.make(t, p, trailer)
				for range rounds {
					a.start()
					b.start()
					oneMaster(t, a, b, 60*time.Second)
					var both sync.WaitGroup
					for _, s := range []starter{a, b} {
						both.Go(s.stop)
					}
					both.Wait()
				}
			})
		}
	}
}
