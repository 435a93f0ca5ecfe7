package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// TestManyCarpdevs: a node with 24 carpdevs, the same vhid on each, one bundle. A
// link of one of them that goes moves all; so does the end of the daemon.
func TestManyCarpdevs(t *testing.T) {
	t.Parallel()
	const all = 24
	p := newPair(t)
	for i, n := range []*node{p.a, p.b} {
		var groups strings.Builder
		var names []string
		for d := 1; d <= all; d++ {
			dev := fmt.Sprintf("eth%d", d)
			if i == 0 {
				p.sw.Bridge(fmt.Sprintf("br%d", d))
			}
			p.sw.Plug(fmt.Sprintf("br%d", d), n.ns, dev)
			n.ns.Addr(dev, fmt.Sprintf("10.2.%d.%d/24", d, i+2))
			fmt.Fprintf(&groups, "  g%d: {vhid: 7, carpdev: %s, addresses: [10.2.%d.1/24]}\n", d, dev, d)
			names = append(names, fmt.Sprintf("g%d", d))
		}
		n.conf = n.write("xcarp.yaml", fmt.Sprintf("node: %s\nkey_file: xcarp.key\npreempt: true\nadvskew: {fw-a: 0, fw-b: 100}\nbundle: [%s]\ngroups:\n%s",
			n.name, strings.Join(names, ", "), groups.String()))
	}
	begin := time.Now()
	p.a.start()
	nstest.Eventually(t, 60*time.Second, "a is master of all", func() bool { return p.a.in("MASTER") == all })
	t.Logf("%d carpdevs: master of all after %v", all, time.Since(begin).Round(time.Millisecond))
	p.b.start()
	nstest.Eventually(t, 60*time.Second, "b is backup of all", func() bool { return p.b.in("BACKUP") == all })

	p.a.ns.Exec("ip", "link", "set", "eth13", "down")
	nstest.Eventually(t, 60*time.Second, "b is master of all", func() bool { return p.b.in("MASTER") == all })
	if n := p.a.in("MASTER"); n > 0 {
		t.Errorf("a is still master of %d", n)
	}
	p.a.ns.Exec("ip", "link", "set", "eth13", "up")
	nstest.Eventually(t, 60*time.Second, "a is master of all again", func() bool { return p.a.in("MASTER") == all })
	p.a.kill(unix.SIGTERM)
	nstest.Eventually(t, 30*time.Second, "b is master of all", func() bool { return p.b.in("MASTER") == all })
}
