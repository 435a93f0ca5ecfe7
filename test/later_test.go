package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/nstest"
)

// A group that comes while the node runs is tracked, demoted, shielded and told of
// like those of the file, and leaves nothing behind when it goes.
func TestAGroupThatComesLaterIsLikeTheOthers(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	n := p.a
	heard, gate := filepath.Join(n.dir, "heard"), filepath.Join(n.dir, "gate")
	hook := n.write("hook", "#!/bin/sh\necho \"$XCARP_GROUP $XCARP_FROM $XCARP_TO\" >>"+heard+"\n")
	if err := os.Chmod(hook, 0o700); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(n.dir, "xcarp.key"))
	n.conf = n.write("xcarp.yaml", "track: {gate: {file: "+gate+", content: absent, demote: 30, every: 100ms}}\n"+
		"hooks: {note: {command: ["+hook+"], user: root, on: [INIT, BACKUP, MASTER, DRAIN]}}\n")
	n.start()
	nstest.Eventually(t, 15*time.Second, "the daemon answers", func() bool { return n.status() != nil })
	demotions := func(group string, want map[string]int) {
		t.Helper()
		nstest.Eventually(t, 10*time.Second, "demotions of "+group, func() bool {
			got := n.group(group).Demotions
			for owner, by := range want {
				if got[owner] != by {
					return false
				}
			}
			return true
		})
	}

	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.xcarp("demote", "--by", "7"); err != nil {
		t.Fatal(err)
	}
	nstest.Eventually(t, 10*time.Second, "the track is DOWN", func() bool { return n.track("gate").State == "DOWN" })
	n.line(t, "ifconfig carp1 vhid 1 pass password carpdev lan0 10.0.0.1/24")
	demotions("carp1", map[string]int{"track gate": 30, "operator 1": 7})
	n.waitState(15*time.Second, "MASTER", "carp1")
	if g := n.group("carp1"); g.Shield != "verify" || !g.Ready {
		t.Errorf("shield %q, ready %v, waits for %v", g.Shield, g.Ready, g.Waits)
	}
	if got := strings.Join(n.track("gate").Groups, " "); got != "carp1" {
		t.Errorf("the track demotes %q", got)
	}

	// Another setting keeps role and demotions; what ends, ends for it, too.
	term := n.group("carp1").Term
	n.line(t, "ifconfig carp1 advskew 3")
	demotions("carp1", map[string]int{"track gate": 30, "operator 1": 7})
	if _, err := n.xcarp("demote", "carp1", "--by", "9"); err != nil {
		t.Fatal(err)
	}
	demotions("carp1", map[string]int{"operator 2": 9})
	n.line(t, "sysctl net.inet.carp.senderr_demotion_factor=0")
	if _, err := n.xcarp("undemote", "1"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	demotions("carp1", map[string]int{"track gate": 0, "operator 1": 0, "operator 2": 9})
	if g := n.group("carp1"); g.Term != term || g.State != "MASTER" || !g.Ready {
		t.Errorf("%s in term %d, ready %v: want MASTER in term %d", g.State, g.Term, g.Ready, term)
	}
	if got := n.line(t, "sysctl -n net.inet.carp.senderr_demotion_factor"); got != "0\n" {
		t.Errorf("senderr_demotion_factor is %q", got)
	}

	// It goes, and the vhid comes back with nothing of the old one.
	n.line(t, "ifconfig carp1 destroy")
	if s := n.status(); len(s.Demotions) != 0 || len(s.Carpdevs) != 0 {
		t.Errorf("left behind: %+v, %+v", s.Demotions, s.Carpdevs)
	}
	n.line(t, "ifconfig carp1 vhid 1 pass other carpdev lan0 10.0.0.1/24 carppeer 10.0.0.3")
	n.waitState(15*time.Second, "MASTER", "carp1")
	if g := n.group("carp1"); g.Demotion != 0 || g.Shield != "verify" {
		t.Errorf("%+v", g)
	}
	const want = "INIT BACKUP, BACKUP MASTER, MASTER DRAIN, DRAIN INIT, INIT BACKUP, BACKUP MASTER"
	nstest.Eventually(t, 10*time.Second, "the hook heard all", func() bool { return len(told(t, heard, "carp1")) > strings.Count(want, ",") })
	if got := strings.Join(told(t, heard, "carp1"), ", "); got != want {
		t.Errorf("the hook heard %s, want %s", got, want)
	}
}
