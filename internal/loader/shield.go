package loader

import (
	"errors"
	"fmt"
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

// Mark is the newest advert of a node that was believed, or sent by us.
type Mark struct {
	Node, Epoch, Counter uint64
	Own                  bool
}

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

// Note tells the programs what has been believed of the vhid: the marks of nodes
// with trailers, below which everything is a replay, and the sources that have a
// share of their own in what passes. The first ones count; what finds no room is
// judged by the caller alone.
func (p *Port) Note(vhid uint8, marks []Mark, peers []netip.Addr) error {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return ErrClosed
	}
	var v xdpKnown
	for _, m := range marks[:min(len(marks), len(v.Node))] {
		one := xdpMark{Node: m.Node, Epoch: m.Epoch, Counter: m.Counter}
		if m.Own {
			one.Own = 1
		}
		v.Node[v.Nodes] = one
		v.Nodes++
	}
	for _, a := range peers[:min(len(peers), len(v.Peer))] {
		v.Peer[v.Peers].In6U.U6Addr8 = a.As16()
		v.Peers++
	}
	if err := p.maps.byName[xdpMapKnowns].Put(uint32(vhid), &v); err != nil {
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
