package sync

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/ct"
)

// samples are one flow of each shape, with the bytes it must become. The bytes
// are by hand, from the picture in record.go.
func samples() []struct {
	name string
	flow ct.Flow
	del  bool
	want string
} {
	v4 := ct.Tuple{Src: netip.MustParseAddr("10.0.0.2"), Dst: netip.MustParseAddr("198.51.100.7"), Proto: protoUDP, SrcPort: 1025, DstPort: 53}
	v6 := ct.Tuple{Src: netip.MustParseAddr("2001:db8::2"), Dst: netip.MustParseAddr("2001:db8:1::7"), Proto: protoTCP, SrcPort: 1025, DstPort: 443}
	ping := ct.Tuple{Src: v4.Src, Dst: v4.Dst, Proto: protoICMP, SrcPort: 0x1234, DstPort: 8 << 8}
	snat := v4
	snat.Proto = protoTCP
	translated := snat.Inverse()
	translated.Dst, translated.DstPort = netip.MustParseAddr("203.0.113.1"), 20000
	return []struct {
		name string
		flow ct.Flow
		del  bool
		want string
	}{
		{"plain UDP", ct.Flow{Orig: v4, Reply: v4.Inverse(), Timeout: 30 * time.Second}, false,
			"01" + "0a000002" + "c6336407" + "0401" + "0035" + "1e"},
		{"TCP with SNAT, mark and window scale", ct.Flow{Orig: snat, Reply: translated, Status: ct.SeenReply | ct.Assured, Mark: 0x10,
			TCP: ct.TCP{State: ct.TCPEstablished, WScaleOrig: 7, WScaleReply: 8, FlagsOrig: 0x0a, FlagsReply: 0x0b}, Timeout: 432000 * time.Second}, false,
			"f0" + "0a000002" + "c6336407" + "0401" + "0035" + "0a" + "cb007101" + "4e20" + "00000010" + "03" + "78" + "0a0b" + "80af1a"},
		{"TCP over IPv6", ct.Flow{Orig: v6, Reply: v6.Inverse(), Status: ct.SeenReply, TCP: ct.TCP{State: ct.TCPSynRecv}, Timeout: 60 * time.Second}, false,
			"44" + "20010db8000000000000000000000002" + "20010db8000100000000000000000007" + "0401" + "01bb" + "02" + "00" + "0000" + "3c"},
		{"ping", ct.Flow{Orig: ping, Reply: ping.Inverse(), Status: ct.SeenReply, Timeout: 29 * time.Second}, false,
			"42" + "0a000002" + "c6336407" + "1234" + "0800" + "1d"},
		{"a delete", ct.Flow{Orig: v4, Reply: v4.Inverse()}, true,
			"09" + "0a000002" + "c6336407" + "0401" + "0035"},
	}
}

func TestRecord(t *testing.T) {
	for _, tt := range samples() {
		t.Run(tt.name, func(t *testing.T) {
			b := appendRecord(nil, &tt.flow, tt.del)
			if got := hex.EncodeToString(b); got != tt.want {
				t.Errorf("record: got %s, want %s", got, tt.want)
			}
			var f ct.Flow
			del, n, err := parseRecord(append(b, 0xff), &f)
			if err != nil || del != tt.del || n != len(b) || f != tt.flow {
				t.Errorf("parsed %d of %d bytes: got %+v, %v, %v, want %+v", n, len(b), f, del, err, tt.flow)
			}
			for i := range b {
				if _, _, err := parseRecord(b[:i], &f); !errors.Is(err, errShort) {
					t.Errorf("%d of %d bytes: got %v, want %v", i, len(b), err, errShort)
				}
			}
			if len(b) > maxRecord {
				t.Errorf("record of %d bytes, maxRecord is %d", len(b), maxRecord)
			}
		})
	}
}

func TestUnencodableFlows(t *testing.T) {
	a4, a6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fe80::1%eth0")
	for _, tt := range []struct {
		name string
		o, r ct.Tuple
	}{
		{"no address", ct.Tuple{Proto: protoUDP}, ct.Tuple{Proto: protoUDP}},
		{"GRE", ct.Tuple{Src: a4, Dst: a4, Proto: 47}, ct.Tuple{Src: a4, Dst: a4, Proto: 47}},
		{"a zone", ct.Tuple{Src: a6, Dst: a6, Proto: protoUDP}, ct.Tuple{Src: a6, Dst: a6, Proto: protoUDP}},
		{"two families", ct.Tuple{Src: a4, Dst: netip.MustParseAddr("2001:db8::1"), Proto: protoUDP}, ct.Tuple{Src: a4, Dst: a4, Proto: protoUDP}},
	} {
		if encodable(&ct.Flow{Orig: tt.o, Reply: tt.r}) {
			t.Errorf("%s: encodable", tt.name)
		}
	}
}

func FuzzRecord(f *testing.F) {
	for _, s := range samples() {
		f.Add(appendRecord(nil, &s.flow, s.del))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var x, y ct.Flow
		del, n, err := parseRecord(b, &x)
		if err != nil {
			return
		}
		if n < minRecord-1 || n > len(b) {
			t.Fatalf("took %d of %d bytes", n, len(b))
		}
		c := appendRecord(nil, &x, del)
		if del2, m, err := parseRecord(c, &y); err != nil || m != len(c) || del2 != del || x != y {
			t.Fatalf("%x became %x: %+v, then %+v, %v", b[:n], c, x, y, err)
		}
	})
}

func FuzzMessages(f *testing.F) {
	var a ack
	a.mark(3)
	a.mark(70)
	h := beat{want: 1, serve: 2, phase: bulkEnd, count: 3, dirty: 4, heard: 5, flows: 6, roles: []GroupRole{{Name: "wan", State: 2, Term: 9, Demotion: -1, Ears: 2, Targets: []netip.Addr{addrB.Addr()}, Marks: []Mark{{7, 8, 9}}}}, keys: []byte{0x81, 0x8b}}
	f.Add(appendBeat(appendAck(nil, &a), &h))
	f.Add([]byte{9, 0, 1, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			kind, body, rest, err := nextMessage(b)
			if err != nil {
				return
			}
			b = rest
			switch kind {
			case msgAck:
				var x, y ack
				if parseAck(body, &x) == nil {
					_, again, _, _ := nextMessage(appendAck(nil, &x))
					if err := parseAck(again, &y); err != nil || x != y {
						t.Fatalf("ack %x: %+v, then %+v, %v", body, x, y, err)
					}
				}
			case msgBeat:
				var x, y beat
				if parseBeat(body, &x) == nil {
					_, again, _, _ := nextMessage(appendBeat(nil, &x))
					if err := parseBeat(again, &y); err != nil || !bytes.HasPrefix(body, again) {
						t.Fatalf("heartbeat %x: %+v, then %+v, %v", body, x, y, err)
					}
				}
			}
		}
	})
}

func FuzzGreeting(f *testing.F) {
	g := greeting{1, 2, 3, "a", "b"}
	f.Add(g.marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		var g greeting
		if g.parse(b, "a", "b") == nil && !bytes.Equal(g.marshal(), b) {
			t.Fatalf("greeting %x became %x", b, g.marshal())
		}
	})
}

// FuzzFrame throws datagrams at a Mirror, as a peer without the key can.
func FuzzFrame(f *testing.F) {
	n := newNetwork()
	_, first, err := initiate(&[32]byte{1}, greeting{7, 8, 9, "a", "b"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(first)
	f.Add([]byte{frameHello})
	f.Add(append([]byte{frameData}, make([]byte, 40)...))
	f.Add(append([]byte{frameResp}, make([]byte, 80)...))
	m, err := New(Config{Node: "b", Key: [32]byte{1}, Peers: map[string]netip.AddrPort{"a": addrA}, Table: newMemTable(), Conn: n.listen(addrB)})
	if err != nil {
		f.Fatal(err)
	}
	plain := make([]byte, 0, 1<<16)
	f.Fuzz(func(t *testing.T, b []byte) {
		m.frame(b, addrA, plain)
		if s := m.Status()[0]; s.Up {
			t.Fatalf("%x brought a session up", b)
		}
	})
}

func TestAck(t *testing.T) {
	var a ack
	in := map[uint64]bool{}
	for _, s := range []uint64{1, 2, 5, 64, 65, 66, 130, 400, 513, 514, 900, 5000, 5001} {
		a.mark(s)
		in[s] = true
		var b ack
		_, body, _, err := nextMessage(appendAck(nil, &a))
		if err != nil || parseAck(body, &b) != nil || a != b {
			t.Fatalf("round trip at %d: %+v, %v", s, b, err)
		}
		for q := uint64(1); q < 5100; q++ {
			want := in[q] && q+ackBits >= a.top
			if got := b.has(q); got != want {
				t.Fatalf("top %d, frame %d: got %v, want %v", s, q, got, want)
			}
		}
	}
}
