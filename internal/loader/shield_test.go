package loader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"github.com/xcarp/xcarp/internal/carp"
)

const testPassword = "mekmitasdigoat"

var testKeyAddrs = []netip.Addr{shared4, shared6}

func testKey() *carp.Key { return carp.NewKey(testPassword, testVHID, testKeyAddrs, carp.OpenBSD) }

// signed is a genuine advert, as bytes of the payload.
func signed(tb testing.TB, key *carp.Key, counter uint64, change ...func(*carp.Advert)) []byte {
	tb.Helper()
	a := carp.Advert{VHID: testVHID, AdvBase: 1, AdvSkew: 100, Counter: counter}
	key.Sign(&a)
	for _, c := range change {
		c(&a)
	}
	b, err := a.MarshalBinary()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func framed4(payload []byte) []byte {
	return ethernet(carp4MAC, vmac(testVHID), 0x0800, ipv4(own4, carp4, 112, 255, payload))
}

func framed6(payload []byte) []byte {
	return ethernet(carp6MAC, vmac(testVHID), 0x86dd, ipv6(own6, carp6, 112, 255, payload))
}

// summed repairs the checksum of a payload over its first 36 bytes.
func summed(payload []byte) []byte {
	b := bytes.Clone(payload)
	b[6], b[7] = 0, 0
	binary.BigEndian.PutUint16(b[6:], checksum(b[:carp.AdvertLen]))
	return b
}

func (r *rig) setShield(tb testing.TB, s Shield) {
	tb.Helper()
	if err := r.port.SetShield(testVHID, s); err != nil {
		tb.Fatal(err)
	}
}

// refill forgets what has passed.
func (r *rig) refill(tb testing.TB) {
	tb.Helper()
	buckets, echoes := r.port.maps.byName[xdpMapBuckets], r.port.maps.byName[xdpMapEchoes]
	if err := buckets.Put(uint32(testVHID), make([]byte, buckets.ValueSize())); err != nil {
		tb.Fatal(err)
	}
	for {
		k, err := echoes.NextKeyBytes(nil)
		if err != nil {
			tb.Fatal(err)
		}
		if k == nil {
			return
		}
		if err := echoes.Delete(k); err != nil {
			tb.Fatal(err)
		}
	}
}

// shieldPrograms are those that verify.
var shieldPrograms = []struct {
	name     string
	verdicts map[string]int32
}{
	{xdpProgCarpXdp, xdpVerdicts},
	{xdpProgCarpXdpFrags, xdpVerdicts},
	{ingressProgCarpIngress, tcVerdicts},
}

func TestDigestIsCheckedBeforeAnybodyWakesUp(t *testing.T) {
	r := newRig(t)
	key := testKey()
	other := carp.NewKey("other", testVHID, testKeyAddrs, carp.OpenBSD)
	fewer := carp.NewKey(testPassword, testVHID, testKeyAddrs[:1], carp.OpenBSD)
	r.setShield(t, Shield{Digests: key.DigestStates()})
	good := signed(t, key, 0x0123456789abcdef)
	var cases []frameCase
	for _, fam := range []struct {
		name   string
		framed func([]byte) []byte
	}{{"IPv4", framed4}, {"IPv6", framed6}} {
		add := func(name string, payload []byte, f fate) {
			cases = append(cases, always(fam.name+" "+name, fam.framed(payload), f))
		}
		add("genuine", good, pass("advert", testVHID))
		add("relabelled: the digest does not cover it", signed(t, key, 5, func(a *carp.Advert) { a.AdvSkew = 0 }), pass("advert", testVHID))
		add("goodbye", signed(t, key, 6, func(a *carp.Advert) { a.AdvBase, a.AdvSkew = 255, 255 }), pass("advert", testVHID))
		add("with another password", signed(t, other, 7), drop("badauth", testVHID))
		add("with another list of addresses", signed(t, fewer, 7), drop("badauth", testVHID))
		add("with the digest of another counter", signed(t, key, 8, func(a *carp.Advert) { a.Counter++ }), drop("badauth", testVHID))
		add("with a trailer of nobody's", append(bytes.Clone(good), make([]byte, 48)...), pass("advert", testVHID))
		add("with a wrong digest and a trailer of nobody's", append(signed(t, other, 7), make([]byte, 48)...), drop("badauth", testVHID))
		for bit := range 160 {
			add(fmt.Sprintf("with bit %d of the digest flipped", bit),
				signed(t, key, 9, func(a *carp.Advert) { a.Digest[bit/8] ^= 1 << (bit % 8) }), drop("badauth", testVHID))
		}
	}
	for _, p := range shieldPrograms {
		t.Run(p.name, func(t *testing.T) {
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					r.refill(t)
					r.check(t, p.name, nil, c, carp.Backup, p.verdicts)
				})
			}
		})
	}
}

// Every length of the list of addresses, both variants, both counts of blocks.
func TestDigestOfEveryListOfAddresses(t *testing.T) {
	r := newRig(t)
	var addrs []netip.Addr
	for n := range 40 {
		switch n % 3 {
		case 0:
			addrs = append(addrs, netip.AddrFrom4([4]byte{10, 0, byte(n), 1}))
		case 1:
			addrs = append(addrs, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(n)}))
		case 2:
			addrs = append(addrs, netip.AddrFrom16([16]byte{0xfe, 0x80, 15: byte(n)}))
		}
		for _, v := range []carp.Variant{carp.OpenBSD, carp.FreeBSD} {
			key := carp.NewKey(testPassword, testVHID, addrs, v)
			r.setShield(t, Shield{Digests: key.DigestStates()})
			r.refill(t)
			good := signed(t, key, rand.Uint64())
			bad := summed(edit(good, 20, good[20]^0x10))
			name := fmt.Sprintf("%d addresses, variant %d", len(addrs), v)
			r.check(t, xdpProgCarpXdp, nil, always(name, framed4(good), pass("advert", testVHID)), carp.Backup, xdpVerdicts)
			r.check(t, xdpProgCarpXdp, nil, always(name, framed4(bad), drop("badauth", testVHID)), carp.Backup, xdpVerdicts)
			if t.Failed() {
				t.Fatal(name)
			}
		}
	}
}

// Without keys nothing is checked: the vhid is being configured.
func TestNoShieldNoVerdict(t *testing.T) {
	r := newRig(t)
	for _, p := range shieldPrograms {
		r.check(t, p.name, nil, always("any digest", advert4(testVHID), pass("advert", testVHID)), carp.Backup, p.verdicts)
	}
	r.setShield(t, Shield{Digests: testKey().DigestStates()})
	r.check(t, xdpProgCarpXdp, nil, always("any digest", advert4(testVHID), drop("badauth", testVHID)), carp.Backup, xdpVerdicts)
	if err := r.port.maps.removeShield(testVHID); err != nil {
		t.Fatal(err)
	}
	r.check(t, xdpProgCarpXdp, nil, always("any digest", advert4(testVHID), pass("advert", testVHID)), carp.Backup, xdpVerdicts)
}

// The programs without cryptography, for kernels that refuse the others: of a
// flood only so much passes, and a known peer has a share that strangers leave.
func TestBucketWithAShareForEachPeer(t *testing.T) {
	r := newRig(t)
	key := testKey()
	r.setShield(t, Shield{Digests: key.DigestStates()})
	peer, stranger := own4, netip.MustParseAddr("10.0.0.66")
	for _, a := range []netip.Addr{peer, own6} {
		if err := r.port.Peer(testVHID, a); err != nil {
			t.Fatal(err)
		}
	}
	forged := func(from netip.Addr) []byte {
		b := advertHeader(testVHID)
		binary.BigEndian.PutUint64(b[16:], rand.Uint64()) // of the digest
		return ethernet(carp4MAC, otherMAC, 0x0800, ipv4(from, carp4, 112, 255, summed(b)))
	}
	for _, p := range []struct {
		name string
		pass int32
	}{{xdpProgCarpXdpLight, 2}, {xdpProgCarpXdpLightFrags, 2}, {ingressProgCarpIngressLight, -1}} {
		t.Run(p.name, func(t *testing.T) {
			r.refill(t)
			begun := time.Now()
			passed := 0
			for range 500 {
				if v, _ := r.run(t, p.name, nil, forged(stranger)); v == p.pass {
					passed++
				}
			}
			most := atOnce + 2 + int(time.Since(begun)/slowest)
			if passed < atOnce || passed > most {
				t.Errorf("%d of 500 adverts of a stranger passed, want %d to %d", passed, atOnce, most)
			}
			if n := r.counter(t, testVHID, "ratelimit"); n < 1 {
				t.Errorf("%d adverts counted as ratelimit, want more", n)
			}
			for i := range atOnce {
				if v, _ := r.run(t, p.name, nil, framed4(signed(t, key, uint64(i)))); v != p.pass {
					t.Fatalf("advert %d of the peer did not pass", i)
				}
			}
			if v, _ := r.run(t, p.name, nil, framed6(signed(t, key, 1000))); v != p.pass {
				t.Error("the peer's other family has no share of its own")
			}
		})
	}
}

// Replays of a plain peer's advert have a right digest: only so many pass.
func TestBucketBehindTheDigest(t *testing.T) {
	r := newRig(t)
	key := testKey()
	r.setShield(t, Shield{Digests: key.DigestStates()})
	in, passed, begun := framed4(signed(t, key, 1)), 0, time.Now()
	for range 500 {
		if v, _ := r.run(t, xdpProgCarpXdp, nil, in); v == 2 {
			passed++
		}
	}
	// The first one is new.
	if most := 1 + atOnce + 2 + int(time.Since(begun)/slowest); passed < atOnce || passed > most {
		t.Errorf("%d of 500 passed, want %d to %d", passed, atOnce, most)
	}
}

// What can be read out of the kernel must not be the password.
func TestNoPasswordInTheMaps(t *testing.T) {
	r := newRig(t)
	r.setShield(t, Shield{Digests: testKey().DigestStates()})
	r.run(t, xdpProgCarpXdp, nil, framed4(signed(t, testKey(), 1)))
	for _, name := range []string{xdpMapShields, xdpMapScratches} {
		var key uint32
		if name == xdpMapShields {
			key = testVHID
		}
		raw, err := r.port.maps.byName[name].LookupBytes(key)
		if err != nil || len(raw) == 0 {
			t.Fatalf("read map %s: %d bytes, %v", name, len(raw), err)
		}
		for _, pad := range []byte{0, 0x36, 0x5c} {
			// Long enough not to be there by chance, and in either byte order.
			want := []byte(testPassword)
			for i := range want {
				want[i] ^= pad
			}
			swapped := bytes.Clone(want[:12])
			for i := range 3 {
				binary.LittleEndian.PutUint32(swapped[4*i:], binary.BigEndian.Uint32(want[4*i:]))
			}
			if bytes.Contains(raw, want) || bytes.Contains(raw, swapped) {
				t.Errorf("map %s holds the password (pad %#x)", name, pad)
			}
		}
	}
}

// One sample a second of each reason, with all that is needed to find the cause.
func TestSamples(t *testing.T) {
	r := newRig(t)
	r.setShield(t, Shield{Digests: testKey().DigestStates()})
	s, err := r.port.Samples()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	forged := advert4(testVHID)
	for range 100 {
		r.run(t, xdpProgCarpXdp, nil, forged)
	}
	vrrp := framed6(edit(advertHeader(testVHID), 0, 0x31))
	r.run(t, xdpProgCarpXdp, nil, vrrp)
	r.run(t, xdpProgCarpXdp, nil, framed6(edit(advertHeader(noVHID), 0, 0x31))) // not of ours
	r.run(t, xdpProgCarpXdp, nil, framed4(advertHeader(testVHID)[:20]))
	for _, want := range []struct {
		why  string
		from netip.Addr
		data []byte
		len  int
	}{
		{"badauth", own4, forged[34:], 36},
		{"advert_version", own6, vrrp[54:], 36},
		{"badlen", own4, advertHeader(testVHID)[:20], 20},
	} {
		got, err := s.Read()
		if err != nil {
			t.Fatal(err)
		}
		if got.Why != want.why || got.From != want.from || !bytes.Equal(got.Data, want.data) || got.Len != want.len ||
			got.TTL != 255 || !bytes.Equal(got.MAC, vmac(testVHID)) {
			t.Errorf("got sample %+v, want %+v", got, want)
		}
	}
	s.reader.SetDeadline(time.Now())
	if got, err := s.Read(); err == nil {
		t.Errorf("one sample too many: %+v", got)
	}
}

func TestSampleIsDecodedAsItIs(t *testing.T) {
	if n := binary.Size(xdpSample{}); n != int(unsafe.Sizeof(xdpSample{})) {
		t.Errorf("binary.Size is %d, the struct has %d", n, unsafe.Sizeof(xdpSample{}))
	}
}
