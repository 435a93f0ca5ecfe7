package test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"

	"github.com/xcarp/xcarp/internal/daemon"
	"github.com/xcarp/xcarp/internal/nstest"
)

// Rows of the table of faults are tests named TestFaultNN_Case. What they find out
// they say with figure: `make faults` prints it beside the row.
func figure(tb testing.TB, key, format string, arg ...any) {
	tb.Helper()
	tb.Attr(strings.ReplaceAll(key, " ", "_"), fmt.Sprintf(format, arg...))
}

// A watch remembers how nodes stood before something was done to them.
type watch struct {
	t      *testing.T
	nodes  []*node
	before map[*node]*daemon.Status
	states map[*node]int // transitions of all groups so far
	lines  map[*node]int // of the log
	began  time.Time
}

func newWatch(t *testing.T, nodes ...*node) *watch {
	t.Helper()
	w := &watch{t: t, nodes: nodes, began: time.Now(),
		before: map[*node]*daemon.Status{}, states: map[*node]int{}, lines: map[*node]int{}}
	for _, n := range nodes {
		if w.before[n] = n.status(); w.before[n] == nil {
			t.Fatalf("%s does not answer", n.name)
		}
		w.states[n] = n.transitions()
		w.lines[n] = strings.Count(n.log.String(), "\n")
	}
	return w
}

// transitions counts the changes of state of all groups.
func (n *node) transitions() int {
	sum := 0
	for _, g := range []string{"lan", "wan"} {
		sum += len(n.log.transitions(g))
	}
	return sum
}

func groupOf(s *daemon.Status, name string) daemon.GroupStatus {
	for _, g := range s.Groups {
		if g.Name == name {
			return g
		}
	}
	return daemon.GroupStatus{}
}

// unmoved asserts that no group of the nodes changed its state, or took over in
// between, and that the logs stayed short.
func (w *watch) unmoved(logLines int) {
	w.t.Helper()
	var roles []string
	for _, n := range w.nodes {
		now := n.status()
		if now == nil {
			w.t.Errorf("%s does not answer", n.name)
			continue
		}
		for _, before := range w.before[n].Groups {
			g := groupOf(now, before.Name)
			if g.State != before.State || g.Term != before.Term {
				w.t.Errorf("%s of %s is %s with term %d (%s), want %s with term %d", g.Name, n.name,
					g.State, g.Term, g.Reason, before.State, before.Term)
			}
			if g.Name == "lan" {
				roles = append(roles, n.name+" "+before.State)
			}
		}
		if got := n.transitions() - w.states[n]; got != 0 {
			w.t.Errorf("%s: %d changes of state, want none", n.name, got)
		}
		logged := strings.Split(n.log.String(), "\n")[w.lines[n]:]
		other := slices.DeleteFunc(slices.Clone(logged), func(s string) bool { return s == "" || strings.Contains(s, `"adverts refused"`) })
		if len(other) > logLines {
			w.t.Errorf("%s: %d lines of log, want at most %d", n.name, len(other), logLines)
		}
		hints := map[string]bool{} // one for each group and reason
		for _, s := range logged {
			if m := refusedLine.FindString(s); m != "" && hints[m] {
				w.t.Errorf("%s: said twice: %s", n.name, s)
			} else if m != "" {
				hints[m] = true
			}
		}
	}
	figure(w.t, "roles", "%s before and after, 0 transitions", strings.Join(roles, ", "))
}

// refusedLine is the hint at why adverts are refused.
var refusedLine = regexp.MustCompile(`"adverts refused","group":"[^"]*","vhid":[0-9]+,"reason":"[^"]*"`)

// dropped returns how many adverts of a group were refused since, by reason.
func (w *watch) dropped(n *node, group string) map[string]int {
	return since(groupOf(w.before[n], group).Drops, n.group(group).Drops)
}

// strangers returns what was counted on the carpdev since for no group.
func (w *watch) strangers(n *node, carpdev string) map[string]int {
	of := func(s *daemon.Status) map[string]uint64 {
		if s != nil {
			for _, d := range s.Carpdevs {
				if d.Name == carpdev {
					return d.Packets
				}
			}
		}
		return nil
	}
	return since(of(w.before[n]), of(n.status()))
}

func since(before, now map[string]uint64) map[string]int {
	m := map[string]int{}
	for why, n := range now {
		if d := int(n - before[why]); d != 0 {
			m[why] = d
		}
	}
	return m
}

func total(m map[string]int) int {
	sum := 0
	for _, n := range m {
		sum += n
	}
	return sum
}

// counted waits until as many were counted as want has, and asserts that they are
// those, and no others.
func counted(t *testing.T, what string, got func() map[string]int, want map[string]int) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for total(got()) < total(want) && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond) // counters are no event
	}
	if m := got(); !maps.Equal(m, want) {
		t.Errorf("%s: counted %v, want %v", what, m, want)
	}
	figure(t, what, "%v", strings.TrimPrefix(fmt.Sprint(want), "map"))
}

// refused asserts what the group's counters of refused adverts rose by.
func (w *watch) refused(n *node, group string, want map[string]int) {
	w.t.Helper()
	counted(w.t, n.name+" "+group, func() map[string]int { return w.dropped(n, group) }, want)
}

// An advert is a whole frame that carries one, as captured or as somebody forged it.
type advert []byte

func (f advert) is4() bool { return binary.BigEndian.Uint16(f[12:]) == 0x0800 }

// header and payload of the IP packet.
func (f advert) header() []byte {
	if f.is4() {
		return f[14 : 14+int(f[14]&15)*4]
	}
	return f[14:54]
}

func (f advert) payload() []byte { return f[14+len(f.header()):] }

// edit returns a copy that was changed, with checksums that are right again: the
// one of CARP over its 36 bytes.
func (f advert) edit(change func(ip, carp []byte)) advert {
	return f.forge(func(ip, carp []byte) {
		change(ip, carp)
		carp[6], carp[7] = 0, 0
		binary.BigEndian.PutUint16(carp[6:], ^onesSum(carp[:36]))
	})
}

// forge returns a copy that was changed; only the checksum of IP is right again.
func (f advert) forge(change func(ip, carp []byte)) advert {
	f = slices.Clone(f)
	ip := f.header()
	change(ip, f.payload())
	if f.is4() {
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], ^onesSum(ip))
	}
	return f
}

func onesSum(b []byte) uint16 {
	var n uint32
	for i := 0; i+1 < len(b); i += 2 {
		n += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for n>>16 != 0 {
		n = n&0xffff + n>>16
	}
	return uint16(n)
}

// badDigest is the same advert from somebody who does not know the password.
func badDigest(_, carp []byte) { carp[20] ^= 0x55 }

// adverts returns those that the node sent since the tap began, in order.
func (t *tap) adverts(is4 bool) []advert {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []advert
	for _, p := range t.from {
		f := advert(p.Data())
		switch ip := p.NetworkLayer().(type) {
		case *layers.IPv4:
			if is4 && ip.Protocol == layers.IPProtocolVRRP {
				all = append(all, f)
			}
		case *layers.IPv6:
			if !is4 && ip.NextHeader == layers.IPProtocolVRRP {
				all = append(all, f)
			}
		}
	}
	return all
}

// capture waits for an advert of the node in each family.
func (t *tap) capture(vhid byte) (v4, v6 advert) {
	t.tb.Helper()
	nstest.Eventually(t.tb, 10*time.Second, "an advert in each family", func() bool {
		other := func(f advert) bool { return f.payload()[1] != vhid }
		a, b := slices.DeleteFunc(t.adverts(true), other), slices.DeleteFunc(t.adverts(false), other)
		if len(a) > 0 && len(b) > 0 {
			v4, v6 = a[len(a)-1], b[len(b)-1]
		}
		return v4 != nil && v6 != nil
	})
	return v4, v6
}

// An attacker sits between the nodes and the LAN, and speaks to each of them.
type attacker struct {
	*pair
	t      *testing.T
	taps   map[*node]*tap
	v4, v6 advert // captured from the master
}

// attack brings a pair up and captures adverts of its master.
func attack(t *testing.T) *attacker {
	t.Helper()
	p := newPair(t)
	p.calm()
	return p.attacker(t)
}

// calm brings the pair up and waits until a is master, b hears it, and both have
// said so for two intervals.
func (p *pair) calm() {
	p.tb.Helper()
	p.up()
	was, heard, since := -1, [2]uint64{}, time.Now()
	nstest.Eventually(p.tb, 40*time.Second, "a quiet pair", func() bool {
		defer time.Sleep(20 * time.Millisecond) // a status costs the daemon time
		a, b := p.a.group("lan"), p.b.group("lan")
		wa, wb := p.a.group("wan"), p.b.group("wan")
		now := p.a.transitions() + p.b.transitions()
		if a.State != "MASTER" || wa.State != "MASTER" || b.State != "BACKUP" || wb.State != "BACKUP" || now != was {
			was, since, heard = now, time.Now(), [2]uint64{b.Received, wb.Received}
			return false
		}
		return time.Since(since) > 1500*time.Millisecond && b.Received >= heard[0]+2 && wb.Received >= heard[1]+2
	})
	p.a.waitInSync(15 * time.Second)
	p.b.waitInSync(15 * time.Second)
}

func (p *pair) attacker(t *testing.T) *attacker {
	t.Helper()
	a := &attacker{pair: p, t: t, taps: map[*node]*tap{}}
	for _, n := range []*node{p.a, p.b} {
		a.taps[n] = newTap(t, p.sw, n.lanPort)
	}
	a.v4, a.v6 = a.taps[p.a].capture(lanVHID)
	return a
}

// tell sends frames to both nodes.
func (a *attacker) tell(frames ...advert) {
	for _, tap := range a.taps {
		for _, f := range frames {
			tap.send(f)
		}
	}
}

// both asserts that each node refused these.
func (a *attacker) both(w *watch, want map[string]int) {
	a.t.Helper()
	for _, n := range []*node{a.a, a.b} {
		w.refused(n, "lan", want)
	}
}
