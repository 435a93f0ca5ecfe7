package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/nstest"
)

// believing sets whom the nodes believe.
func (p *pair) believing(auth string) *pair {
	p.tb.Helper()
	for _, n := range []*node{p.a, p.b} {
		n.reconfigure(func(s string) string { return s + "auth: " + auth + "\n" })
	}
	return p
}

// inModes runs the test for those who believe plain peers, and those who do not.
func inModes(t *testing.T, test func(t *testing.T, p *pair)) {
	for _, auth := range []string{"enforce", "compat"} {
		t.Run(auth, func(t *testing.T) {
			t.Parallel()
			test(t, newPair(t).believing(auth))
		})
	}
}

// What was said once is not said again, whenever that is and whoever was restarted.
func TestFault02_Replay(t *testing.T) {
	t.Parallel()
	inModes(t, func(t *testing.T, p *pair) {
		p.calm()
		a := p.attacker(t)
		old4, old6 := a.v4, a.v6
		w := newWatch(t, p.a, p.b)
		replays := 0
		again := func(f ...advert) {
			for range 5 {
				a.taps[p.b].send(f[0])
				a.taps[p.b].send(f[1])
				replays += 2
			}
		}
		again(old4, old6) // within a millisecond
		later := 3 * time.Second
		if long() {
			later = time.Hour
		}
		wait(t, later)
		again(old4, old6)
		w.refused(p.b, "lan", map[string]int{"replay": replays})
		a.taps[p.a].send(old4) // to its sender
		w.refused(p.a, "lan", map[string]int{"loop": 1})
		w.unmoved(3)

		// The sender restarted: what it said before is still old.
		p.a.kill(unix.SIGKILL)
		p.a.start()
		received := p.b.group("lan").Received
		nstest.Eventually(t, 15*time.Second, "adverts of the new process", func() bool {
			return p.a.status() != nil && p.b.group("lan").Received >= received+4
		})
		again(old4, old6)
		w.refused(p.b, "lan", map[string]int{"replay": replays})
		before := p.a.group("lan").Drops["loop"]
		a.taps[p.a].send(old4)
		nstest.Eventually(t, 5*time.Second, "an own advert of the life before refused", func() bool { return p.a.group("lan").Drops["loop"] == before+1 })

		// The receiver restarted, and the sender is gone: nobody tells it what it heard.
		wait(t, 1500*time.Millisecond) // marks go to the disk every second
		a.v4, a.v6 = a.taps[p.a].capture(lanVHID)
		wait(t, 1500*time.Millisecond)
		p.cut(p.a)
		p.b.kill(unix.SIGKILL)
		p.b.start()
		p.b.waitState(10*time.Second, "BACKUP", "lan")
		began := time.Now()
		n := 0
		for p.b.group("lan").State != "MASTER" && time.Since(began) < 15*time.Second {
			a.taps[p.b].send(a.v4)
			a.taps[p.b].send(old6)
			n += 2
			wait(t, 100*time.Millisecond)
		}
		g := p.b.group("lan")
		if g.State != "MASTER" || g.Drops["replay"] == 0 || g.Received != 0 {
			t.Errorf("under replays %s with %d believed, refused %v; want MASTER, none believed", g.State, g.Received, g.Drops)
		}
		figure(t, "takeover under replays after a restart", "%v of %v, refused %v", time.Since(began).Round(10*time.Millisecond), carp.MasterDown(1, 100), g.Drops)
	})
}

// An advert with other values in it, and a checksum that is right again, is nobody's.
func TestFault03_ModifiedSkew(t *testing.T) {
	t.Parallel()
	inModes(t, func(t *testing.T, p *pair) {
		p.calm()
		a := p.attacker(t)
		edits := map[string]func(ip, carp []byte){
			"best":     func(_, c []byte) { c[2], c[5] = 0, 0 },
			"faster":   func(_, c []byte) { c[5] = 0; c[2] = 100 },
			"slower":   func(_, c []byte) { c[2] = 200 },
			"demoted":  func(_, c []byte) { c[4] = 255 },
			"goodbye":  func(_, c []byte) { c[2], c[5] = 255, 255 },
			"counter":  func(_, c []byte) { c[15]++ },
			"type":     func(_, c []byte) { c[0] = 0x22 },
			"node":     func(_, c []byte) { c[36+4] ^= 1 },
			"epoch":    func(_, c []byte) { c[36+12] ^= 1 },
			"term":     func(_, c []byte) { c[36+20] ^= 0x40 },
			"sequence": func(_, c []byte) { c[8] ^= 1 },
			"key id":   func(_, c []byte) { c[36+3]++ },
			"magic":    func(_, c []byte) { c[36] = 0 },
			"MAC":      func(_, c []byte) { c[36+30] ^= 1 },
		}
		w := newWatch(t, p.a, p.b)
		said := 0
		for _, f := range []advert{a.v4, a.v6} {
			for _, edit := range edits {
				for _, from := range []byte{0, 77} { // as ourselves, and as somebody else
					forged := f.edit(edit).forge(func(ip, _ []byte) {
						if from != 0 {
							ip[len(ip)-5-12*(len(ip)/40)] = from
						}
					})
					a.tell(forged, stripped(forged))
					said += 2
				}
			}
		}
		refusals := func(n *node) int { return total(w.dropped(n, "lan")) }
		for _, n := range []*node{p.a, p.b} {
			nstest.Eventually(t, 10*time.Second, "all of it refused by "+n.name, func() bool { return refusals(n) == said })
			figure(t, n.name+" lan", "%v of %d", strings.TrimPrefix(fmt.Sprint(w.dropped(n, "lan")), "map"), said)
		}
		if n := p.b.group("lan").Alarms["relabeled"]; n == 0 {
			t.Errorf("no alarm of relabelled adverts: %v", p.b.group("lan").Alarms)
		}
		figure(t, "alarms", "%v", p.b.group("lan").Alarms)
		w.unmoved(6)
	})
}

// stripped cuts the trailer off.
func stripped(f advert) advert {
	head := 14 + len(f.header())
	f = append(advert{}, f[:head+36]...)
	return f.forge(func(ip, _ []byte) {
		if len(ip) == 40 {
			ip[4], ip[5] = 0, 36
		} else {
			ip[2], ip[3] = 0, byte(len(ip)+36)
		}
	})
}

// The attack that keeps a ucarp pair without a master for as long as one likes: one
// captured advert, made the best of all, from another address, every 0.3 s.
func TestFault03_AttackOnUcarp(t *testing.T) {
	t.Parallel()
	const every = 300 * time.Millisecond
	lasts := 6 * time.Second
	if long() {
		lasts = 12 * time.Second
	}
	best := func(f advert) advert {
		return f.edit(func(ip, carp []byte) { ip[15] = 77; carp[2], carp[5] = 0, 0 })
	}
	inModes(t, func(t *testing.T, p *pair) {
		p.calm()
		a := p.attacker(t)
		w := newWatch(t, p.a, p.b)
		q := p.questions(t, 20*time.Millisecond)
		forged := best(a.v4)
		n := 0
		for began := time.Now(); time.Since(began) < lasts; n++ {
			a.tell(forged, stripped(forged))
			wait(t, every)
		}
		q.end()
		nstest.Eventually(t, 5*time.Second, "every question answered", func() bool { return q.taps[p.a].count(answersFor(shared4)) >= q.asked })
		if got := q.taps[p.b].count(answersFor(shared4)); got != 0 {
			t.Errorf("the backup answered %d times", got)
		}
		figure(t, "questions", "%d asked, %d answered by the master, 0 by the backup", q.asked, q.taps[p.a].count(answersFor(shared4)))
		for _, node := range []*node{p.a, p.b} {
			if got := total(w.dropped(node, "lan")); got != 2*n {
				t.Errorf("%s refused %d of %d: %v", node.name, got, 2*n, w.dropped(node, "lan"))
			}
		}
		alarms := p.b.group("lan").Alarms
		if alarms["relabeled"] == 0 || !strings.Contains(p.b.log.String(), "with other values in it") {
			t.Errorf("no alarm: %v", alarms)
		}
		figure(t, "fw-b", "refused %v, alarms %v", w.dropped(p.b, "lan"), alarms)
		w.unmoved(3)
	})
	t.Run("on ucarp", func(t *testing.T) { // the control
		t.Parallel()
		p := newPair(t)
		u := ucarp(t, p.a.ns, "10.0.0.2", 1, 0, "--preempt")
		u.waitLog(t, 15*time.Second, ucarpMaster, 1)
		tap := newTap(t, p.sw, p.a.lanPort)
		forged := best(tap.capture4())
		began := time.Now()
		for strings.Count(u.log.String(), ucarpBackup) < 1 && time.Since(began) < 10*time.Second {
			tap.send(forged)
			wait(t, every)
		}
		u.waitLog(t, time.Second, ucarpBackup, 1)
		figure(t, "master stepped down", "after %v", time.Since(began).Round(time.Microsecond))
	})
	t.Run("compat beside ucarp", func(t *testing.T) {
		t.Parallel()
		p := newPair(t)
		u := ucarp(t, p.a.ns, "10.0.0.2", 1, 0, "--preempt")
		u.waitLog(t, 15*time.Second, ucarpMaster, 1)
		p.b.alone(1, 100)
		p.b.start()
		nstest.Eventually(t, 15*time.Second, "ucarp's adverts believed", func() bool { return p.b.group("lan").Received >= 3 })
		tap := newTap(t, p.sw, p.a.lanPort)
		to := newTap(t, p.sw, p.b.lanPort)
		captured := tap.capture4()
		w := newWatch(t, p.b)
		const times = 10
		for range times {
			to.send(best(captured)) // from another address
			to.send(captured.edit(func(_, carp []byte) { carp[2], carp[5] = 0, 0 }))
		}
		w.refused(p.b, "lan", map[string]int{"replay": 2 * times})
		w.unmoved(3)
		u.kill()
		killed := time.Now()
		for p.b.group("lan").State != "MASTER" && time.Since(killed) < 12*time.Second {
			to.send(best(captured))
			wait(t, every)
		}
		p.b.waitState(time.Second, "MASTER", "lan")
		figure(t, "ucarp killed under attack", "MASTER after %v, alarms %v", time.Since(killed).Round(10*time.Millisecond), p.b.group("lan").Alarms)
	})
}

// capture4 waits for an IPv4 advert.
func (t *tap) capture4() (f advert) {
	t.tb.Helper()
	nstest.Eventually(t.tb, 10*time.Second, "an IPv4 advert", func() bool {
		if all := t.adverts(true); len(all) > 0 {
			f = all[len(all)-1]
		}
		return f != nil
	})
	return f
}

// An address that is added on one node, and on the other one 10 s later, costs no
// probe and no master: the trailer vouches where the digests differ.
func TestFault15_AddressAddedOnOneNodeFirst(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"master", "backup"} {
		t.Run(first+" first", func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			for _, n := range []*node{p.a, p.b} {
				// The lease of 8 s outlives a start on a machine that has other work.
				n.reconfigure(func(s string) string { return strings.ReplaceAll(s, "{vhid:", "{advbase: 3, vhid:") })
			}
			p.calm()
			w := newWatch(t, p.a, p.b)
			nodes := []*node{p.a, p.b}
			if first == "backup" {
				nodes = []*node{p.b, p.a}
			}
			const probes = 150
			var pings []*process // to the router, and through it
			for _, to := range []string{"10.0.0.1", "2001:db8:1::100"} {
				pings = append(pings, startIn(t, p.client.NS, "ping", "-q", "-i", "0.1", "-W", "5", "-c", fmt.Sprint(probes), to))
			}
			add := func(n *node) {
				n.kill(unix.SIGKILL) // the next process adopts what this one was
				n.reconfigure(func(s string) string {
					return strings.Replace(s, "[10.0.0.1/24,", "[10.0.0.1/24, 10.0.0.5/24,", 1)
				})
				n.start()
				nstest.Eventually(t, 10*time.Second, n.name+" answers", func() bool { return n.status() != nil })
			}
			add(nodes[0])
			apart := time.Now()
			nstest.Eventually(t, 10*time.Second, "an alarm of different digests", func() bool { return p.b.group("lan").Alarms["digest"] > 0 })
			nobody := func() {
				t.Helper()
				if m := p.masters("lan"); len(m) != 1 || m[0] != p.a.name {
					t.Errorf("masters %v, want %s alone", m, p.a.name)
				}
			}
			for time.Since(apart) < 10*time.Second {
				nobody()
				wait(t, 200*time.Millisecond)
			}
			figure(t, "alarms while apart", "%v", p.b.group("lan").Alarms)
			add(nodes[1])
			nobody()
			for _, ping := range pings {
				if err := ping.cmd.Wait(); err != nil || !strings.Contains(ping.log.String(), " 0% packet loss") {
					t.Errorf("probes were lost: %v\n%s", err, ping.log)
				}
			}
			p.a.waitState(15*time.Second, "MASTER", "lan", "wan")
			p.b.waitState(15*time.Second, "BACKUP", "lan", "wan")
			if got := p.a.transitions() - w.states[p.a]; got != 0 {
				t.Errorf("%d changes of state of the master, want none", got)
			}
			if mac := p.client.neighbour(t, "10.0.0.5"); mac != vMAC(lanVHID) {
				t.Errorf("the new address resolves to %s, want %s", mac, vMAC(lanVHID))
			}
			drops := p.b.group("lan").Drops
			if drops["badauth"]+drops["badtrailer"] != 0 {
				t.Errorf("refused: %v, want none", drops)
			}
			figure(t, "probes", "2 · %d sent, none lost; master fw-a alone throughout", probes)
		})
	}
}

// A node that sleeps through a rotation of the key comes back with what it has, and
// is believed for as long as that is not retired.
func TestFault58_KeyRotationWhileAsleep(t *testing.T) {
	t.Parallel()
	p := newPair(t).believing("enforce")
	p.calm()
	w := newWatch(t, p.a)
	file := func(n *node) string { return filepath.Join(n.dir, "xcarp.key") }
	key := func(n *node, arg ...string) string {
		t.Helper()
		out, err := n.xcarp(append([]string{"key", "--config", n.conf}, arg...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	ids := func(n *node) (ids []string) {
		for line := range strings.Lines(key(n)) {
			ids = append(ids, strings.Fields(line)[0])
		}
		return ids
	}
	copyKeys := func() {
		t.Helper()
		b, err := os.ReadFile(file(p.a))
		if err == nil {
			err = os.WriteFile(file(p.b), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	believed := func(what string) {
		t.Helper()
		p.b.waitState(15*time.Second, "BACKUP", "lan", "wan")
		before := p.b.group("lan").Received
		nstest.Eventually(t, 15*time.Second, "adverts "+what, func() bool { return p.b.group("lan").Received >= before+4 })
		for _, n := range []*node{p.a, p.b} {
			if d := n.group("lan").Drops; d["badtrailer"]+d["badauth"] != 0 {
				t.Errorf("%s: %s refused %v", what, n.name, d)
			}
		}
		w.unmoved(20)
	}

	p.b.kill(unix.SIGTERM) // asleep
	key(p.a, "add")
	all := ids(p.a)
	old, next := all[0], all[1]
	p.b.start()
	believed("to one that does not have the new key yet")

	copyKeys()
	key(p.b, "reload")
	p.b.kill(unix.SIGTERM) // asleep again
	key(p.a, "use", next)
	p.b.start()
	believed("signed with the new key, to one that signs with the old one")
	// The other way round: the sleeper's old signature is still good.
	p.a.kill(unix.SIGTERM)
	p.b.waitState(10*time.Second, "MASTER", "lan", "wan")
	p.a.start()
	// It comes back by preempting a slower master, which it has to believe.
	nstest.Eventually(t, 15*time.Second, "adverts signed with the old key believed", func() bool { return p.a.group("lan").Received > 0 })
	p.a.waitState(30*time.Second, "MASTER", "lan", "wan")
	p.b.waitState(15*time.Second, "BACKUP", "lan", "wan")
	if d := p.a.group("lan").Drops; d["badtrailer"]+d["badauth"] != 0 {
		t.Errorf("the sleeper's adverts were refused: %v", d)
	}

	w = newWatch(t, p.a)
	key(p.b, "use", next)
	key(p.a, "retire", old)
	key(p.b, "retire", old)
	believed("with the old key retired")
	figure(t, "keys", "%s replaced by %s", old, next)

	// Who still has the old one alone is nobody now.
	fake := member("10.0.0.98", 9, 1<<40, p.a.group("lan").Term+5, carp.Advert{AdvBase: 0, AdvSkew: 1, Counter: 1})
	newTap(t, p.sw, p.a.lanPort).send(fake)
	refused := func() map[string]int { return w.dropped(p.a, "lan") }
	nstest.Eventually(t, 5*time.Second, "the retired key refused", func() bool { return total(refused()) == 1 })
	figure(t, "an advert of the retired key", "refused: %v", refused())
	w.unmoved(20)
}
