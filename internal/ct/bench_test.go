package ct

import (
	"fmt"
	"net"
	"testing"
	"time"

	conntrack "github.com/florianl/go-conntrack"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// batchFlows is n established TCP connections, the round-th of their kind.
func batchFlows(n int, nat bool) []Flow {
	flows := make([]Flow, n)
	for i := range flows {
		flows[i] = flow(unix.IPPROTO_TCP, fmt.Sprintf("10.%d.%d.%d:40000", i>>16, i>>8&255, i&255), "203.0.113.9:443")
		if nat {
			flows[i].Reply.Dst, flows[i].Reply.DstPort = addr("192.0.2.1"), uint16(1024+i)
		}
	}
	return flows
}

func opsOf(c Change, flows []Flow) []Op {
	ops := make([]Op, len(flows))
	for i := range flows {
		ops[i] = Op{c, flows[i]}
	}
	return ops
}

const benchFlows = 4096

// timed returns what f takes per flow.
func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start) / benchFlows
}

// BenchmarkApply is microseconds per entry of the kinds of change, without a
// listener, and the creation by go-conntrack in the same run, interleaved.
func BenchmarkApply(b *testing.B) {
	table, ns := open(b, Options{})
	nfct := foreign(b, ns)
	for _, kind := range []struct {
		name string
		nat  bool
	}{{"plain", false}, {"snat", true}} {
		b.Run(kind.name, func(b *testing.B) {
			flows := batchFlows(benchFlows, kind.nat)
			create, update, destroy := opsOf(New, flows), opsOf(Update, flows), opsOf(Destroy, flows)
			failed := func(i int, err error) { b.Fatal(i, err) }
			cons := make([]conntrack.Con, len(flows))
			for i := range flows {
				cons[i] = foreignCon(&flows[i])
			}
			var c, again, u, d, theirs time.Duration
			b.ReportAllocs()
			for b.Loop() {
				c += timed(func() { table.Apply(create, failed) })
				again += timed(func() { table.Apply(create, failed) })
				u += timed(func() { table.Apply(update, failed) })
				d += timed(func() { table.Apply(destroy, failed) })
				theirs += timed(func() {
					for i := range cons {
						if err := nfct.Create(conntrack.Conntrack, conntrack.IPv4, cons[i]); err != nil {
							b.Fatal(err)
						}
					}
				})
				table.Apply(destroy, failed)
			}
			us := func(t time.Duration) float64 { return t.Seconds() * 1e6 / float64(b.N) }
			b.ReportMetric(us(c), "new-us/entry")
			b.ReportMetric(us(again), "again-us/entry")
			b.ReportMetric(us(u), "update-us/entry")
			b.ReportMetric(us(d), "destroy-us/entry")
			b.ReportMetric(us(theirs), "florianl-us/entry")
			b.ReportMetric(us(theirs)/us(c), "florianl/ours")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkDump is microseconds per entry, beside go-conntrack's dump of the
// same table.
func BenchmarkDump(b *testing.B) {
	table, ns := open(b, Options{})
	nfct := foreign(b, ns)
	apply(b, table, New, batchFlows(benchFlows, false)...)
	var ours, theirs time.Duration
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		ours += timed(func() {
			if err := table.Dump(b.Context(), func(*Flow) error { n++; return nil }); err != nil {
				b.Fatal(err)
			}
		})
		theirs += timed(func() {
			cons, err := nfct.Dump(conntrack.Conntrack, conntrack.IPv4)
			if err != nil || len(cons) != n || n != benchFlows {
				b.Fatal(n, len(cons), err)
			}
		})
	}
	us := func(t time.Duration) float64 { return t.Seconds() * 1e6 / float64(b.N) }
	b.ReportMetric(us(ours), "us/entry")
	b.ReportMetric(us(theirs), "florianl-us/entry")
	b.ReportMetric(us(theirs)/us(ours), "florianl/ours")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkDecodeEvent is what one event costs us after the kernel.
func BenchmarkDecodeEvent(b *testing.B) {
	msg := golden(b, "event_update.hex")
	var e Event
	var r record
	b.ReportAllocs()
	for b.Loop() {
		h, body, _, _ := next(msg)
		if !e.decode(h, body, &r) {
			b.Fatal("no event")
		}
	}
}

func foreign(tb testing.TB, ns *nstest.NS) *conntrack.Nfct {
	tb.Helper()
	var nfct *conntrack.Nfct
	ns.Must(func() (err error) {
		nfct, err = conntrack.Open(&conntrack.Config{})
		return err
	})
	tb.Cleanup(func() { nfct.Close() })
	return nfct
}

// foreignCon is the flow in go-conntrack's terms, as far as it has them: of a
// translation the address.
func foreignCon(f *Flow) conntrack.Con {
	tuple := func(t Tuple) *conntrack.IPTuple {
		src, dst := net.IP(t.Src.AsSlice()), net.IP(t.Dst.AsSlice())
		return &conntrack.IPTuple{Src: &src, Dst: &dst,
			Proto: &conntrack.ProtoTuple{Number: &t.Proto, SrcPort: &t.SrcPort, DstPort: &t.DstPort}}
	}
	timeout, status := uint32(f.Timeout.Seconds()), uint32(f.Status)|statusConfirmed
	state, flags, mask := uint8(f.TCP.State), uint8(tcpFlagsInjected), uint8(tcpFlagsMask)
	tcpFlags := &conntrack.TCPFlags{Flags: &flags, Mask: &mask}
	c := conntrack.Con{Origin: tuple(f.Orig), Reply: tuple(f.Orig.Inverse()), Timeout: &timeout, Status: &status,
		ProtoInfo: &conntrack.ProtoInfo{TCP: &conntrack.TCPInfo{State: &state,
			WScaleOrig: &f.TCP.WScaleOrig, WScaleRepl: &f.TCP.WScaleReply, FlagsOrig: tcpFlags, FlagsReply: tcpFlags}}}
	if a, _, ok := f.SNAT(); ok {
		ip := net.IP(a.AsSlice())
		c.NatSrc = &conntrack.Nat{IPMin: &ip, IPMax: &ip}
	}
	return c
}
