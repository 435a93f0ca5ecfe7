package carp

import (
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"time"
)

// plainPeer is what is known of a peer without a trailer. Nothing but its digest
// speaks for it, and that covers only the counter: what has a new counter is
// genuine, though its interval may have been changed on the way; what has an old
// one may be anybody's.
type plainPeer struct {
	counter uint64
	moves   bool          // its counter does: FreeBSD, NetBSD, ucarp; OpenBSD's stands still
	pinned  time.Duration // the best interval that it was first heard with
	base    uint8
	skew    uint8
	heard   time.Time // last advert that was not better than pinned
}

// maxPlain bounds what strangers can make us remember.
const maxPlain = 64

// judgePlain decides about an advert whose digest is right and that has no
// trailer.
func (g *Guard) judgePlain(now time.Time, v *Verdict) {
	if g.cfg.Auth == Permissive {
		v.Alarm = AlarmPlain
	}
	from := v.From
	if by, ok := g.record.who(v.Counter, v.Digest); ok && by != from && by.Is4() == from.Is4() {
		// The two families of OpenBSD share a counter, two hosts never do.
		v.Why, v.Alarm = DropReplay, AlarmRelabeled
		return
	}
	p := g.plain[from]
	if p == nil || now.Sub(p.heard) > g.cfg.Forget && !g.knows(v, from) {
		g.meet(now, v, from)
		return
	}
	same := v.Counter == p.counter
	switch {
	case same && p.moves, !same && g.knows(v, from), !same && p.moves && behind(v.Counter, p.counter, plainWindow):
		v.Why, v.Alarm = DropReplay, AlarmReplay
		if v.AdvBase != p.base || v.AdvSkew != p.skew {
			v.Alarm = AlarmRelabeled
		}
		return
	}
	interval := Interval(v.AdvBase, v.AdvSkew)
	switch {
	case interval < p.pinned && same:
		v.Why, v.Alarm = DropPinned, AlarmBetter
		if now.Sub(p.heard) > g.cfg.Forget {
			g.meet(now, v, from) // its older self is gone: it was configured anew
		}
		return
	case interval < p.pinned:
		// Genuine, so it lives; how good it is, is not believed until its older
		// self has been silent.
		v.Alarm = AlarmBetter
		v.AdvBase, v.AdvSkew = p.base, p.skew
	case interval > p.pinned:
		v.Alarm = AlarmWorse
		p.heard = now
	default:
		p.heard = now
	}
	p.moves = p.moves || !same
	p.counter = v.Counter
	g.record.add(v.Counter, v.Digest, from)
}

// meet makes the acquaintance of a plain peer, or renews it.
func (g *Guard) meet(now time.Time, v *Verdict, from netip.Addr) {
	if g.plain[from] == nil && len(g.plain) >= maxPlain {
		for a, p := range g.plain {
			if now.Sub(p.heard) > g.cfg.Forget {
				delete(g.plain, a)
			}
		}
		if len(g.plain) >= maxPlain {
			v.Why = DropPinned
			return
		}
	}
	g.record.add(v.Counter, v.Digest, from)
	v.Why = Accepted
	p := &plainPeer{counter: v.Counter, pinned: Interval(v.AdvBase, v.AdvSkew), base: v.AdvBase, skew: v.AdvSkew, heard: now}
	if old := g.plain[from]; old != nil {
		p.moves = old.moves || old.counter != v.Counter
	}
	if v.Goodbye() {
		return // says nothing about how good it will be
	}
	g.plain[from] = p
}

// knows reports whether this peer's counter and digest were heard before.
func (g *Guard) knows(v *Verdict, from netip.Addr) bool {
	by, ok := g.record.who(v.Counter, v.Digest)
	return ok && by == from
}

// recentPlain is how many plain adverts are remembered.
const recentPlain = 256

// recent remembers who sent which plain advert.
type recent struct {
	ring [recentPlain]struct {
		counter uint64
		digest  uint64 // its first eight bytes
		from    netip.Addr
	}
	next int
}

func (r *recent) who(counter uint64, digest [20]byte) (netip.Addr, bool) {
	d := binary.BigEndian.Uint64(digest[:])
	for i := range r.ring {
		if e := &r.ring[i]; e.from.IsValid() && e.counter == counter && e.digest == d {
			return e.from, true
		}
	}
	return netip.Addr{}, false
}

func (r *recent) add(counter uint64, digest [20]byte, from netip.Addr) {
	d := binary.BigEndian.Uint64(digest[:])
	e := &r.ring[r.next]
	if last := &r.ring[(r.next+recentPlain-1)%recentPlain]; last.from == from && last.counter == counter && last.digest == d {
		return // OpenBSD's counter stands still
	}
	e.counter, e.digest, e.from = counter, d, from
	r.next = (r.next + 1) % recentPlain
}

func appendUint64(b []byte, vs ...uint64) []byte {
	for _, v := range vs {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func uint64At(b []byte, at int) uint64 { return binary.BigEndian.Uint64(b[at:]) }

// equal compares MACs in constant time.
func equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }
