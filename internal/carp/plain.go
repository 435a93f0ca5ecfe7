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
// one may be anybody's. So it is known by its counters, and not by where they come
// from: that anybody can write.
type plainPeer struct {
	from    [2]netip.Addr // IPv4, IPv6; not valid: not heard there yet
	said    [2]uint64     // the newest counter in each
	counter uint64        // the newest of both
	step    uint64        // from the one before, if it counts
	counts  bool          // it is another one each time: FreeBSD, NetBSD, ucarp; OpenBSD's stands still
	times   uint8         // how often it was heard, up to plainMeeting and once more

	pinned time.Duration // the best interval that it was first heard with; 0: none yet
	base   uint8
	skew   uint8
	low    bool      // it was demoted when it was first heard
	heard  time.Time // last advert that was not better than pinned
	last   time.Time // last advert
}

const (
	// maxPlain bounds what strangers can make us remember.
	maxPlain = 64

	// plainNear is how many steps ahead a peer's next counter is that it is believed
	// with even if another peer, which once went on from the same, is further.
	plainNear = recentPlain

	// plainMeeting is how many adverts of a peer may be faster than the first one in
	// the other family.
	plainMeeting = 4

	// plainChanges from one place to counters far from each other, all heard once,
	// and they are drawn anew for each advert: FreeBSD, NetBSD and ucarp do so until
	// they hear somebody. One is a reboot, or somebody else in the same place.
	plainChanges = 2
)

// family is the index of an address in plainPeer.from.
func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// speaksFrom reports whether an address is the peer's, or the first one that is
// heard of it in that family.
func (p *plainPeer) speaksFrom(a netip.Addr) bool {
	at := &p.from[family(a)]
	if !at.IsValid() {
		*at = a
	}
	return *at == a
}

// alive reports whether the peer was heard before everybody counts it as gone.
func (g *Guard) alive(p *plainPeer, now time.Time) bool { return now.Sub(p.last) <= g.cfg.Forget }

// judgePlain decides about an advert whose digest is right and that has no
// trailer.
func (g *Guard) judgePlain(now time.Time, v *Verdict) {
	if g.cfg.Auth == Permissive {
		v.Alarm = AlarmPlain
	}
	p, old := g.newest(v.Counter), (*plainPeer)(nil)
	stands := p != nil && !p.counts && p.speaksFrom(v.From)
	switch {
	case stands:
		p.again()
	case p != nil:
		old = p
	default:
		if old = g.record.who(v.Counter, v.Digest); old == nil {
			p, old = g.speaker(now, v)
		}
	}
	switch {
	case old != nil:
		v.Why, v.Alarm = DropReplay, AlarmReplay
		if v.AdvBase != old.base || v.AdvSkew != old.skew || v.From != old.from[family(v.From)] {
			v.Alarm = AlarmRelabeled
		}
		return
	case p == nil:
		v.Why = DropPinned // no room
		return
	}
	g.pin(now, v, p, stands)
	if v.Why == Accepted {
		p.last = now
		g.record.add(v.Counter, v.Digest, p)
	}
}

// pin compares how good a peer says that it is with how good it was first heard to
// be. One that was demoted then says how good it is when it is ready: with a new
// counter, or, if that stands still, when it has said nothing else for a master-down
// time.
func (g *Guard) pin(now time.Time, v *Verdict, p *plainPeer, stands bool) {
	interval := Interval(v.AdvBase, v.AdvSkew)
	silent := now.Sub(p.heard)                             // its older self
	gone := silent > g.cfg.Forget                          // it was configured anew
	ready := p.low && (!stands || silent > g.cfg.Forget/3) // and has said how good it is
	switch {
	case v.Goodbye() && (p.pinned == 0 || gone):
		// Says nothing about how good it will be.
	case p.pinned == 0, gone && !stands, (gone || ready) && interval < p.pinned:
		p.pinned, p.base, p.skew, p.heard = interval, v.AdvBase, v.AdvSkew, now
		p.low = v.Demotion > 0 || v.AdvSkew >= maxSkew
	case interval < p.pinned && stands:
		v.Why, v.Alarm = DropPinned, AlarmBetter
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
}

// newest returns the peer whose newest counter this is.
func (g *Guard) newest(counter uint64) *plainPeer {
	for _, p := range g.plain {
		if p.counter == counter {
			return p
		}
	}
	return nil
}

// speaker returns the peer that a counter which was not heard before belongs to; or
// the peer that was there before, and has been further since; or nothing, if there
// is no room for one more.
func (g *Guard) speaker(now time.Time, v *Verdict) (p, old *plainPeer) {
	var near, next, drawn *plainPeer
	singles := 0
	later := func(a, b *plainPeer) bool { return a == nil || b.last.After(a.last) }
	at := family(v.From)
	for _, p := range g.plain {
		ahead, home := v.Counter-p.counter, p.from[at] == v.From
		switch {
		case g.alive(p, now) && (home && ahead <= plainNear*max(p.step, 1) || p.late(v)) && later(near, p):
			near = p
		case behind(v.Counter, p.counter, plainWindow):
			// Its own place is where a peer whose counters were set back may be
			// believed again: when it counts as gone.
			if g.alive(p, now) || !home {
				old = p
			}
		case ahead < plainWindow && (home || !p.from[at].IsValid() && g.alive(p, now)) && later(next, p):
			next = p
		}
		if home && p.times == 1 && g.alive(p, now) {
			singles++
			if later(drawn, p) {
				drawn = p
			}
		}
	}
	switch {
	case near != nil:
		return near.count(v), nil
	case old != nil:
		return nil, old
	case next != nil:
		return next.count(v), nil
	case singles >= plainChanges, singles > 0 && drawn.counts:
		drawn.counter, drawn.said[at], drawn.counts = v.Counter, v.Counter, true
		return drawn, nil
	}
	p = &plainPeer{counter: v.Counter, times: 1}
	p.from[at], p.said[at] = v.From, v.Counter
	return g.remember(now, p), nil
}

// late reports whether the peer has said this before its newest advert, which was
// faster because it came by the other family.
func (p *plainPeer) late(v *Verdict) bool {
	at, behind := family(v.From), p.counter-v.Counter
	switch {
	case !p.from[at].IsValid():
		return p.times <= plainMeeting && behind <= plainMeeting*FamilyStep
	case p.from[at] != v.From || p.said[at] == 0:
		return false
	}
	since := p.counter - p.said[at]
	return behind < since && since < plainWindow
}

// again counts how often the peer was heard.
func (p *plainPeer) again() { p.times = min(p.times+1, plainMeeting+1) }

// count takes the next counter of a peer that counts.
func (p *plainPeer) count(v *Verdict) *plainPeer {
	if p.counts && p.times == 1 {
		p.pinned = 0 // its counters were drawn: it may be somebody else in the same place
	}
	p.speaksFrom(v.From)
	p.said[family(v.From)] = v.Counter
	p.counts = true
	p.again()
	if step := v.Counter - p.counter; step < plainWindow {
		p.counter, p.step = v.Counter, step
	}
	return p
}

// remember makes room for a peer, in the place of the one that was heard longest
// ago, and returns it, or nil if all are alive.
func (g *Guard) remember(now time.Time, p *plainPeer) *plainPeer {
	if len(g.plain) < maxPlain {
		g.plain = append(g.plain, p)
		return p
	}
	oldest := 0
	for i, q := range g.plain {
		if q.last.Before(g.plain[oldest].last) {
			oldest = i
		}
	}
	if g.alive(g.plain[oldest], now) {
		return nil
	}
	g.plain[oldest] = p
	return p
}

// recentPlain is how many plain adverts are remembered.
const recentPlain = 256

// recent remembers who sent which plain advert.
type recent struct {
	ring [recentPlain]struct {
		counter uint64
		digest  uint64 // its first eight bytes
		peer    *plainPeer
	}
	next int
}

func (r *recent) who(counter uint64, digest [20]byte) *plainPeer {
	d := binary.BigEndian.Uint64(digest[:])
	for i := range r.ring {
		if e := &r.ring[i]; e.peer != nil && e.counter == counter && e.digest == d {
			return e.peer
		}
	}
	return nil
}

func (r *recent) add(counter uint64, digest [20]byte, p *plainPeer) {
	if r.who(counter, digest) != nil {
		return // OpenBSD's counter stands still
	}
	e := &r.ring[r.next]
	e.counter, e.digest, e.peer = counter, binary.BigEndian.Uint64(digest[:]), p
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
