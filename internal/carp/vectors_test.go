package carp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type vector struct {
	ID              string
	Impl            string
	Password        string
	VHID            uint8
	AdvSkew         uint8
	AdvBase         uint8
	Demote          uint8
	CounterHex      string `json:"counter_hex"`
	VIPs4           []netip.Addr
	VIPs6           []netip.Addr
	DropV6LinkLocal bool   `json:"drop_v6_link_local"`
	LLAddrHex       string `json:"lladdr_prefix_hex"`
	DigestHex       string `json:"digest_hex"`
	HeaderHex       string `json:"carp_header_hex"`
	FrameHex        string `json:"frame_hex"`
	TTL             uint8  `json:"ip_ttl"`
	Expect          string
}

type vectors struct {
	Vectors  []vector
	Negative []vector
	Timers   []struct {
		AdvBase      uint8
		AdvSkew      uint8
		Interval     float64  `json:"advert_interval_s"`
		MasterDown   *float64 `json:"master_down_freebsd_netbsd_ucarp_s"`
		OpenBSDOwn0s float64  `json:"master_down_openbsd_1_370_s"`
	}
}

func readVectors(tb testing.TB) vectors {
	tb.Helper()
	b, err := os.ReadFile("testdata/vectors/vectors.json")
	if err != nil {
		tb.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		tb.Fatal(err)
	}
	return v
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// variant is the one that the implementation sends.
func (v *vector) variant() Variant {
	if v.DropV6LinkLocal {
		return OpenBSD
	}
	return FreeBSD
}

// key is that of a member with the same configuration; with more in its password.
func (v *vector) key(tb testing.TB, variant Variant, more string) *Key {
	tb.Helper()
	return NewKey(v.Password+more, v.VHID, append(v.VIPs4, v.VIPs6...), variant, unhex(tb, v.LLAddrHex)...)
}

// TestVectors signs what others signed and wants the same 36 bytes, and
// believes theirs with either variant configured.
func TestVectors(t *testing.T) {
	for _, v := range readVectors(t).Vectors {
		t.Run(v.ID, func(t *testing.T) {
			want := unhex(t, v.HeaderHex)
			a := Advert{
				VHID: v.VHID, AdvBase: v.AdvBase, AdvSkew: v.AdvSkew, Demotion: v.Demote,
				Counter: binary.BigEndian.Uint64(unhex(t, v.CounterHex)),
			}
			v.key(t, v.variant(), "").Sign(&a)
			got, err := a.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("header: got %x, want %x", got, want)
			}

			frame := unhex(t, v.FrameHex)
			if len(frame) == 0 {
				frame = AppendFrame(nil, VirtualMAC(v.VHID), netip.MustParseAddr("192.0.2.1"), want)
			}
			r, why := ParseFrame(frame)
			if why != Accepted {
				t.Fatalf("frame refused: %v", why)
			}
			for _, variant := range []Variant{OpenBSD, FreeBSD} {
				if k := v.key(t, variant, ""); !k.Verify(&r.Advert) {
					t.Errorf("variant %d: digest not believed", variant)
				}
			}
			if k := v.key(t, OpenBSD, "x"); !k.Truncated() && k.Verify(&r.Advert) {
				t.Error("digest believed with another password")
			}
		})
	}
}

func TestNegativeVectors(t *testing.T) {
	k := NewKey("mekmitasdigoat", 1, []netip.Addr{netip.MustParseAddr("192.168.1.1")}, OpenBSD)
	for _, v := range readVectors(t).Negative {
		frame := AppendFrame(nil, VirtualMAC(1), netip.MustParseAddr("192.0.2.1"), unhex(t, v.HeaderHex))
		if v.TTL != 0 {
			ip := frame[etherLen:]
			ip[8] = v.TTL
			ip[10], ip[11] = 0, 0
			binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip[:ip4Len]))
		}
		r, why := ParseFrame(frame)
		if why == Accepted && !k.Verify(&r.Advert) {
			why = DropAuth
		}
		if want := v.Expect; !strings.HasPrefix(want, "drop, "+why.String()) {
			t.Errorf("%s: got %v, want %s", v.ID, why, want)
		}
	}
}

func TestTimerVectors(t *testing.T) {
	for _, v := range readVectors(t).Timers {
		if got, want := Interval(v.AdvBase, v.AdvSkew), seconds(v.Interval); got != want {
			t.Errorf("%d/%d: interval: got %v, want %v", v.AdvBase, v.AdvSkew, got, want)
		}
		want := seconds(v.OpenBSDOwn0s)
		if v.MasterDown != nil {
			want = seconds(*v.MasterDown)
		}
		if got := MasterDown(v.AdvBase, v.AdvSkew); got != want {
			t.Errorf("%d/%d: master-down: got %v, want %v", v.AdvBase, v.AdvSkew, got, want)
		}
		if v.AdvBase > 0 && Lease(v.AdvBase, v.AdvSkew) >= MasterDown(v.AdvBase, 0) {
			t.Errorf("%d/%d: lease outlasts the fastest backup's patience", v.AdvBase, v.AdvSkew)
		}
	}
	if got, want := Lease(1, 254), 2700*time.Millisecond; got != want {
		t.Errorf("lease of 1/254: got %v, want %v", got, want)
	}
}

func seconds(f float64) time.Duration {
	return time.Duration(math.Round(f*1e6)) * time.Microsecond
}

// TestCaptures believes every advert that real ucarps sent.
func TestCaptures(t *testing.T) {
	vip := []netip.Addr{netip.MustParseAddr("10.9.0.100")}
	passwords := map[uint8]string{1: "love", 9: "love", 42: "1234567890123456789", 13: "pw13"}
	files, err := filepath.Glob("testdata/vectors/*.pcap")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	total := 0
	for _, f := range files {
		for i, frame := range readPcap(t, f) {
			r, why := ParseFrame(frame)
			if why == DropNotCARP {
				continue
			}
			if why != Accepted {
				t.Errorf("%s, frame %d: %v", f, i, why)
				continue
			}
			if want := (MAC{0, 0, 0x5e, 0, 0, r.VHID}); r.MAC != want {
				t.Errorf("%s, frame %d: source %x, want ucarp's %x", f, i, r.MAC, want)
			}
			if !NewKey(passwords[r.VHID], r.VHID, vip, OpenBSD).Verify(&r.Advert) {
				t.Errorf("%s, frame %d: digest not believed", f, i)
			}
			b, err := r.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			if got, want := b, frame[etherLen+ip4Len:]; !bytes.Equal(got, want) {
				t.Errorf("%s, frame %d: round trip: got %x, want %x", f, i, got, want)
			}
			total++
		}
	}
	if total < 20 {
		t.Errorf("only %d adverts in the captures", total)
	}
}

// readPcap returns the frames of a classic little-endian pcap file.
func readPcap(tb testing.TB, name string) [][]byte {
	tb.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	if len(b) < 24 || binary.LittleEndian.Uint32(b) != 0xa1b2c3d4 {
		tb.Fatalf("%s: no pcap", name)
	}
	var frames [][]byte
	for b = b[24:]; len(b) >= 16; {
		n := int(binary.LittleEndian.Uint32(b[8:]))
		frames = append(frames, b[16:16+n])
		b = b[16+n:]
	}
	return frames
}
