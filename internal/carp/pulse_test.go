package carp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"
)

// sipVectors are the 64 of the reference implementation (vectors.h): the key is
// 00 01 … 0f, the n-th message is 00 01 … n-1. Printed by OpenSSL.
const sipVectors = `
310e0edd47db6f72 fd67dc93c539f874 5a4fa9d909806c0d 2d7efbd796666785
b7877127e09427cf 8da699cd64557618 cee3fe586e46c9cb 37d1018bf50002ab
6224939a79f5f593 b0e4a90bdf82009e f3b9dd94c5bb5d7a a7ad6b22462fb3f4
fbe50e86bc8f1e75 903d84c02756ea14 eef27a8e90ca23f7 e545be4961ca29a1
db9bc2577fcc2a3f 9447be2cf5e99a69 9cd38d96f0b3c14b bd6179a71dc96dbb
98eea21af25cd6be c7673b2eb0cbf2d0 883ea3e395675393 c8ce5ccd8c030ca8
94af49f6c650adb8 eab8858ade92e1bc f315bb5bb835d817 adcf6b0763612e2f
a5c91da7acaa4dde 716595876650a2a6 28ef495c53a387ad 42c341d8fa92d832
ce7cf2722f512771 e37859f94623f3a7 381205bb1ab0e012 ae97a10fd434e015
b4a31508beff4d31 81396229f0907902 4d0cf49ee5d4dcca 5c73336a76d8bf9a
d0a704536ba93e0e 925958fcd6420cad a915c29bc8067318 952b79f3bc0aa6d4
f21df2e41d4535f9 87577519048f53a9 10a56cf5dfcd9adb eb75095ccd986cd0
51a9cb9ecba312e6 96afadfc2ce666c7 72fe52975a4364ee 5a1645b276d592a1
b274cb8ebf87870a 6f9bb4203de7b381 eaecb2a30b22a87f 9924a43cc1315724
bd838d3aafbf8db7 0b1a2a3265d51aea 135079a3231ce660 932b2846e4d70666
e1915f5cb1eca46c f325965ca16d629f 575ff28e60381be5 724506eb4c328a95`

func pulseTestKey() PulseKey {
	var b [16]byte
	for i := range b {
		b[i] = byte(i)
	}
	return NewPulseKey(b)
}

func TestSipHashVectors(t *testing.T) {
	k := pulseTestKey()
	var msg []byte
	for n, text := range strings.Fields(sipVectors) {
		want, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		h := siphash(k[0], k[1], msg)
		for i, w := range want {
			if got := byte(h >> (8 * i)); got != w {
				t.Fatalf("%d bytes: got %#x, want %s as bytes", n, h, text)
			}
		}
		msg = append(msg, byte(n))
	}
	if len(msg) != 64 {
		t.Errorf("%d vectors, want 64", len(msg))
	}
}

// goldenPulse has its MAC from `openssl mac SIPHASH`.
const goldenPulse = "01020207007b0102deadbeefc0ffee001122334455667788000000000000002a002932e089abcdef" + "edd52838a4d3c33e"

func golden() Pulse {
	return Pulse{
		Kind: PulseAnswer, Role: Master, Demotion: 7, Age: 123 * time.Millisecond, Path: 0x0102,
		Session: 0xdeadbeef, Group: 0xc0ffee00, Nonce: 0x1122334455667788, Term: 42,
		Lease: 2700 * time.Millisecond, Challenge: 0x89abcdef,
	}
}

func TestPulseGoldenBytes(t *testing.T) {
	k, p := pulseTestKey(), golden()
	b := k.Append(nil, &p)
	if got := hex.EncodeToString(b); got != goldenPulse {
		t.Errorf("got  %s\nwant %s", got, goldenPulse)
	}
	if !k.Verify(b) {
		t.Error("the key does not verify what it signed")
	}
	var back Pulse
	if err := back.UnmarshalBinary(b); err != nil || back != p {
		t.Errorf("got %+v, %v, want %+v", back, err, p)
	}
	frame := k.AppendFrame(nil, MAC{1}, MAC{2}, &p)
	if want := append([]byte{1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0x88, 0xb5}, b...); !bytes.Equal(frame, want) {
		t.Errorf("frame:\ngot  %x\nwant %x", frame, want)
	}
}

func TestPulseIsBoundByItsMAC(t *testing.T) {
	k, p := pulseTestKey(), golden()
	b := k.Append(nil, &p)
	for bit := range 8 * len(b) {
		b[bit/8] ^= 1 << (bit % 8)
		if k.Verify(b) {
			t.Errorf("bit %d of byte %d may change", bit%8, bit/8)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	other := k
	other[1]++
	if other.Verify(b) || k.Verify(b[:PulseLen-1]) || k.Verify(append(b, 0)) {
		t.Error("verified by another key, or of another length")
	}
}

func TestPulseForm(t *testing.T) {
	k, p := pulseTestKey(), golden()
	for _, c := range []struct {
		name   string
		change func([]byte) []byte
		want   error
	}{
		{"too short", func(b []byte) []byte { return b[:PulseLen-1] }, ErrLength},
		{"too long", func(b []byte) []byte { return append(b, 0) }, ErrLength},
		{"another version", func(b []byte) []byte { b[0] = 2; return b }, ErrVersion},
		{"kind 0", func(b []byte) []byte { b[1] = 0; return b }, ErrVersion},
		{"a kind of later", func(b []byte) []byte { b[1] = byte(pulseKinds); return b }, ErrVersion},
		{"no such role", func(b []byte) []byte { b[2] = 4; return b }, ErrVersion},
	} {
		var got Pulse
		if err := got.UnmarshalBinary(c.change(k.Append(nil, &p))); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestPulseSendsTheLongestItCan(t *testing.T) {
	k := pulseTestKey()
	for _, c := range []struct{ age, lease, wantAge, wantLease time.Duration }{
		{-1, -1, 0, 0},
		{time.Hour, 2 * time.Hour, 65535 * time.Millisecond, 4294967295 * time.Microsecond},
	} {
		var got Pulse
		p := Pulse{Kind: PulseAnswer, Age: c.age, Lease: c.lease}
		if err := got.UnmarshalBinary(k.Append(nil, &p)); err != nil {
			t.Fatal(err)
		}
		if got.Age != c.wantAge || got.Lease != c.wantLease {
			t.Errorf("got %v and %v, want %v and %v", got.Age, got.Lease, c.wantAge, c.wantLease)
		}
	}
}

func TestPulseGroupNumber(t *testing.T) {
	const want = 0x094a367b // printf lan | sha256sum
	if got := PulseGroup("lan"); got != want {
		t.Errorf("got %#x, want %#x", got, want)
	}
}

func FuzzPulse(f *testing.F) {
	b, _ := hex.DecodeString(goldenPulse)
	f.Add(b)
	f.Add(b[:12])
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Pulse
		if p.UnmarshalBinary(b) != nil {
			return
		}
		again, _ := p.AppendBinary(nil)
		if !bytes.Equal(again, b[:pulseSigned]) {
			t.Errorf("got  %x\nfrom %x", again, b)
		}
	})
}

// BenchmarkPulse is one frame made and one checked.
func BenchmarkPulse(b *testing.B) {
	k, p := pulseTestKey(), golden()
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		if !k.Verify(k.Append(buf, &p)) {
			b.Fatal("does not verify")
		}
	}
}
