package carp

import (
	"bytes"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"slices"
)

// PassLen is how much of a password counts. The ifconfig of every BSD copies
// it into 20 bytes with a NUL and cuts the rest silently; ucarp refuses more.
const PassLen = 19

// Variant is one of the two things that BSDs sign. They differ only for a vhid
// with IPv6 link-local addresses. Both are accepted always.
type Variant uint8

// The variants to send.
const (
	OpenBSD Variant = iota // without link-local addresses: HMAC_NOV6LL
	FreeBSD                // with them, the embedded scope zeroed; NetBSD, too
)

// Key signs and verifies the adverts of one vhid. The digest is
//
//	HMAC-SHA1(password padded to 20 bytes,
//	    02 01 [lladdr] vhid {IPv4 ascending} {IPv6 ascending} counter)
//
// as carp_hmac_prepare() and carp_hmac_generate() of ip_carp.c compute it.
// Prefix lengths are not in it, and neither are advskew, advbase, demotion and
// the checksum: whoever has one advert can relabel it.
//
// A Key works in memory of its own, so that neither Sign nor Verify allocates.
// It is not for two goroutines at once.
type Key struct {
	vhid      uint8
	truncated bool
	send      *hmacSHA1
	accept    []*hmacSHA1 // one, or both variants where they differ

	recent [recentLen]signature
	next   int
}

// recentLen is how many own adverts are remembered: at the fastest, 0/0 in two
// families, an eighth of a second.
const recentLen = 64

type signature struct {
	counter uint64
	digest  [20]byte
}

// NewKey returns the key for a vhid with the given addresses, in any order.
// lladdr is empty, or the six bytes of the MAC that was given to an OpenBSD
// interface by hand: OpenBSD alone hashes it, before the vhid.
func NewKey(password string, vhid uint8, addrs []netip.Addr, v Variant, lladdr ...byte) *Key {
	k := &Key{vhid: vhid}
	if len(password) > PassLen {
		password, k.truncated = password[:PassLen], true
	}
	head := append(append([]byte{carpVersion, carpType}, lladdr...), vhid)
	without := newHMAC(password, appendAddrs(slices.Clone(head), hashed(addrs, false)...))
	with := newHMAC(password, appendAddrs(head, hashed(addrs, true)...))
	k.send, k.accept = without, []*hmacSHA1{without}
	if !bytes.Equal(without.inner, with.inner) {
		k.accept = append(k.accept, with)
		if v == FreeBSD {
			k.send = with
		}
	}
	return k
}

// Truncated reports whether the password was longer than PassLen and its rest
// does not count.
func (k *Key) Truncated() bool { return k.truncated }

// Sign puts the digest into a, whose counter is set, and remembers it.
func (k *Key) Sign(a *Advert) {
	a.Digest = k.send.sum(a.Counter)
	k.recent[k.next] = signature{a.Counter, a.Digest}
	k.next = (k.next + 1) % recentLen
}

// Verify reports whether somebody who knows the password and has the same
// addresses signed a. It takes the same time for every wrong digest.
func (k *Key) Verify(a *Advert) bool {
	ok := 0
	for _, h := range k.accept {
		d := h.sum(a.Counter)
		ok |= subtle.ConstantTimeCompare(d[:], a.Digest[:])
	}
	return ok == 1 && a.VHID == k.vhid
}

// Sent reports whether this Key has signed a lately: then a is an echo of our
// own advert. (A source address proves nothing: members may share it.)
func (k *Key) Sent(a *Advert) bool {
	return slices.Contains(k.recent[:], signature{a.Counter, a.Digest})
}

// hashed returns the addresses that go into the digest, in order: IPv4 before
// IPv6, ascending, each once. The lowest and the highest address of a family
// never do, because ip_carp.c walks from one to the other, exclusively.
func hashed(addrs []netip.Addr, linkLocal bool) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		switch {
		case a == netip.AddrFrom4([4]byte{}), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}),
			a == netip.IPv6Unspecified(), a == netip.AddrFrom16([16]byte(bytes.Repeat([]byte{255}, 16))):
			continue
		case a.Is6() && (a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast()):
			if !linkLocal {
				continue
			}
			v := a.As16()
			v[2], v[3] = 0, 0 // where BSD kernels keep the scope
			a = netip.AddrFrom16(v)
		}
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare) // IPv4 first
	return slices.Compact(out)
}

// hmacSHA1 is HMAC-SHA1 of a fixed message with a counter at its end, in two
// buffers that are laid out once.
type hmacSHA1 struct {
	inner []byte // ipad, message, counter
	outer []byte // opad, inner digest
}

func newHMAC(password string, message []byte) *hmacSHA1 {
	pad := func(x byte) []byte {
		b := make([]byte, sha1.BlockSize)
		copy(b, password)
		for i := range b {
			b[i] ^= x
		}
		return b
	}
	return &hmacSHA1{
		inner: append(append(pad(0x36), message...), make([]byte, 8)...),
		outer: append(pad(0x5c), make([]byte, sha1.Size)...),
	}
}

func (h *hmacSHA1) sum(counter uint64) [20]byte {
	binary.BigEndian.PutUint64(h.inner[len(h.inner)-8:], counter)
	in := sha1.Sum(h.inner)
	copy(h.outer[sha1.BlockSize:], in[:])
	return sha1.Sum(h.outer)
}

// DerivePassword returns the CARP password of a vhid for groups that have
// none: the first 19 characters of the unpadded base64url form of the 15 bytes
//
//	HKDF-SHA256(secret = key, no salt, info = "carp" followed by the vhid as one byte)
func DerivePassword(key [32]byte, vhid uint8) string {
	b := derive(key, "carp"+string([]byte{vhid}), 15)
	return base64.RawURLEncoding.EncodeToString(b)[:PassLen]
}
