package test

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// What SIGHUP refused, or could not apply to a running daemon, is said by show and
// by the metrics until it is put right.
func TestAStaleConfigurationIsSaid(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	n := p.a
	n.start()
	n.waitState(15*time.Second, "MASTER", "lan", "wan")
	say := func(stale bool, metric string, show ...string) {
		t.Helper()
		n.signal(unix.SIGHUP)
		nstest.Eventually(t, 10*time.Second, "config_stale "+metric, func() bool { return n.status().Stale == stale })
		if want := "\nxcarp_config_stale " + metric + "\n"; !strings.Contains(n.metrics(), want) {
			t.Errorf("the metrics lack %q", want)
		}
		out := n.line(t, "show")
		for _, w := range show {
			if !strings.Contains(out, w) {
				t.Errorf("show lacks %q:\n%s", w, out)
			}
		}
		if !stale && strings.Contains(out, "STALE") {
			t.Errorf("show:\n%s", out)
		}
	}
	n.refused(t, "ifconfig pfsync0 down", "state sync is set up in "+n.conf, "restart the daemon")
	var right string
	n.reconfigure(func(s string) string { right = s; return s + "bogus: 1\n" })
	say(true, "1", "config STALE", "refused", `unknown key "bogus"`)
	n.reconfigure(func(string) string { return right })
	say(false, "0")
	n.reconfigure(func(string) string { return right + "metrics: {listen: 127.0.0.1:9112}\n" })
	say(true, "1", "config STALE", "differs in more than groups: xcarp restart applies it")
	n.reconfigure(func(string) string { return strings.Replace(right, "preempt: true", "preempt: false", 1) })
	say(false, "0")
	if n.group("lan").Preempt {
		t.Error("a change of the groups was not applied")
	}
}
