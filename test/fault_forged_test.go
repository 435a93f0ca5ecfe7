package test

import (
	"encoding/binary"
	"testing"
	"time"
)

// Who does not know the password changes no role and holds up no takeover.
func TestFault01_WrongDigest(t *testing.T) {
	t.Parallel()
	a := attack(t)
	forged := []advert{a.v4.edit(badDigest), a.v6.edit(badDigest)}
	better := a.v4.edit(func(ip, carp []byte) { badDigest(ip, carp); carp[2], carp[5] = 0, 0 })
	const each = 25
	w := newWatch(t, a.a, a.b)
	for range each {
		a.tell(append(forged, better)...)
		time.Sleep(10 * time.Millisecond) // the pace of the forger
	}
	a.both(w, map[string]int{"badauth": 3 * each})
	w.unmoved(2)

	// Forged adverts are no sign of life of the master.
	a.cut(a.a)
	cut := time.Now()
	for a.b.group("lan").State != "MASTER" && time.Since(cut) < 12*time.Second {
		a.taps[a.b].send(forged[0])
		time.Sleep(50 * time.Millisecond) // the pace of the forger
	}
	a.b.waitState(time.Second, "MASTER", "lan", "wan")
	figure(t, "takeover under forged adverts", "%v of %v", time.Since(cut).Round(10*time.Millisecond), 3390*time.Millisecond)
}

// What crossed a router is no advert, and no digest is computed for it.
func TestFault04_HopLimit(t *testing.T) {
	t.Parallel()
	a := attack(t)
	hop := func(n byte) func(ip, carp []byte) {
		return func(ip, carp []byte) {
			badDigest(ip, carp)
			if len(ip) == 40 {
				ip[7] = n
			} else {
				ip[8] = n
			}
		}
	}
	w := newWatch(t, a.a, a.b)
	n := 0
	for _, ttl := range []byte{254, 1, 0, 128} {
		a.tell(a.v4.edit(hop(ttl)), a.v6.edit(hop(ttl)))
		n += 2
	}
	a.both(w, map[string]int{"badttl": n})
	w.unmoved(0)
}

// No length of the frame and none that it claims makes anybody read what is not
// there.
func TestFault05_Lengths(t *testing.T) {
	t.Parallel()
	a := attack(t)
	// claim sets what the IP header says is its payload's length.
	claim := func(n int) func(ip, carp []byte) {
		return func(ip, _ []byte) {
			if len(ip) == 40 {
				binary.BigEndian.PutUint16(ip[4:], uint16(n))
			} else {
				binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+n))
			}
		}
	}
	w := newWatch(t, a.a, a.b)
	badlen, runts := 0, 0
	for _, whole := range []advert{a.v4, a.v6} {
		head := 14 + len(whole.header())
		for n := range 36 {
			short := whole.forge(claim(n))
			a.tell(short, short[:head+n]) // with the rest as padding, and without
			badlen += 2
			if n < 4 {
				runts++ // whose it is cannot be seen
			}
			if n < 2 {
				badlen-- // not even by the daemon
			}
		}
		a.tell(whole.forge(claim(len(whole) - head + 1)))
		badlen++
	}
	a.tell(a.v4.forge(claim(-1)), a.v4.forge(claim(-20)))
	badlen += 2

	// Options are no offence; the advert stands behind them.
	options := func(n int) advert {
		f := make(advert, 0, len(a.v4)+4)
		f = append(f, a.v4[:34]...)
		f = append(f, 1, 1, 1, 0) // no operation, end
		f = append(f, a.v4[34:]...)
		f[14] = 0x46
		return f.edit(func(ip, carp []byte) { badDigest(ip, carp); claim(n)(ip, carp) })
	}
	a.tell(options(len(a.v4)-34), options(35))
	badlen++

	more := a.v4.forge(func(ip, _ []byte) { ip[6] = 0x20 })
	later := a.v4.forge(func(ip, _ []byte) { ip[6], ip[7] = 0, 3 })
	a.tell(more, later)
	a.both(w, map[string]int{"badlen": badlen, "badauth": 1, "badfrag": 1, "hdrops": 1})
	strange := map[string]int{"runt": runts, "fragment": 1}
	for _, n := range []*node{a.a, a.b} {
		counted(t, n.name+" lan0", func() map[string]int { return only(w.strangers(n, "lan0"), strange) }, strange)
	}
	w.unmoved(1)
}

// only returns the entries whose keys are in of: bystanders' frames are counted, too.
func only(m, of map[string]int) map[string]int {
	out := map[string]int{}
	for k, v := range m {
		if of[k] != 0 {
			out[k] = v
		}
	}
	return out
}

func TestFault06_Checksum(t *testing.T) {
	t.Parallel()
	a := attack(t)
	w := newWatch(t, a.a, a.b)
	n := 0
	for bit := range 16 {
		for _, f := range []advert{a.v4, a.v6} {
			a.tell(f.forge(func(_, carp []byte) { carp[6+bit/8] ^= 1 << (bit % 8) }))
			n++
		}
	}
	// A change that nobody repaired.
	a.tell(a.v4.forge(func(_, carp []byte) { carp[2], carp[5] = 0, 0 }))
	if a.v4.payload()[5] == 0 {
		t.Fatal("the captured advert has advbase 0: nothing was changed")
	}
	n++
	a.both(w, map[string]int{"badsum": n})
	w.unmoved(0)
}

// What is not for a group of ours costs no digest, and is let through: it may be
// somebody else's.
func TestFault07_OtherVHIDVersionType(t *testing.T) {
	t.Parallel()
	a := attack(t)
	set := func(at int, v byte) func(ip, carp []byte) {
		return func(ip, carp []byte) { badDigest(ip, carp); carp[at] = v }
	}
	w := newWatch(t, a.a, a.b)
	vhids, versions := 0, 0
	for _, f := range []advert{a.v4, a.v6} {
		for _, vhid := range []byte{0, 1, 77, 255} { // 1 is the WAN's
			a.tell(f.edit(set(1, vhid)))
			vhids++
		}
		for _, first := range []byte{0x01, 0x11, 0x31, 0xf1} {
			a.tell(f.edit(set(0, first)))
			versions++
		}
		for _, authlen := range []byte{0, 1, 6, 8, 255} {
			a.tell(f.edit(set(3, authlen)))
			versions++
		}
	}
	types := 0
	for _, first := range []byte{0x20, 0x22, 0x2f} {
		a.tell(a.v4.edit(set(0, first)))
		types++
	}
	a.both(w, map[string]int{"badver": versions + types})
	strange := map[string]int{"advert_vhid": vhids, "advert_version": versions + types}
	for _, n := range []*node{a.a, a.b} {
		counted(t, n.name+" lan0", func() map[string]int { return only(w.strangers(n, "lan0"), strange) }, strange)
	}
	w.unmoved(1)
}
