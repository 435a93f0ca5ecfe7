package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// descriptors are the daemon's, in order.
func (n *node) descriptors() (fds []int, what []string) {
	n.tb.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", n.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		n.tb.Fatal(err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		to, gone := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || gone != nil {
			continue
		}
		fds = append(fds, fd)
		what = append(what, strings.TrimRight(to, "0123456789[]"))
	}
	slices.Sort(fds)
	slices.Sort(what)
	return fds, what
}

// spare leaves the daemon so many file descriptors more than it has, all for less
// than none.
func (n *node) spare(count int) {
	n.tb.Helper()
	var limit unix.Rlimit
	if err := unix.Prlimit(n.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		n.tb.Fatal(err)
	}
	limit.Cur = limit.Max
	if count >= 0 {
		fds, _ := n.descriptors()
		next := 0
		for ; count > 0 || slices.Contains(fds, next); next++ {
			if !slices.Contains(fds, next) {
				count--
			}
		}
		limit.Cur = uint64(next)
	}
	if err := unix.Prlimit(n.cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		n.tb.Fatal(err)
	}
}

// footprint is all that a daemon has on the box and in itself.
func (n *node) footprint() string {
	n.tb.Helper()
	b := strings.Builder{}
	b.WriteString(n.snapshot())
	for _, f := range []string{"packet", "raw", "raw6", "igmp", "igmp6", "dev_mcast"} {
		_ = n.ns.Do(func() error {
			text, err := os.ReadFile("/proc/thread-self/net/" + f)
			lines := strings.Split(string(text), "\n")
			for i := range lines { // what they are: not where in the kernel, nor how long ago
				from, to := 0, 4
				switch f {
				case "packet":
					from, to = 2, 6
				case "raw", "raw6":
					from, to = 1, 2
				case "igmp":
					to = 2
				}
				w := strings.Fields(lines[i])
				lines[i] = strings.Join(w[min(from, len(w)):min(to, len(w))], " ")
			}
			slices.Sort(lines)
			fmt.Fprintf(&b, "%s\n%s\n", f, strings.Join(lines, "\n"))
			return err
		})
	}
	_, what := n.descriptors()
	fmt.Fprintf(&b, "descriptors\n%s\n", strings.Join(what, "\n"))
	s := n.status()
	if s == nil {
		return b.String() + "no answer"
	}
	for _, g := range s.Groups {
		fmt.Fprintf(&b, "%s %d on %s: %s, term %d, demoted %v, advskew %d, %v\n",
			g.Name, g.VHID, g.Carpdev, g.State, g.Term, g.Demotions, g.AdvSkew, g.Addresses)
	}
	fmt.Fprintf(&b, "configuration %s\n", s.Hash)
	return b.String()
}

// TestAFailedChangeChangesNothing lets a change of four groups run out of file
// descriptors, at each place where it needs one in turn. It is all or nothing: what
// goes stays and says no goodbye, what changes goes on in its role, and nothing of
// what was to come stays behind.
func TestAFailedChangeChangesNothing(t *testing.T) {
	t.Parallel()
	const stays = "  stays: {vhid: 1, carpdev: lan0, addresses: [10.0.0.1/24], pass: password}\n"
	const before = stays +
		`  goes: {vhid: 3, carpdev: lan0, addresses: [10.0.0.9/24], pass: password}
  other: {vhid: 2, carpdev: lan0, addresses: [10.0.0.7/24, "fd00:1::7/64", "fd00:1::8/64"], pass: password}
  skew: {vhid: 6, carpdev: lan0, addresses: [10.0.0.6/24], pass: password}
`
	// Each IPv6 address takes a descriptor for as long as the group has it.
	many := func(from int) string {
		var all strings.Builder
		for i := range 8 {
			fmt.Fprintf(&all, `, "fd00:1::%d/64"`, from+i)
		}
		return all.String()
	}
	for _, tt := range []struct{ name, groups string }{
		{"a carpdev more", stays + `
  comes: {vhid: 3, carpdev: wan0, addresses: [203.0.113.1/24], pass: password}
  other: {vhid: 2, carpdev: lan0, addresses: [10.0.0.8/24, "fd00:1::7/64"], pass: password}
  skew: {vhid: 6, carpdev: lan0, addresses: [10.0.0.6/24], pass: password, advskew: 7}
`},
		{"groups alone", stays + `
  comes: {vhid: 4, carpdev: lan0, addresses: [10.0.0.4/24` + many(40) + `], pass: password}
  other: {vhid: 2, carpdev: lan0, addresses: [10.0.0.8/24` + many(20) + `], pass: password}
  skew: {vhid: 6, carpdev: lan0, addresses: [10.0.0.6/24` + many(60) + `], pass: password, advskew: 7}
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			failedChange(t, before, tt.groups)
		})
	}
}

func failedChange(t *testing.T, before, after string) {
	p := newPair(t)
	n := p.a
	config := func(groups string) { n.conf = n.write("xcarp.yaml", "node: fw-a\ngroups:\n"+groups) }
	config(before)
	n.start()
	n.waitState(15*time.Second, "MASTER", "stays", "goes", "other", "skew")
	nstest.Eventually(t, 30*time.Second, "the trap is over", func() bool { return !strings.Contains(n.ns.Exec("nft", "list", "ruleset"), "expires") })
	tap := newTap(t, p.sw, n.lanPort)
	was := n.footprint()
	config(after)
	changed := func() bool { return strings.Contains(n.log.String(), `"configuration changed"`) }
	ended := func() int {
		log := n.log.String()
		return strings.Count(log, "was not applied") + strings.Count(log, "the running one stays") + strings.Count(log, `"configuration changed"`)
	}
	failed := 0
	for count := 0; !changed(); count++ {
		if count > 100 {
			t.Fatal("the change does not succeed with a hundred file descriptors to spare")
		}
		so := ended()
		n.spare(count)
		n.signal(unix.SIGHUP)
		nstest.Eventually(t, 20*time.Second, "the change has ended", func() bool { return ended() > so })
		n.spare(-1)
		if changed() {
			break
		}
		failed++
		left := "?"
		for end := time.Now().Add(10 * time.Second); left != "" && time.Now().Before(end); {
			left = differences(was, n.footprint()) // the kernel and the keeper follow
		}
		if left != "" {
			t.Fatalf("with %d file descriptors to spare the change failed and left:\n%s", count, left)
		}
	}
	if failed < 10 {
		t.Errorf("the change failed %d times, want one at each of its steps", failed)
	}
	for _, f := range tap.adverts(true) {
		if a := f.payload(); a[1] != 3 && a[5] == 255 {
			t.Errorf("goodbye of vhid %d", a[1])
		}
	}
	n.waitState(15*time.Second, "MASTER", "stays", "comes", "other", "skew")
	if g := n.group("goes"); g.Name != "" {
		t.Errorf("the group that was to go is there: %+v", g)
	}
	for _, g := range []string{"stays", "other", "skew"} {
		if got := n.log.transitions(g); strings.Join(got, " ") != "BACKUP MASTER" {
			t.Errorf("%s went through %v", g, got)
		}
	}
}

// differences are the lines that only one of two texts has.
func differences(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	var d strings.Builder
	for _, l := range x {
		if i := slices.Index(y, l); i >= 0 {
			y = slices.Delete(y, i, i+1)
		} else {
			d.WriteString("- " + l + "\n")
		}
	}
	for _, l := range y {
		d.WriteString("+ " + l + "\n")
	}
	return d.String()
}

// A group whose carpdev has been deleted can be destroyed like any other.
func TestAGroupWithoutItsCarpdevCanBeDestroyed(t *testing.T) {
	t.Parallel()
	n := newPair(t).a
	n.bare(t)
	n.line(t, "ifconfig carp1 vhid 1 pass password carpdev lan0 10.0.0.1/24")
	n.line(t, "ifconfig carp2 vhid 2 pass password carpdev wan0 203.0.113.1/24")
	n.waitState(15*time.Second, "MASTER", "carp1", "carp2")
	n.ns.Exec("ip", "link", "del", "wan0")
	n.waitState(10*time.Second, "INIT", "carp2")
	n.line(t, "ifconfig carp2 destroy")
	if s := n.status(); len(s.Groups) != 1 || s.Groups[0].State != "MASTER" {
		t.Errorf("groups: %+v", s.Groups)
	}
	if _, err := os.Stat(filepath.Join(n.pin, "wan0")); !os.IsNotExist(err) {
		t.Errorf("its pins are still there: %v", err)
	}
}
