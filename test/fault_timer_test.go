package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/nstest"
)

// long reports whether rows shall take the time that they are about.
func long() bool { return os.Getenv("XCARP_TEST_LONG") == "1" }

// alone writes a configuration with one group that BSDs could be members of.
func (n *node) alone(advbase, advskew int) { ucarpConfig(n, advbase, advskew) }

// classic is an advert of a member of that group that is no xcarp.
func classic(from string, advbase, advskew uint8, counter uint64) advert {
	return signed("carpdiem", from, carp.Advert{VHID: lanVHID, AdvBase: advbase, AdvSkew: advskew, Counter: counter}, "10.0.0.1")
}

// A change is one line of a group's story, from the log.
type change struct {
	at   time.Time
	node string
	to   string
}

func (n *node) changes(group string) []change {
	var all []change
	for line := range strings.Lines(n.log.String()) {
		var e struct {
			TS             time.Time
			Msg, Group, To string
		}
		if json.Unmarshal([]byte(line), &e) == nil && e.Msg == "state" && e.Group == group {
			all = append(all, change{e.TS, n.name, e.To})
		}
	}
	return all
}

// wait waits for the time, ending early with the test's failure.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// bornEqual makes nodes with the same advskew and gives them their link at the same
// instant. It asserts that one of them becomes master, and that one stays it.
func bornEqual(t *testing.T, count int) {
	p := newPair(t)
	nodes := []*node{p.a, p.b}
	for i := len(nodes); i < count; i++ {
		nodes = append(nodes, p.newNode(string(rune('a'+i)), 2+i))
	}
	for _, n := range nodes {
		n.write("xcarp.yaml", fmt.Sprintf(`node: %s
key_file: %s
preempt: true
groups:
  lan: {vhid: %d, carpdev: lan0, addresses: [10.0.0.1/24, "fd00:1::1/64"]}
`, n.name, filepath.Join(n.dir, "xcarp.key"), lanVHID))
		p.sw.Exec("ip", "link", "set", n.lanPort, "down")
		n.start()
	}
	for _, n := range nodes {
		nstest.Eventually(t, 20*time.Second, n.name+" is ready", func() bool { return n.group("lan").State == "INIT" })
	}
	var began time.Time
	var born time.Duration
	p.sw.Must(func() error {
		var links []netlink.Link
		for _, n := range nodes {
			l, err := netlink.LinkByName(n.lanPort)
			if err != nil {
				return err
			}
			links = append(links, l)
		}
		began = time.Now()
		var errs []error
		for _, l := range links {
			errs = append(errs, netlink.LinkSetUp(l))
		}
		born = time.Since(began)
		return errors.Join(errs...)
	})

	bound := carp.MasterDown(1, 0) + carp.Interval(1, 0)
	masters := func() (m []*node) {
		for _, n := range nodes {
			if n.group("lan").State == "MASTER" {
				m = append(m, n)
			}
		}
		return m
	}
	nstest.Eventually(t, 3*bound, "one master", func() bool { return len(masters()) == 1 })
	took := time.Since(began)
	// It is the last word: everybody else hears it three times more.
	heard := map[*node]uint64{}
	for _, n := range nodes {
		heard[n] = n.group("lan").Received
	}
	master := masters()
	for _, n := range nodes {
		nstest.Eventually(t, 15*time.Second, n.name+" hears the master", func() bool {
			return len(master) == 1 && n == master[0] || n.group("lan").Received >= heard[n]+6
		})
	}
	if m := masters(); len(m) != 1 || len(master) != 1 || m[0] != master[0] {
		t.Errorf("%d masters after three intervals, want one, the same", len(m))
	}
	back, elected := 0, 0
	for _, n := range nodes {
		for _, c := range n.changes("lan") {
			switch c.to {
			case "MASTER":
				elected++
			case "DRAIN":
				back++
			}
		}
	}
	figure(t, "one master after", "%v of %v, all links up within %v", took.Round(10*time.Millisecond), bound, born.Round(10*time.Microsecond))
	figure(t, "takeovers", "%d, taken back %d", elected, back)
}

// Equal nodes that see their link in the same instant agree.
func TestFault16_EqualNodesAtOnce(t *testing.T) {
	t.Parallel()
	times := 1
	if long() {
		times = 20
	}
	for i := range times {
		t.Run(fmt.Sprint(i+1), func(t *testing.T) { bornEqual(t, 2) })
	}
}

func TestFault54_ManyAtOnce(t *testing.T) {
	t.Parallel()
	for _, count := range []int{2, 3, 5} {
		t.Run(fmt.Sprintf("%d nodes", count), func(t *testing.T) { t.Parallel(); bornEqual(t, count) })
	}
}

// The extremes of the timers, from others and as our own.
func TestFault17_ExtremeTimers(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.b.alone(1, 100)
	p.b.start()
	p.b.waitState(15*time.Second, "MASTER", "lan")
	tap := newTap(t, p.sw, p.b.lanPort)
	counter := uint64(1000)
	say := func(from string, advbase, advskew uint8, bad bool) {
		counter++
		f := classic(from, advbase, advskew, counter)
		if bad {
			f = f.edit(badDigest)
		}
		tap.send(f)
	}
	listens := func() bool { return p.b.group("lan").State == "BACKUP" }

	// A slower master, and one that says that it leaves, are no reason to yield.
	w := newWatch(t, p.b)
	say("10.0.0.91", 1, 254, false)
	say("10.0.0.92", 255, 254, false)
	say("10.0.0.93", 255, 255, false)
	nstest.Eventually(t, 5*time.Second, "three adverts heard", func() bool { return p.b.group("lan").Received == 3 })
	w.unmoved(2) // another advbase

	// 0 and 0 is the fastest there is, 1/256 s; what it does to us is our own timer's.
	say("10.0.0.94", 0, 0, false)
	nstest.Eventually(t, 5*time.Second, "way is made to a faster master", listens)
	p.b.waitState(12*time.Second, "MASTER", "lan")

	// The same with the largest advskew.
	say("10.0.0.95", 0, 254, false)
	nstest.Eventually(t, 5*time.Second, "way is made to a faster master", listens)
	heard := time.Now()
	w = newWatch(t, p.b)
	say("10.0.0.95", 255, 255, true)
	say("10.0.0.95", 255, 254, true)
	w.refused(p.b, "lan", map[string]int{"badauth": 2})
	if since := time.Since(heard); since < 2*time.Second {
		w.unmoved(1)
	}
	said := time.Now()
	say("10.0.0.95", 255, 255, false)
	p.b.waitState(3*time.Second, "MASTER", "lan")
	figure(t, "genuine goodbye", "MASTER after %v", time.Since(said).Round(time.Millisecond))

	// Our own fastest: 256 adverts per second and family, and no more.
	p.b.kill(unix.SIGTERM)
	p.b.alone(0, 0)
	p.b.start()
	p.b.waitState(15*time.Second, "MASTER", "lan")
	from, began := p.b.group("lan").Sent, time.Now()
	wait(t, 2*time.Second)
	sent := p.b.group("lan").Sent - from
	rate := float64(sent) / time.Since(began).Seconds()
	if rate > 260 || rate < 20 {
		t.Errorf("%.0f adverts per second with advbase 0, advskew 0, want at most 256", rate)
	}
	figure(t, "own 0/0", "%.0f adverts/s, bound 256", rate)
}

// No value of a counter locks an honest member out, with a trailer or without, and
// none lets an old advert in.
func TestFault18_Counters(t *testing.T) {
	t.Parallel()
	t.Run("without a trailer", func(t *testing.T) {
		t.Parallel()
		p := newPair(t)
		p.b.alone(1, 100)
		p.b.start()
		p.b.waitState(15*time.Second, "MASTER", "lan")
		tap := newTap(t, p.sw, p.b.lanPort)
		say := func(c uint64) { tap.send(classic("10.0.0.99", 1, 0, c)) }
		say(math.MaxUint64 - 2)
		p.b.waitState(5*time.Second, "BACKUP", "lan")
		w := newWatch(t, p.b)
		received := p.b.group("lan").Received
		// Every one that counts says so by a second advert: a counter that was heard once
		// may be that of an OpenBSD, where it stands still.
		good := []uint64{math.MaxUint64 - 1, math.MaxUint64, 0, 1, 1 << 63, 1<<63 + 1, 5, 1 << 40, 1<<40 + 1, 1 << 34, 1<<34 + 1}
		old := []uint64{0, 1, 1 << 63, math.MaxUint64, 1 << 40, 5, 1 << 34, 1<<34 - 1}
		for _, c := range append(good, old...) {
			say(c)
		}
		nstest.Eventually(t, 3*time.Second, "all adverts believed", func() bool {
			return p.b.group("lan").Received == received+uint64(len(good))
		})
		w.refused(p.b, "lan", map[string]int{"replay": len(old)})
		w.unmoved(2)
		figure(t, "zero, largest, wrapped, +2^63, restarted", "%d believed of %d", p.b.group("lan").Received-received, len(good))
	})
	t.Run("with a trailer", func(t *testing.T) {
		t.Parallel()
		p := newPair(t)
		p.calm()
		tap := newTap(t, p.sw, p.b.lanPort)
		type mark struct{ epoch, counter uint64 }
		const huge = math.MaxUint64
		say := func(m mark) {
			tap.send(member("10.0.0.98", 9, m.epoch, p.b.group("lan").Term, carp.Advert{AdvBase: 1, AdvSkew: 50, Counter: m.counter}))
		}
		w := newWatch(t, p.b)
		good := []mark{{1, 0}, {1, 1}, {1, 1 << 63}, {1, huge}, {2, 0}, {2, 1 << 62}, {1 << 63, 7}, {1<<63 + 1, huge}}
		old := []mark{{1<<63 + 1, huge}, {1<<63 + 1, 0}, {1 << 63, huge}, {2, 1 << 63}, {1, huge}, {0, 0}}
		for _, m := range append(good, old...) {
			say(m)
		}
		w.refused(p.b, "lan", map[string]int{"replay": len(old)})
		w.unmoved(2)
		if got := p.b.group("lan").MastersSeen; !slices.Contains(got, "10.0.0.98") {
			t.Errorf("masters seen: %v, want the honest member 10.0.0.98 among them", got)
		}
		figure(t, "epoch and counter rising, +2^63, largest", "%d believed of %d", len(good), len(good))
	})
}

// member is an advert with a trailer of another node of the pair's LAN group.
func member(from string, node, epoch, term uint64, v carp.Advert) advert {
	v.VHID = lanVHID
	shared := []netip.Addr{shared4, shared6}
	g := carp.NewGuard(carp.GuardConfig{
		VHID: lanVHID, Key: carp.NewKey(derived(lanVHID), lanVHID, shared, carp.OpenBSD),
		Keys: []*carp.TrailerKey{carp.NewTrailerKey(testSecret, "lan", lanVHID)}, Send: true,
		Node: node, Epoch: epoch,
	})
	return carp.AppendFrame(nil, carp.VirtualMAC(lanVHID), netip.MustParseAddr(from), g.Sign(nil, &v, term))
}

// testSecret is testKey.
var testSecret = [32]byte([]byte("xcarp-test-key-xcarp-test-key-01"))

// The wall clock has no say: nobody who decides asks it. And a node that slept
// listens for a master-down time before it speaks.
func TestFault19_ClockStepsAndSuspend(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"../internal/carp", "../internal/carp/group"} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("no sources in %s: %v", dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				s, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				x, _ := s.X.(*ast.Ident)
				switch s.Sel.Name {
				case "Now", "Since", "Until", "CLOCK_REALTIME":
					if x != nil && (x.Name == "time" || x.Name == "unix") {
						t.Errorf("%s asks the wall clock: %s.%s", file, x.Name, s.Sel.Name)
					}
				}
				return true
			})
		}
	}
	figure(t, "wall clock", "not read in internal/carp and internal/carp/group")

	p := newPair(t)
	p.b.alone(1, 100)
	p.b.start()
	p.b.waitState(15*time.Second, "MASTER", "lan")
	tap := newTap(t, p.sw, p.b.lanPort)
	asleep := 4 * time.Second // the lease is 2.7 s
	if long() {
		asleep = 10 * time.Minute
	}
	p.b.signal(unix.SIGSTOP)
	t.Cleanup(func() { p.b.signal(unix.SIGCONT) })
	wait(t, asleep)
	tap.forget()
	p.b.signal(unix.SIGCONT)
	woke := time.Now()
	nstest.Eventually(t, 12*time.Second, "an advert after the sleep", func() bool { return tap.count(fromVMAC(lanVHID)) > 0 })
	listened := time.Since(woke)
	if down := carp.MasterDown(1, 100); listened < down-100*time.Millisecond {
		t.Errorf("it spoke %v after it woke, want a master-down time of %v", listened, down)
	}
	var to []string
	nstest.Eventually(t, 15*time.Second, "all four changes in the log", func() bool { // which comes after the advert
		to = p.b.log.transitions("lan")
		return len(to) >= 4
	})
	if got, want := strings.Join(to, " "), "BACKUP MASTER BACKUP MASTER"; got != want {
		t.Errorf("it went through %s, want %s", got, want)
	}
	figure(t, "after a sleep of "+asleep.String(), "silent for %v, master-down is %v", listened.Round(10*time.Millisecond), carp.MasterDown(1, 100))
}
