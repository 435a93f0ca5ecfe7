package ct

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// golden reads a file of hexadecimal bytes with # comments.
func golden(tb testing.TB, name string) []byte {
	tb.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		tb.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	return b
}

func TestCreateIsTheBytesOfTheHeaderFiles(t *testing.T) {
	f := flow(unix.IPPROTO_TCP, "10.0.0.2:40000", "203.0.113.9:443")
	f.Reply.Dst, f.Reply.DstPort = addr("192.0.2.1"), 61000
	f.Mark = 5
	f.TCP.FlagsOrig, f.TCP.FlagsReply = 0, 0x70 // ours are added, the kernel's own left out
	var m message
	m.create(7, &f)
	if want := golden(t, "create_tcp_snat.hex"); !bytes.Equal(m.b, want) {
		t.Errorf("got\n%swant\n%s", hex.Dump(m.b), hex.Dump(want))
	}
}

func TestEventsOfTheKernelAreUnderstood(t *testing.T) {
	client := Tuple{Src: addr("10.7.0.2"), Dst: addr("10.8.0.2"), Proto: unix.IPPROTO_TCP, SrcPort: 40001, DstPort: 8080}
	reply := Tuple{Src: addr("10.8.0.2"), Dst: addr("10.8.0.1"), Proto: unix.IPPROTO_TCP, SrcPort: 8080, DstPort: 61000}
	for name, want := range map[string]Event{
		"event_new.hex": {New, Flow{Orig: client, Reply: reply, Timeout: 120 * time.Second,
			TCP: TCP{State: TCPSynSent, WScaleOrig: 10, FlagsOrig: tcpWindowScale | tcpSACKPerm}}},
		"event_update.hex": {Update, Flow{Orig: client, Reply: reply, Status: SeenReply | Assured, Timeout: 432000 * time.Second,
			TCP: TCP{State: TCPEstablished, WScaleOrig: 10, WScaleReply: 10,
				FlagsOrig: tcpWindowScale | tcpSACKPerm, FlagsReply: tcpWindowScale | tcpSACKPerm}}},
		"event_destroy.hex": {Destroy, Flow{Orig: client, Reply: reply, Status: SeenReply | Assured}},
	} {
		h, body, rest, ok := next(golden(t, name))
		if !ok || len(rest) != 0 {
			t.Fatalf("%s: not one message", name)
		}
		var e Event
		var r record
		if !e.decode(h, body, &r) {
			t.Fatalf("%s: no event", name)
		}
		if e.Change == Destroy { // which protocol information it has is up to the kernel
			e.Flow.TCP, e.Flow.Timeout = TCP{}, 0
		}
		if e != want {
			t.Errorf("%s: got  %+v\nwant %+v", name, e, want)
		}
	}
}

func TestFlowsOfOtherZonesAndProtocolsAreLeftOut(t *testing.T) {
	f := flow(unix.IPPROTO_UDP, "10.0.0.1:1", "10.0.0.2:2")
	var r record
	var m message
	m.create(1, &f)
	if !r.decode(m.b[nlmsgLen:]) || r.Flow != f {
		t.Errorf("got %+v, want %+v", r.Flow, f)
	}
	m.u16(ctaZone, 0)
	if !r.decode(m.b[nlmsgLen:]) {
		t.Error("zone 0 is refused")
	}
	m.u16(ctaZone, 3)
	if r.decode(m.b[nlmsgLen:]) {
		t.Error("zone 3 is taken")
	}
	for _, bad := range []Tuple{
		f.Orig.with(func(t *Tuple) { t.Proto = unix.IPPROTO_SCTP }),
		f.Orig.with(func(t *Tuple) { t.Dst = addr("::1") }),
		f.Orig.with(func(t *Tuple) { t.Proto = unix.IPPROTO_ICMPV6 }),
		f.Orig.with(func(t *Tuple) { t.Src = netip.Addr{} }),
		{},
	} {
		if bad.valid() == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

func (t Tuple) with(change func(*Tuple)) Tuple { change(&t); return t }

func TestInverseOfTheInverse(t *testing.T) {
	for name, f := range every() {
		if got := f.Orig.Inverse().Inverse(); got != f.Orig {
			t.Errorf("%s: got %v, want %v", name, got, f.Orig)
		}
	}
}

func TestTranslationIsReadFromTheTuples(t *testing.T) {
	for _, c := range []struct {
		name       string
		snat, dnat string
	}{
		{"tcpv4", "", ""},
		{"tcpv4 snat", "192.0.2.1:61000", ""},
		{"udpv6 dnat", "", "[fd09::7]:8443"},
		{"udpv4 snat and dnat", "192.0.2.1:61000", "10.9.0.7:8443"},
		{"icmp", "", ""},
		{"icmp snat of the id only", "10.0.0.2:4711", ""},
		{"icmp dnat", "", "10.9.0.7:0"},
	} {
		f := every()[c.name]
		show := func(a netip.Addr, port uint16, ok bool) string {
			if !ok {
				return ""
			}
			return netip.AddrPortFrom(a, port).String()
		}
		if got := show(f.SNAT()); got != c.snat {
			t.Errorf("%s: snat: got %q, want %q", c.name, got, c.snat)
		}
		if got := show(f.DNAT()); got != c.dnat {
			t.Errorf("%s: dnat: got %q, want %q", c.name, got, c.dnat)
		}
	}
}

// FuzzDatagram feeds everything that reads from the kernel.
func FuzzDatagram(f *testing.F) {
	for _, name := range []string{"event_new.hex", "event_update.hex", "event_destroy.hex", "create_tcp_snat.hex"} {
		f.Add(golden(f, name))
	}
	f.Add(bytes.Repeat([]byte{0}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		messages := 0
		for rest := b; ; messages++ {
			h, body, r, ok := next(rest)
			if !ok {
				break
			}
			if len(r) >= len(rest) {
				t.Fatal("no progress")
			}
			rest = r
			errno(body)
			var e Event
			var rec record
			if e.decode(h, body, &rec) {
				if err := e.Flow.Orig.valid(); err != nil {
					t.Fatalf("decoded what cannot be: %v", err)
				}
				e.Flow.SNAT()
				e.Flow.DNAT()
			}
		}
	})
}

// FuzzRoundTrip encodes a flow without translation and reads it again.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1}, []byte{10, 0, 0, 2}, uint8(6), uint16(1), uint16(2), uint32(3), uint8(6), uint16(9))
	f.Add(make([]byte, 16), make([]byte, 16), uint8(58), uint16(1), uint16(128<<8), uint32(0), uint8(2), uint16(1))
	f.Fuzz(func(t *testing.T, src, dst []byte, proto uint8, sport, dport uint16, mark uint32, bits uint8, secs uint16) {
		s, _ := netip.AddrFromSlice(src)
		d, _ := netip.AddrFromSlice(dst)
		w := Flow{Orig: Tuple{Src: s, Dst: d, Proto: proto, SrcPort: sport, DstPort: dport}, Mark: mark,
			Status: Status(bits) & (SeenReply | Assured), Timeout: time.Duration(max(secs, 1)) * time.Second}
		w.Reply = w.Orig.Inverse()
		if w.valid() != nil {
			return // never encoded
		}
		if proto == unix.IPPROTO_TCP {
			w.TCP = TCP{State: TCPState(bits>>3)%TCPSynSent2 + 1, WScaleOrig: bits, WScaleReply: ^bits,
				FlagsOrig: tcpFlagsInjected | bits&tcpCloseInit, FlagsReply: tcpFlagsInjected}
		}
		var m message
		m.create(1, &w)
		_, body, rest, ok := next(m.b)
		var r record
		if !ok || len(rest) != 0 || !r.decode(body) || r.Flow != w {
			t.Errorf("got  %+v\nwant %+v", r.Flow, w)
		}
	})
}
