package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// TestKeysAreRotated replaces the key on one node after the other, both of which
// believe nothing that it does not sign. Nobody notices; and what still has the
// old key when it is retired is heard no longer.
func TestKeysAreRotated(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, n := range []*node{p.a, p.b} {
		n.reconfigure(func(s string) string { return s + "auth: enforce\n" })
	}
	p.up()
	term := p.a.group("lan").Term
	keyFile := func(n *node) string { return filepath.Join(n.dir, "xcarp.key") }
	run := func(n *node, arg ...string) string {
		t.Helper()
		var out string
		err := n.ns.Do(func() (err error) {
			out, err = n.xcarp(append([]string{"key", "--config", n.conf}, arg...)...)
			return err
		})
		if err != nil {
			t.Fatalf("xcarp key %s on %s: %v", strings.Join(arg, " "), n.name, err)
		}
		return out
	}
	ids := func(n *node) (ids []string) {
		for _, line := range strings.Split(strings.TrimSpace(run(n)), "\n") {
			ids = append(ids, strings.Fields(line)[0])
		}
		return ids
	}
	// believed waits until the backup has believed three more adverts of the
	// master: so it does with whatever key that has now.
	believed := func(what string) {
		t.Helper()
		before := p.b.group("lan").Received
		nstest.Eventually(t, 15*time.Second, "adverts "+what, func() bool { return p.b.group("lan").Received >= before+3 })
	}

	run(p.a, "add")
	believed("with the new key accepted on a")
	early := ids(p.a)[1]
	p.a.refused(t, "key use "+early, p.b.name+" does not have key "+early, "--force")
	b, err := os.ReadFile(keyFile(p.a))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyFile(p.b), b, 0o600); err != nil {
		t.Fatal(err)
	}
	run(p.b, "reload")
	old, next := ids(p.a)[0], ids(p.a)[1]
	run(p.a, "use", next)
	p.a.refused(t, "key retire "+old, p.b.name+" still signs with key "+old, "--force")
	believed("signed with the new key, which b accepts")
	run(p.b, "use", next)
	run(p.a, "retire", old)
	believed("with the old key retired on a")
	run(p.b, "retire", old)
	believed("with the old key retired everywhere")
	for _, n := range []*node{p.a, p.b} {
		if got := ids(n); len(got) != 1 || got[0] != next {
			t.Errorf("%s has keys %v, want %s", n.name, got, next)
		}
		g := n.group("lan")
		if g.Term != term || g.Drops["badtrailer"]+g.Drops["badauth"]+g.Drops["replay"] != 0 {
			t.Errorf("%s: term %d after %d, drops %v", n.name, g.Term, term, g.Drops)
		}
	}

	// Only now the sync link needs the new key: a restarted node still gets in.
	p.b.kill(unix.SIGTERM)
	p.b.start()
	p.b.waitInSync(15 * time.Second)
}
