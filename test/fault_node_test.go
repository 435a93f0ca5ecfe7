package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/nstest"
)

// dropAdverts makes the kernel refuse what the node wants to send on its LAN, as a
// firewall does: the socket is told so.
const dropAdverts = `table netdev fault {
	chain out {
		type filter hook egress device lan0 priority 0;
		ip protocol 112 counter drop;
		ip6 nexthdr 112 counter drop;
	};
}`

// A master that cannot send demotes itself, gives way, and is forgiven when it can
// send again.
func TestFault37_AdvertsCannotBeSent(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.alone(1, 0)
	p.b.alone(1, 100)
	p.a.start()
	p.b.start()
	p.a.waitState(15*time.Second, "MASTER", "lan")
	p.b.waitState(15*time.Second, "BACKUP", "lan")
	w := newWatch(t, p.a, p.b)
	sent := p.a.group("lan").SendErrors

	// Twice is an accident: no demotion, no transition.
	p.a.ns.Exec("nft", dropAdverts)
	nstest.Eventually(t, 6*time.Second, "an advert that could not be sent", func() bool { return p.a.group("lan").SendErrors > sent })
	p.a.ns.Exec("nft", "delete", "table", "netdev", "fault")
	received := p.b.group("lan").Received
	nstest.Eventually(t, 10*time.Second, "two adverts more", func() bool { return p.b.group("lan").Received >= received+2 })
	if g := p.a.group("lan"); g.Demotion != 0 || g.SendErrors-sent > 2 {
		t.Errorf("demotion %d after %d errors, want none", g.Demotion, g.SendErrors-sent)
	}
	w.unmoved(0)

	// Three times in a row is none.
	sent = p.a.group("lan").SendErrors
	p.a.ns.Exec("nft", dropAdverts)
	began := time.Now()
	nstest.Eventually(t, 10*time.Second, "demotion by senderr", func() bool { return p.a.group("lan").Demotions["senderr"] > 0 })
	g := p.a.group("lan")
	if n := g.SendErrors - sent; n != 3 {
		t.Errorf("demoted after %d errors, want 3", n)
	}
	figure(t, "demotion", "%v after %d errors, %v", g.Demotions, g.SendErrors-sent, time.Since(began).Round(10*time.Millisecond))
	p.b.waitState(12*time.Second, "MASTER", "lan")
	figure(t, "peer", "MASTER after %v", time.Since(began).Round(10*time.Millisecond))
	p.a.waitState(12*time.Second, "BACKUP", "lan")
	if g := p.a.group("lan"); g.Demotion < 240 {
		t.Errorf("demotion %d while it cannot send, want 240", g.Demotion)
	}

	// It cannot show that it can send while it is backup: the peer has to go.
	p.a.ns.Exec("nft", "delete", "table", "netdev", "fault")
	p.b.kill(unix.SIGTERM)
	p.a.waitState(12*time.Second, "MASTER", "lan")
	from := p.a.group("lan").Sent
	nstest.Eventually(t, 12*time.Second, "forgiveness", func() bool { return p.a.group("lan").Demotion == 0 })
	figure(t, "forgiven", "after %d adverts sent", p.a.group("lan").Sent-from+1)
}

// Interfaces that go down are no send errors: INIT at once, and back.
func TestFault37_InterfaceDown(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.alone(1, 0)
	p.b.alone(1, 100)
	p.a.start()
	p.b.start()
	p.a.waitState(15*time.Second, "MASTER", "lan")
	p.b.waitState(15*time.Second, "BACKUP", "lan")
	p.a.ns.Exec("ip", "link", "set", "lan0", "down") // sends now fail with ENETDOWN
	p.a.waitState(5*time.Second, "INIT", "lan")
	p.b.waitState(12*time.Second, "MASTER", "lan")
	p.a.ns.Exec("ip", "link", "set", "lan0", "up")
	p.a.waitState(15*time.Second, "MASTER", "lan")
	p.b.waitState(5*time.Second, "BACKUP", "lan")
	if g := p.a.group("lan"); g.Demotion != 0 {
		t.Errorf("demotion %v after the interface is back, want none", g.Demotions)
	}
	figure(t, "ENETDOWN", "INIT, then MASTER again; the peer %s", strings.Join(p.b.log.transitions("lan"), " "))
}

// questions asks both nodes for the shared address all the time, and measures when
// both answered.
type questions struct {
	t     *testing.T
	taps  map[*node]*tap
	stop  chan struct{}
	ended chan struct{}
	asked int
}

func (p *pair) questions(t *testing.T, every time.Duration) *questions {
	t.Helper()
	q := &questions{t: t, taps: map[*node]*tap{}, stop: make(chan struct{}), ended: make(chan struct{})}
	for _, n := range []*node{p.a, p.b} {
		q.taps[n] = newTap(t, p.sw, n.lanPort)
	}
	frame := arpRequest(t)
	go func() {
		defer close(q.ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				for _, tap := range q.taps {
					_, _ = unix.Write(tap.fd, frame)
				}
				q.asked++
			case <-q.stop:
				return
			}
		}
	}()
	t.Cleanup(q.end)
	return q
}

func (q *questions) end() {
	select {
	case <-q.stop:
	default:
		close(q.stop)
	}
	<-q.ended
}

// both returns for how long both nodes answered, in all.
func (q *questions) both(every time.Duration) time.Duration {
	q.end()
	var slots []map[int64]bool
	for _, tap := range q.taps {
		m := map[int64]bool{}
		tap.mu.Lock()
		for _, p := range tap.from {
			if answersFor(shared4)(p) {
				m[p.Metadata().Timestamp.UnixNano()/int64(every)] = true
			}
		}
		tap.mu.Unlock()
		slots = append(slots, m)
	}
	if len(slots[0])+len(slots[1]) == 0 {
		q.t.Errorf("%d questions and no answer: nothing was measured", q.asked)
	}
	n := 0
	for at := range slots[0] {
		if slots[1][at] {
			n++
		}
	}
	return time.Duration(n) * every
}

// A node without CPU is either still master, or silent; and it is never master
// beside another for longer than its lease.
func TestFault38_Starved(t *testing.T) {
	const slot = 50 * time.Millisecond
	for _, tt := range []struct {
		name  string
		calm  bool // no transition at all
		abuse func(t *testing.T, p *pair)
	}{
		{"stopped for half a second", true, func(t *testing.T, p *pair) {
			for i := range 6 {
				n := []*node{p.a, p.b}[i%2]
				n.signal(unix.SIGSTOP)
				wait(t, 500*time.Millisecond)
				n.signal(unix.SIGCONT)
				wait(t, 250*time.Millisecond)
			}
		}},
		{"stopped for longer than the lease", false, func(t *testing.T, p *pair) {
			p.a.signal(unix.SIGSTOP)
			p.b.waitState(12*time.Second, "MASTER", "lan", "wan")
			wait(t, 500*time.Millisecond)
			p.a.signal(unix.SIGCONT)
		}},
		{"5 % of a CPU", false, func(t *testing.T, p *pair) { p.a.quota(t, 5, 8*time.Second) }},
		{"1 % of a CPU", false, func(t *testing.T, p *pair) { p.a.quota(t, 1, 8*time.Second) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.calm()
			w := newWatch(t, p.a, p.b)
			q := p.questions(t, slot/5)
			tt.abuse(t, p)
			if tt.calm {
				w.unmoved(0)
			} else {
				p.a.waitState(30*time.Second, "MASTER", "lan", "wan") // the table is back, too
				p.b.waitState(10*time.Second, "BACKUP", "lan", "wan")
				figure(t, "changes of state", "fw-a %d, fw-b %d", p.a.transitions()-w.states[p.a], p.b.transitions()-w.states[p.b])
			}
			both := q.both(slot)
			if lease := carp.Lease(1, 0); both > lease {
				t.Errorf("both answered for %v, want at most a lease of %v", both, lease)
			}
			figure(t, "both answered", "%v, lease %v", both, carp.Lease(1, 0))
		})
	}
}

// quota leaves the daemon that share of one CPU, in percent, for some time.
func (n *node) quota(t *testing.T, percent int, d time.Duration) {
	t.Helper()
	n.mu.Lock()
	pid := n.cmd.Process.Pid
	n.mu.Unlock()
	const period = 100_000 // µs
	limit := percent * period / 100
	root, files := "/sys/fs/cgroup/cpu", map[string]string{"cpu.cfs_period_us": fmt.Sprint(period), "cpu.cfs_quota_us": fmt.Sprint(limit)}
	if _, err := os.Stat(root); errors.Is(err, os.ErrNotExist) { // version 2
		root, files = "/sys/fs/cgroup", map[string]string{"cpu.max": fmt.Sprintf("%d %d", limit, period)}
		if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+cpu"), 0o644); err != nil {
			nstest.Skip(t, "needs the cgroup controller cpu: "+err.Error())
		}
	}
	home, err := cgroupOf(pid, root)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, n.ns.Name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		nstest.Skip(t, "needs cgroups: "+err.Error())
	}
	move := func(to string) error {
		return os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644)
	}
	t.Cleanup(func() {
		_ = move(home) // it may have ended
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	for name, value := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := move(dir); err != nil {
		t.Fatal(err)
	}
	wait(t, d)
	if err := move(home); err != nil {
		t.Fatal(err)
	}
}

// cgroupOf returns the directory of the process's cgroup in a hierarchy: cgroups(7).
func cgroupOf(pid int, root string) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && (f[1] == "cpu" && strings.HasSuffix(root, "/cpu") || f[0] == "0" && !strings.HasSuffix(root, "/cpu")) {
			return filepath.Join(root, f[2]), nil
		}
	}
	return root, nil
}
