package carp

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"net/netip"
	"testing"
)

func TestBothVariantsAreAccepted(t *testing.T) {
	with := []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fe80::1:1%eth0")}
	without := with[:1]
	openbsd, freebsd := NewKey("pw", 3, with, OpenBSD), NewKey("pw", 3, with, FreeBSD)
	a, b := Advert{VHID: 3, Counter: 5}, Advert{VHID: 3, Counter: 5}
	openbsd.Sign(&a)
	freebsd.Sign(&b)
	if a.Digest == b.Digest {
		t.Fatal("both variants sign the same although there is a link-local address")
	}
	for _, k := range []*Key{openbsd, freebsd} {
		if !k.Verify(&a) || !k.Verify(&b) {
			t.Error("a variant was refused")
		}
	}
	if k := NewKey("pw", 3, without, OpenBSD); !k.Verify(&a) || k.Verify(&b) {
		t.Error("without a link-local address only OpenBSD's variant can match")
	}
}

func TestVerifyRefuses(t *testing.T) {
	k := NewKey("secret", 7, testAddrs, OpenBSD)
	good := Advert{VHID: 7, Counter: 9}
	k.Sign(&good)
	for name, change := range map[string]func(*Advert){
		"a flipped bit in the digest": func(a *Advert) { a.Digest[19] ^= 1 },
		"another counter":             func(a *Advert) { a.Counter++ },
		"another vhid":                func(a *Advert) { a.VHID++ },
	} {
		a := good
		change(&a)
		if k.Verify(&a) {
			t.Errorf("%s: believed", name)
		}
	}
	if !k.Verify(&good) {
		t.Error("the good one was refused")
	}
	if NewKey("secret", 7, testAddrs[:1], OpenBSD).Verify(&good) {
		t.Error("believed with another address list")
	}
}

func TestPasswordsAreCutAt19(t *testing.T) {
	long, cut := NewKey("12345678901234567890", 1, nil, OpenBSD), NewKey("1234567890123456789", 1, nil, OpenBSD)
	if !long.Truncated() || cut.Truncated() {
		t.Errorf("truncated: got %v and %v", long.Truncated(), cut.Truncated())
	}
	var a Advert
	a.VHID = 1
	long.Sign(&a)
	if !cut.Verify(&a) {
		t.Error("the 20th character counts")
	}
}

func TestSentKnowsOnlyItsOwn(t *testing.T) {
	ours, theirs := NewKey("secret", 7, testAddrs, OpenBSD), NewKey("secret", 7, testAddrs, OpenBSD)
	a, b := Advert{VHID: 7, Counter: 1}, Advert{VHID: 7, Counter: 2}
	ours.Sign(&a)
	theirs.Sign(&b)
	if !ours.Sent(&a) || ours.Sent(&b) {
		t.Errorf("sent: got %v and %v, want ours alone", ours.Sent(&a), ours.Sent(&b))
	}
	for i := range uint64(recentLen) {
		ours.Sign(&Advert{VHID: 7, Counter: 100 + i})
	}
	if ours.Sent(&a) {
		t.Error("the memory is not bounded")
	}
}

func TestDerivePassword(t *testing.T) {
	var key [32]byte
	for i := range key {
		key[i] = byte(i)
	}
	got := DerivePassword(key, 1)
	if len(got) != PassLen {
		t.Errorf("length: got %d, want %d", len(got), PassLen)
	}
	// Computed with Python's hmac from RFC 5869; a change here locks members
	// of different versions out of each other.
	if want := "DzQWUbygWgIofYytLBO"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if DerivePassword(key, 2) == got {
		t.Error("two vhids have the same password")
	}
}

func FuzzKey(f *testing.F) {
	f.Add("mekmitasdigoat", uint8(1), []byte{192, 168, 1, 1}, uint64(1))
	f.Add("", uint8(255), []byte{}, uint64(0))
	f.Add("12345678901234567890", uint8(2), []byte{10, 0, 0, 2, 10, 0, 0, 1, 10, 0, 0, 2}, ^uint64(0))
	f.Fuzz(func(t *testing.T, password string, vhid uint8, addrs []byte, counter uint64) {
		var list, reversed []netip.Addr
		for ; len(addrs) >= 4; addrs = addrs[4:] {
			list = append(list, netip.AddrFrom4([4]byte(addrs)))
		}
		for i := range list {
			reversed = append(reversed, list[len(list)-1-i])
		}
		k := NewKey(password, vhid, list, OpenBSD)
		a := Advert{VHID: vhid, Counter: counter}
		k.Sign(&a)
		if !k.Verify(&a) || !NewKey(password, vhid, reversed, FreeBSD).Verify(&a) {
			t.Error("not believed, or the order of the addresses counts")
		}
		// The same by the standard library.
		h := hmac.New(sha1.New, []byte(password[:min(len(password), PassLen)]))
		h.Write([]byte{2, 1, vhid})
		for _, a := range hashed(list, false) {
			b := a.As4()
			h.Write(b[:])
		}
		h.Write(binary.BigEndian.AppendUint64(nil, counter))
		if want := h.Sum(nil); [20]byte(want) != a.Digest {
			t.Errorf("got %x, want %x", a.Digest, want)
		}
		a.Digest[0] ^= 1
		if k.Verify(&a) {
			t.Error("a wrong digest was believed")
		}
	})
}

func BenchmarkSign(b *testing.B) {
	k := NewKey("mekmitasdigoat", 1, testAddrs, OpenBSD)
	a := Advert{VHID: 1}
	b.ReportAllocs()
	for b.Loop() {
		a.Counter++
		k.Sign(&a)
	}
}

func BenchmarkVerify(b *testing.B) {
	k := NewKey("mekmitasdigoat", 1, testAddrs, OpenBSD)
	a := Advert{VHID: 1, Counter: 1}
	k.Sign(&a)
	b.ReportAllocs()
	for b.Loop() {
		if !k.Verify(&a) {
			b.Fatal("refused")
		}
	}
}

// TestLLAddrIsHashed: OpenBSD with a MAC set by hand and xcarp without the key
// lladdr do not believe each other.
func TestLLAddrIsHashed(t *testing.T) {
	with, without := NewKey("pw", 3, testAddrs, OpenBSD, 2, 0, 0xc0, 0xff, 0xee, 1), NewKey("pw", 3, testAddrs, OpenBSD)
	a := Advert{VHID: 3, Counter: 5}
	with.Sign(&a)
	if !with.Verify(&a) || without.Verify(&a) {
		t.Errorf("with lladdr: got %v, want true; without: got %v, want false", with.Verify(&a), without.Verify(&a))
	}
}
