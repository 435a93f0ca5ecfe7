package ct

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	conntrack "github.com/florianl/go-conntrack"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// open opens the table of a namespace of its own.
func open(tb testing.TB, o Options) (*Table, *nstest.NS) {
	tb.Helper()
	ns := nstest.New(tb, "ct")
	return openIn(tb, ns, o), ns
}

func openIn(tb testing.TB, ns *nstest.NS, o Options) *Table {
	tb.Helper()
	var table *Table
	ns.Must(func() (err error) {
		table, err = Open(o)
		return err
	})
	tb.Cleanup(func() {
		if err := table.Close(); err != nil {
			tb.Error(err)
		}
	})
	return table
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// flow is a connection without translation.
func flow(proto uint8, src, dst string) Flow {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	t := Tuple{Src: s.Addr(), Dst: d.Addr(), Proto: proto, SrcPort: s.Port(), DstPort: d.Port()}
	f := Flow{Orig: t, Reply: t.Inverse(), Status: SeenReply | Assured, Timeout: 600 * time.Second}
	if proto == unix.IPPROTO_TCP {
		f.TCP = TCP{State: TCPEstablished, WScaleOrig: 7, WScaleReply: 9,
			FlagsOrig: tcpFlagsInjected, FlagsReply: tcpFlagsInjected}
	}
	return f
}

func (f Flow) with(change func(*Flow)) Flow { change(&f); return f }

func apply(tb testing.TB, t *Table, c Change, flows ...Flow) {
	tb.Helper()
	var ops []Op
	for _, f := range flows {
		ops = append(ops, Op{c, f})
	}
	t.Apply(ops, func(i int, err error) {
		tb.Helper()
		tb.Errorf("operation %d: %v", i, err)
	})
}

func dump(tb testing.TB, t *Table) map[Tuple]Flow {
	tb.Helper()
	got := map[Tuple]Flow{}
	err := t.Dump(tb.Context(), func(f *Flow) error {
		got[f.Key()] = *f
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return got
}

// holds fails unless the table holds exactly these flows.
func holds(tb testing.TB, t *Table, want ...Flow) {
	tb.Helper()
	got := dump(tb, t)
	if len(got) != len(want) {
		tb.Errorf("got %d flows, want %d", len(got), len(want))
	}
	for _, w := range want {
		g := got[w.Key()]
		if d := w.Timeout - g.Timeout; d < 0 || d > 5*time.Second {
			tb.Errorf("%v: got timeout %v, want %v", w.Key(), g.Timeout, w.Timeout)
		}
		g.Timeout = w.Timeout
		if g != w {
			tb.Errorf("got  %+v\nwant %+v", g, w)
		}
	}
}

// every is one flow of each kind that we carry.
func every() map[string]Flow {
	all := map[string]Flow{}
	for _, v := range []struct{ name, client, server, public, inner string }{
		{"v4", "10.0.0.2:40000", "203.0.113.9:443", "192.0.2.1:61000", "10.9.0.7:8443"},
		{"v6", "[fd00::2]:40000", "[2001:db8::9]:443", "[2001:db8::1]:61000", "[fd09::7]:8443"},
	} {
		for proto, name := range map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"} {
			plain := flow(proto, v.client, v.server)
			public, inner := netip.MustParseAddrPort(v.public), netip.MustParseAddrPort(v.inner)
			snat := func(f *Flow) { f.Reply.Dst, f.Reply.DstPort = public.Addr(), public.Port() }
			dnat := func(f *Flow) { f.Reply.Src, f.Reply.SrcPort = inner.Addr(), inner.Port() }
			name += v.name
			all[name] = plain
			all[name+" snat"] = plain.with(snat)
			all[name+" snat, same port"] = plain.with(func(f *Flow) { f.Reply.Dst = public.Addr() })
			all[name+" snat, port only"] = plain.with(func(f *Flow) { f.Reply.DstPort = 5 })
			all[name+" dnat"] = plain.with(dnat)
			all[name+" dnat, port only"] = plain.with(func(f *Flow) { f.Reply.SrcPort = 8080 })
			all[name+" snat and dnat"] = plain.with(snat).with(dnat)
			all[name+" marked"] = plain.with(func(f *Flow) { f.Mark = 0xdeadbeef })
			all[name+" new"] = plain.with(func(f *Flow) {
				f.Status, f.Timeout = 0, 30*time.Second
				if f.TCP.State != 0 {
					f.TCP.State = TCPSynSent
				}
			})
		}
	}
	ping := flow(unix.IPPROTO_ICMP, "10.0.0.2:77", "203.0.113.9:2048")
	ping.Status = SeenReply
	all["icmp"] = ping
	all["icmp snat"] = ping.with(func(f *Flow) { f.Reply.Dst = addr("192.0.2.1") })
	all["icmp snat of the id"] = ping.with(func(f *Flow) { f.Reply.Dst, f.Reply.SrcPort = addr("192.0.2.1"), 4711 })
	all["icmp snat of the id only"] = ping.with(func(f *Flow) { f.Reply.SrcPort = 4711 })
	all["icmp dnat"] = ping.with(func(f *Flow) { f.Reply.Src = addr("10.9.0.7") })
	all["icmp timestamp"] = flow(unix.IPPROTO_ICMP, "10.0.0.2:77", "203.0.113.9:3328")
	ping6 := flow(unix.IPPROTO_ICMPV6, "[fd00::2]:77", "[2001:db8::9]:32768")
	all["icmpv6"] = ping6
	all["icmpv6 snat of the id"] = ping6.with(func(f *Flow) { f.Reply.Dst, f.Reply.SrcPort = addr("2001:db8::1"), 4711 })
	for s := TCPSynSent; s <= TCPSynSent2; s++ {
		all[fmt.Sprintf("tcp state %d", s)] = flow(unix.IPPROTO_TCP, "10.0.0.3:5", "203.0.113.9:80").with(func(f *Flow) { f.TCP.State = s })
	}
	return all
}

func TestEveryKindOfFlowComesBackAsItWasApplied(t *testing.T) {
	table, ns := open(t, Options{})
	for name, f := range every() {
		t.Run(name, func(t *testing.T) {
			apply(t, table, New, f)
			holds(t, table, f)
			reads(t, ns, f)
			apply(t, table, New, f) // again: an update
			apply(t, table, Update, f)
			holds(t, table, f)
			apply(t, table, Destroy, f)
			holds(t, table)
			apply(t, table, Update, f) // of nothing: a creation
			holds(t, table, f)
			apply(t, table, Destroy, bare(f.Orig))
			apply(t, table, Destroy, f) // again: no failure
			holds(t, table)
		})
	}
}

// bare is all that a Destroy must have.
func bare(orig Tuple) Flow { return Flow{Orig: orig} }

// reads fails unless florianl/go-conntrack and conntrack(8) see the flow, too.
func reads(tb testing.TB, ns *nstest.NS, f Flow) {
	tb.Helper()
	var nfct *conntrack.Nfct
	ns.Must(func() (err error) {
		nfct, err = conntrack.Open(&conntrack.Config{})
		return err
	})
	defer nfct.Close()
	fam := conntrack.IPv4
	if f.Orig.Src.Is6() {
		fam = conntrack.IPv6
	}
	cons, err := nfct.Dump(conntrack.Conntrack, fam)
	if err != nil || len(cons) != 1 {
		tb.Fatalf("go-conntrack dumps %d entries, %v; want 1", len(cons), err)
	}
	c := cons[0]
	for _, d := range []struct {
		got  *conntrack.IPTuple
		want Tuple
	}{{c.Origin, f.Orig}, {c.Reply, f.Reply}} {
		if g := foreignTuple(d.got); g != d.want {
			tb.Errorf("go-conntrack reads %v, want %v", g, d.want)
		}
	}
	if g := Status(*c.Status) & (SeenReply | Assured); g != f.Status {
		tb.Errorf("go-conntrack reads status %#x, want %#x", g, f.Status)
	}
	// IPS_SRC_NAT and IPS_DST_NAT: without them no packet is translated.
	_, _, snat := f.SNAT()
	_, _, dnat := f.DNAT()
	if g := *c.Status & 0x30; (g&0x10 != 0) != snat || (g&0x20 != 0) != dnat {
		tb.Errorf("kernel's NAT bits are %#x, want snat %t, dnat %t", g, snat, dnat)
	}
	var mark uint32
	if c.Mark != nil {
		mark = *c.Mark
	}
	if mark != f.Mark {
		tb.Errorf("go-conntrack reads mark %#x, want %#x", mark, f.Mark)
	}
	if f.Orig.Proto == unix.IPPROTO_TCP && TCPState(*c.ProtoInfo.TCP.State) != f.TCP.State {
		tb.Errorf("go-conntrack reads state %d, want %d", *c.ProtoInfo.TCP.State, f.TCP.State)
	}
	out := ns.Exec("conntrack", "-L", "-o", "extended", "-f", map[bool]string{true: "ipv4", false: "ipv6"}[f.Orig.Src.Is4()])
	want := []string{"src=" + f.Orig.Src.String(), "dst=" + f.Reply.Dst.String(), fmt.Sprintf("mark=%d", f.Mark)}
	if !f.Orig.isICMP() {
		want = append(want, fmt.Sprintf("sport=%d dport=%d", f.Orig.SrcPort, f.Orig.DstPort),
			fmt.Sprintf("sport=%d dport=%d", f.Reply.SrcPort, f.Reply.DstPort))
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			tb.Errorf("conntrack -L prints %q, want %q in it", out, w)
		}
	}
}

func foreignTuple(t *conntrack.IPTuple) Tuple {
	src, _ := netip.AddrFromSlice(*t.Src)
	dst, _ := netip.AddrFromSlice(*t.Dst)
	g := Tuple{Src: src.Unmap(), Dst: dst.Unmap(), Proto: *t.Proto.Number}
	p := t.Proto
	switch g.Proto {
	case unix.IPPROTO_ICMP:
		g.SrcPort, g.DstPort = *p.IcmpID, uint16(*p.IcmpType)<<8|uint16(*p.IcmpCode)
	case unix.IPPROTO_ICMPV6:
		g.SrcPort, g.DstPort = *p.Icmpv6ID, uint16(*p.Icmpv6Type)<<8|uint16(*p.Icmpv6Code)
	default:
		g.SrcPort, g.DstPort = *p.SrcPort, *p.DstPort
	}
	return g
}

func TestUpdateChangesWhatMayChange(t *testing.T) {
	est := flow(unix.IPPROTO_TCP, "10.0.0.2:1", "10.0.0.9:2").with(func(f *Flow) { f.Mark = 5 })
	public := addr("192.0.2.1")
	for _, c := range []struct {
		name             string
		before, op, want Flow
	}{
		{"the state goes on", est, est.with(func(f *Flow) { f.TCP.State, f.Timeout = TCPTimeWait, 20*time.Second }),
			est.with(func(f *Flow) { f.TCP.State, f.Timeout = TCPTimeWait, 20*time.Second })},
		{"the state never goes back, nor its timeout", est, est.with(func(f *Flow) { f.TCP.State, f.Timeout = TCPSynRecv, 20*time.Second }), est},
		{"an unknown state leaves the state", est, est.with(func(f *Flow) { f.TCP = TCP{} }), est},
		{"the flags that a copy needs are added", est, est.with(func(f *Flow) { f.TCP.FlagsOrig, f.TCP.FlagsReply = 0, 0x70 }), est},
		{"a new copy has them", Flow{}, est.with(func(f *Flow) { f.TCP.FlagsOrig, f.TCP.FlagsReply = 0, 0 }), est},
		{"status bits are never taken away", est, est.with(func(f *Flow) { f.Status = 0 }), est},
		{"status bits are added", est.with(func(f *Flow) { f.Status = 0 }), est, est},
		{"a mark goes to 0", est, est.with(func(f *Flow) { f.Mark = 0 }), est.with(func(f *Flow) { f.Mark = 0 })},
		{"a translation appears", est, est.with(func(f *Flow) { f.Reply.Dst = public }), est.with(func(f *Flow) { f.Reply.Dst = public })},
		{"a translation goes", est.with(func(f *Flow) { f.Reply.Dst = public }), est, est},
		{"a translated flow changes its mark", est.with(func(f *Flow) { f.Reply.Dst = public }),
			est.with(func(f *Flow) { f.Reply.Dst, f.Mark = public, 6 }), est.with(func(f *Flow) { f.Reply.Dst, f.Mark = public, 6 })},
		{"a connection that is over starts again", est.with(func(f *Flow) { f.TCP.State = TCPTimeWait }),
			est.with(func(f *Flow) { f.TCP.State, f.Status = TCPSynSent, 0 }), est.with(func(f *Flow) { f.TCP.State, f.Status = TCPSynSent, 0 })},
		{"a timeout under a second is one second", est, est.with(func(f *Flow) { f.Timeout = time.Millisecond }),
			est.with(func(f *Flow) { f.Timeout = time.Second })},
	} {
		for _, change := range []Change{New, Update} {
			t.Run(fmt.Sprintf("%s by %v", c.name, change), func(t *testing.T) {
				table, _ := open(t, Options{})
				if c.before != (Flow{}) {
					apply(t, table, New, c.before)
				}
				apply(t, table, change, c.op)
				holds(t, table, c.want)
			})
		}
	}
}

func TestAnEntryInTheWay(t *testing.T) {
	snat := func(src string) Flow {
		return flow(unix.IPPROTO_TCP, src, "203.0.113.9:80").with(func(f *Flow) {
			f.Reply.Dst, f.Reply.DstPort = addr("192.0.2.1"), 7000
		})
	}
	ours := snat("10.0.0.2:1")
	plain := flow(unix.IPPROTO_UDP, "10.0.0.2:1", "10.0.0.9:2")
	for name, c := range map[string]struct{ ours, other Flow }{
		"with our reply tuple":           {ours, snat("10.0.0.3:1")},
		"begun from the other side":      {plain, plain.with(func(f *Flow) { f.Orig, f.Reply = f.Reply, f.Orig })},
		"picked up after the NAT, alone": {ours, flow(unix.IPPROTO_TCP, "203.0.113.9:80", "192.0.2.1:7000")},
	} {
		for _, change := range []Change{New, Update} {
			t.Run(fmt.Sprintf("%s, %v", name, change), func(t *testing.T) {
				table, _ := open(t, Options{})
				other := c.other.with(func(f *Flow) { f.Status = 0 })
				apply(t, table, New, other)
				apply(t, table, change, c.ours)
				holds(t, table, c.ours)
				apply(t, table, Destroy, c.ours)

				other.Status = SeenReply | Assured
				apply(t, table, New, other)
				var got []error
				table.Apply([]Op{{New, flow(unix.IPPROTO_UDP, "10.3.0.1:1", "10.3.0.2:2")}, {change, c.ours}}, func(i int, err error) {
					if i != 1 {
						t.Errorf("operation %d: %v", i, err)
					}
					got = append(got, err)
				})
				if len(got) != 1 || !strings.Contains(got[0].Error(), unix.EEXIST.Error()) {
					t.Errorf("got %v, want one EEXIST", got)
				}
				holds(t, table, other, flow(unix.IPPROTO_UDP, "10.3.0.1:1", "10.3.0.2:2"))
			})
		}
	}
}

func TestOneApplyOfMany(t *testing.T) {
	table, ns := open(t, Options{})
	var ops []Op
	var want []Flow
	for i := range 1200 {
		f := flow(unix.IPPROTO_TCP, fmt.Sprintf("10.0.%d.%d:4000", i/250, 1+i%250), "203.0.113.9:80")
		if i%2 == 1 {
			f.Reply.Dst, f.Reply.DstPort = addr("192.0.2.1"), uint16(10000+i)
		}
		switch i % 3 {
		case 0: // twice in one batch
			ops = append(ops, Op{New, f.with(func(f *Flow) { f.TCP.State = TCPSynSent })})
		case 1:
			ops = append(ops, Op{New, f}, Op{Destroy, f})
		}
		change := New
		if i%5 == 0 {
			change = Update
		}
		ops = append(ops, Op{change, f})
		want = append(want, f)
	}
	gone := flow(unix.IPPROTO_UDP, "10.9.9.9:1", "10.9.9.8:2")
	ops = append(ops, Op{Update, gone}, Op{Destroy, gone})  // in this order, in one batch or not
	ops = append(ops, Op{New, Flow{}}, Op{Destroy, Flow{}}) // an empty tuple must not flush
	var failed []int
	table.Apply(ops, func(i int, err error) { failed = append(failed, i) })
	if len(failed) != 2 || failed[0] != len(ops)-2 || failed[1] != len(ops)-1 {
		t.Errorf("failed: got %v, want the last two of %d", failed, len(ops))
	}
	holds(t, table, want...)
	n, limit, err := table.Count()
	if err != nil || n != len(want) || limit < n {
		t.Errorf("count: got %d of %d, %v; want %d", n, limit, err, len(want))
	}
	if out := ns.Exec("conntrack", "-C"); strings.TrimSpace(out) != "1200" {
		t.Errorf("conntrack -C prints %s, want 1200", out)
	}
	// Everything once more, from a table that has it all.
	for i := range want {
		want[i].Mark = uint32(i)
	}
	apply(t, table, New, want...)
	holds(t, table, want...)
	apply(t, table, Destroy, want...)
	holds(t, table)
}

func TestDumpEndedEarlyLeavesTheNextWhole(t *testing.T) {
	table, _ := open(t, Options{})
	var want []Flow
	for i := range 600 {
		want = append(want, flow(unix.IPPROTO_UDP, fmt.Sprintf("10.0.0.1:%d", i+1), "10.0.0.2:53"))
	}
	apply(t, table, New, want...)
	calls := 0
	err := table.Dump(t.Context(), func(*Flow) error { calls++; return net.ErrClosed })
	if calls != 1 || err == nil {
		t.Errorf("got %d calls and %v, want 1 and the error", calls, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = table.Dump(ctx, func(*Flow) error { cancel(); return nil })
	if err == nil {
		t.Error("a cancelled dump returned no error")
	}
	holds(t, table, want...)
}

func TestSysctlsAreSetOnceAndReported(t *testing.T) {
	ns := nstest.New(t, "ct")
	ns.Sysctl("net/netfilter/nf_conntrack_events", "2")
	ns.Sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "0")
	for _, want := range []string{
		"map[net.netfilter.nf_conntrack_events:2 net.netfilter.nf_conntrack_tcp_be_liberal:0]", "map[]"} {
		ns.Must(func() error {
			changed, err := EnsureSysctls()
			if got := fmt.Sprint(changed); got != want {
				t.Errorf("changed: got %s, want %s", got, want)
			}
			return err
		})
	}
	ns.Sysctl("net/netfilter/nf_conntrack_events", "2")
	openIn(t, ns, Options{})
	if got := strings.TrimSpace(ns.Exec("cat", "/proc/sys/net/netfilter/nf_conntrack_events")); got != "1" {
		t.Errorf("nf_conntrack_events after Open: got %s, want 1", got)
	}
}
