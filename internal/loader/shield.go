package loader

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/xcarp/xcarp/internal/carp"
)

// Shield is what the programs check the adverts of a vhid against.
type Shield struct {
	Digests  []carp.DigestState // of the password; none: the programs check no digest
	Trailers []TrailerKey       // of all keys that are accepted; none: no trailers

	// Enforce refuses adverts without a right trailer.
	Enforce bool

	// Interval is the shortest between two adverts of one sender.
	Interval time.Duration
}

// TrailerKey is a key for trailers, found by its id.
type TrailerKey struct {
	ID uint8
	carp.TrailerState
}

// TrailerKeysMax is how many keys there is room for.
const TrailerKeysMax = len(xdpShield{}.Trailer)

// How many adverts may pass: of a sender in a while, and at once. A sender has two
// families, repeats itself after a goodbye, and may be faster than we are.
const (
	perInterval = 8
	slowest     = 20 * time.Millisecond // between adverts that pass, at the longest
	atOnce      = 64
)

// SetShield has the programs check adverts of the vhid from now on. The change is
// atomic: each advert is judged by the old keys or by the new ones.
//
// Only hash states go into the kernel: what a dump of the map shows is enough to
// sign adverts, but is no password.
func (p *Port) SetShield(vhid uint8, s Shield) error {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return ErrClosed
	}
	v, err := s.value()
	if err == nil {
		err = p.maps.byName[xdpMapShields].Put(uint32(vhid), v)
	}
	if err != nil {
		return fmt.Errorf("set shield of vhid %d on %s: %w", vhid, p.name, err)
	}
	return nil
}

func (s *Shield) value() (*xdpShield, error) {
	v := &xdpShield{Digests: uint32(len(s.Digests)), Trailers: uint32(len(s.Trailers))}
	if len(s.Digests) > len(v.Digest) || len(s.Trailers) > len(v.Trailer) {
		return nil, fmt.Errorf("%d digests and %d keys, there is room for %d and %d",
			len(s.Digests), len(s.Trailers), len(v.Digest), len(v.Trailer))
	}
	if s.Enforce {
		v.Flags |= xdpShieldFlagSHIELD_ENFORCE
	}
	every := slowest
	if s.Interval > 0 {
		every = min(every, s.Interval/perInterval)
	}
	v.Every, v.Burst = uint64(every), uint64(atOnce*every)
	for i, d := range s.Digests {
		v.Digest[i] = xdpDigestKey{Inner: d.Inner, Outer: d.Outer, At: uint32(d.At), Blocks: uint32(d.Blocks), Tail: d.Tail}
	}
	for i, t := range s.Trailers {
		v.Trailer[i] = xdpTrailerKey{Inner: t.Inner, Outer: t.Outer, Id: uint32(t.ID)}
	}
	return v, nil
}

// known is what the programs know of a vhid, with how recent each entry is.
type known struct {
	value xdpKnown
	tick  uint64
	nodes [len(xdpKnown{}.Node)]uint64
	peers [len(xdpKnown{}.Peer)]uint64
}

// Mark tells the programs how far the adverts of a node have come: what is not
// above is refused. Call it after one was believed, and before one of our own
// leaves. Of more nodes than there is room for, the ones heard last count.
func (p *Port) Mark(vhid uint8, node uint64, m carp.Mark, own bool) error {
	return p.note(vhid, func(k *known) bool {
		v := &k.value
		i := slot(k.nodes[:v.Nodes], len(v.Node), func(i int) bool { return v.Node[i].Node == node })
		v.Nodes = max(v.Nodes, uint32(i+1))
		k.tick++
		k.nodes[i] = k.tick
		if own {
			k.nodes[i] = math.MaxUint64 // always heard last
		}
		one := xdpMark{Node: node, Epoch: m.Epoch, Counter: m.Counter}
		if own {
			one.Own = 1
		}
		changed := v.Node[i] != one
		v.Node[i] = one
		return changed
	})
}

// Peer tells the programs that a source was believed: it has a share of its own
// in the adverts that pass.
func (p *Port) Peer(vhid uint8, from netip.Addr) error {
	return p.note(vhid, func(k *known) bool {
		v, a := &k.value, from.As16()
		i := slot(k.peers[:v.Peers], len(v.Peer), func(i int) bool { return v.Peer[i].In6U.U6Addr8 == a })
		changed := i >= int(v.Peers) || v.Peer[i].In6U.U6Addr8 != a
		v.Peers = max(v.Peers, uint32(i+1))
		k.tick++
		k.peers[i] = k.tick
		v.Peer[i].In6U.U6Addr8 = a
		return changed
	})
}

// slot finds the place of one, a free one for it, or the one that was used least
// recently.
func slot(used []uint64, room int, is func(int) bool) int {
	oldest := 0
	for i := range used {
		if is(i) {
			return i
		}
		if used[i] < used[oldest] {
			oldest = i
		}
	}
	if len(used) < room {
		return len(used)
	}
	return oldest
}

// note changes what the programs know of a vhid. What a process before has told
// them is forgotten with the first change: the caller knows it, too.
func (p *Port) note(vhid uint8, change func(*known) bool) error {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return ErrClosed
	}
	p.believed.Lock()
	defer p.believed.Unlock()
	k := p.known[vhid]
	if k == nil {
		k = &known{}
		p.known[vhid] = k
	}
	if !change(k) {
		return nil
	}
	if err := p.maps.byName[xdpMapKnowns].Put(uint32(vhid), &k.value); err != nil {
		return fmt.Errorf("note adverts of vhid %d on %s: %w", vhid, p.name, err)
	}
	return nil
}

// removeShield forgets the keys and what was believed.
func (m *maps) removeShield(vhid uint8) error {
	var errs []error
	for _, name := range []string{xdpMapShields, xdpMapKnowns} {
		if err := m.byName[name].Delete(uint32(vhid)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("remove from map %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
