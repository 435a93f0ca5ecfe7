package test

import (
	"strings"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/nstest"
)

// The switch of the LAN keeps the two nodes from hearing each other there, while
// both hear the client: by the sync link the master lives, so it stays, and an
// operator is told.
func TestMasterThatIsSilentOnTheCarpdevAloneStays(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.calm()
	term, moved := p.a.group("lan").Term, p.b.transitions()
	isolate := func(how string) {
		for _, port := range []string{p.a.lanPort, p.b.lanPort} {
			p.sw.Exec("bridge", "link", "set", "dev", port, "isolated", how)
		}
	}
	isolate("on")
	nstest.Eventually(t, 15*time.Second, "the backup says that the LAN is split", func() bool { return p.b.group("lan").Split })
	nstest.Eventually(t, 5*time.Second, "its log says so", func() bool { return strings.Contains(p.b.log.String(), "it stays (split: hold)") })
	ends := time.Now().Add(4 * time.Second) // more than a master-down time
	nstest.Eventually(t, 10*time.Second, "a master-down time more", func() bool {
		if b := p.b.group("lan"); b.State != "BACKUP" || !b.Split {
			t.Fatalf("the backup is %s (%s), split %v", b.State, b.Reason, b.Split)
		}
		return time.Now().After(ends)
	})
	isolate("off")
	nstest.Eventually(t, 10*time.Second, "the split is over", func() bool { return !p.b.group("lan").Split })
	for _, group := range []string{"lan", "wan"} {
		if g := p.a.group(group); g.State != "MASTER" || g.Term != term {
			t.Errorf("%s is %s with term %d (%s), want MASTER with term %d", group, g.State, g.Term, g.Reason, term)
		}
	}
	if got := p.b.transitions() - moved; got != 0 {
		t.Errorf("%d changes of state on the backup", got)
	}
}

// A master that hears nobody, not even the client that it asks, is replaced by a
// node that does: both know by the sync link who is cut off.
func TestMasterThatIsCutOffIsReplaced(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.calm()
	p.client.Exec("ping", "-c", "1", "-W", "5", "10.0.0.1") // so that the master knows somebody to ask
	p.sw.Exec("bridge", "link", "set", "dev", p.a.lanPort, "state", "0")
	p.b.waitState(15*time.Second, "MASTER", "lan", "wan")
	p.a.waitState(5*time.Second, "BACKUP", "lan", "wan")
	if g := p.b.group("lan"); !strings.Contains(g.Reason, "cut off") {
		t.Errorf("the reason is %q", g.Reason)
	}
}
