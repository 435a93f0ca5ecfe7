package sim

import (
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// attacker sits on the segment: it hears everything and can send anything, but
// it has no key and stops nothing. A nil one does nothing.
type attacker struct {
	w        *world
	captured []capture
	siege    bool // it goes on when all else is well
	refused  int  // by the nodes, of whatever they have heard
}

type capture struct {
	from int
	b    []byte
}

const memory = 256 // frames that an attacker keeps

func (a *attacker) capture(from int, b []byte) {
	switch {
	case a == nil:
	case len(a.captured) < memory:
		a.captured = append(a.captured, capture{from, b})
	default: // some old ones stay
		a.captured[a.w.rng.IntN(memory)] = capture{from, b}
	}
}

// judged counts what the nodes refuse.
func (a *attacker) judged(why carp.Drop) {
	if a != nil && why != carp.Accepted {
		a.refused++
	}
}

// act does one thing and comes back.
func (a *attacker) act() {
	w := a.w
	if w.calm && !a.siege {
		return
	}
	w.later(w.between(w.sc.unit()/64, w.sc.unit()/2), a.act)
	if len(a.captured) == 0 {
		return
	}
	n := w.rng.IntN(len(a.captured))
	to := w.rng.IntN(len(w.nodes) + 1) // the last one is everybody
	if w.calm && !w.check.heard(payload(a.captured[n].b)) {
		return // an advert that was held back until now is one with a longer delay
	}
	if w.chance(0.1) && !w.calm { // a burst, in the order of capture
		for i := range 8 {
			a.send(to, a.captured[(n+i)%len(a.captured)].b, time.Duration(i)*time.Millisecond)
		}
		return
	}
	if b := a.modify(a.captured[n].b); b != nil {
		a.send(to, b, 0)
	}
}

// modify makes something of a captured frame: nothing, for a replay, or the
// lies that the digest of CARP leaves room for.
func (a *attacker) modify(b []byte) []byte {
	w := a.w
	r, why := carp.ParseFrame(b)
	if why != carp.Accepted || w.chance(0.4) {
		return b
	}
	ad := r.Advert
	trailer := append([]byte(nil), ad.Trailer...)
	if w.chance(0.7) { // relabel
		switch w.rng.IntN(5) {
		case 0:
			ad.AdvBase, ad.AdvSkew, ad.Demotion = 0, 0, 0
		case 1:
			ad.AdvBase, ad.AdvSkew = 255, 255
		case 2:
			ad.AdvSkew, ad.Demotion = 0, 0
		case 3:
			ad.Demotion = 255
		case 4:
			ad.Counter += w.rng.Uint64N(1 << 20)
		}
	}
	switch w.rng.IntN(4) {
	case 0, 1: // strip
		trailer = nil
	case 2: // the trailer of another one
		if o, why := carp.ParseFrame(a.captured[w.rng.IntN(len(a.captured))].b); why == carp.Accepted {
			trailer = o.Trailer
		}
	case 3:
		if len(trailer) > 0 {
			trailer[w.rng.IntN(len(trailer)-2)] ^= 1 << w.rng.IntN(8) // all but the balance is signed
		}
	}
	ad.Trailer = trailer
	p, err := ad.AppendBinary(nil)
	if err != nil {
		return nil
	}
	from := r.From
	if w.chance(0.3) && from.Is4() {
		from = w.nodes[w.rng.IntN(len(w.nodes))].source(true)
	}
	return carp.AppendFrame(nil, r.MAC, from, p)
}

func (a *attacker) send(to int, b []byte, after time.Duration) {
	for i := range a.w.nodes {
		if to == i || to == len(a.w.nodes) {
			a.w.push(event{at: a.w.now + after + 20*time.Microsecond, kind: evFrame, to: i, from: i, b: b})
		}
	}
}
