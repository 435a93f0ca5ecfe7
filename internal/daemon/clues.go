package daemon

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/loader"
)

// hintFor is how long a hint is shown after what it was drawn from.
const hintFor = time.Minute

// searchEvery is between two searches for the list of addresses of one source: a
// search is thousands of digests.
const searchEvery = 10 * time.Second

// clues are what a group knows that helps to find out why an advert was refused.
type clues struct {
	vhid     uint8
	advbase  uint8
	prefixes []netip.Prefix // the shared addresses
	others   []netip.Addr   // further ones that a peer might share

	mu       sync.Mutex
	password string
	keys     []byte                   // ids of ours
	believed map[netip.Addr]time.Time // sources
	searched map[netip.Addr]search
	hints    map[suspicion]hint
}

type search struct {
	at   time.Time
	text string // what was found; "" is nothing
}

type hint struct {
	at   time.Time
	text string
}

// spoofedFor is how long after a right advert of a source a false one of the same is
// taken for somebody else's: a peer that was configured anew sends no right ones.
const spoofedFor = 5 * time.Second

// suspicion is a kind of hint. The first that applies is shown: it names a mistake
// that can be put right, where the last ones are an attack or noise.
type suspicion uint8

const (
	otherAddresses suspicion = iota
	otherRouter              // VRRP
	otherOwner
	otherPassword
	otherKey
	forwarded
	forged
	repeated
	looped
	flooded
	malformed
	suspicions
)

// believe notes a source whose adverts are right.
func (c *clues) believe(from netip.Addr, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.believed == nil {
		c.believed = map[netip.Addr]time.Time{}
	}
	if len(c.believed) >= 64 {
		clear(c.believed)
	}
	c.believed[from] = now
}

// setPassword replaces the password, and the ids of our keys.
func (c *clues) setPassword(p string, keys []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.password, c.keys = p, keys
}

// unknownKey names the key of a trailer if it is none of ours.
func (c *clues) unknownKey(s *loader.Sample, from string) string {
	if len(s.Data) < carp.AdvertLen {
		return ""
	}
	t, ok := carp.ParseTrailer(s.Data[carp.AdvertLen:])
	c.mu.Lock()
	defer c.mu.Unlock()
	if !ok || len(c.keys) == 0 || slices.Contains(c.keys, t.KeyID) {
		return ""
	}
	return fmt.Sprintf("%s signs with a key that we do not have: id %02x, ours: %s; copy its key_file here, then xcarp key reload",
		from, t.KeyID, strings.Join(hexIDs(c.keys), ", "))
}

// hint returns what is shown now.
func (c *clues) hint(now time.Time) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range suspicions {
		if h, ok := c.hints[k]; ok && now.Sub(h.at) < hintFor {
			return h.text
		}
	}
	return ""
}

// look thinks about an advert that was refused and returns the likely cause, "" if
// there is none to name.
func (c *clues) look(s *loader.Sample) string {
	kind, text := c.cause(s)
	if text == "" {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hints == nil {
		c.hints = map[suspicion]hint{}
	}
	c.hints[kind] = hint{s.At, text}
	return text
}

func (c *clues) cause(s *loader.Sample) (suspicion, string) {
	from := s.From.String()
	if s.MAC != nil {
		from += " (" + s.MAC.String() + ")"
	}
	switch s.Why {
	case "badauth":
		return c.digest(s, from)
	case "digest": // its trailer is right, so it is nobody else's
		var a carp.Advert
		if err := a.UnmarshalBinary(s.Data); err != nil {
			return 0, ""
		}
		if text := c.addresses(s, &a); text != "" {
			return otherAddresses, text
		}
		return otherPassword, otherSecret(from)
	case "advert_version", "badver":
		if v := s.Data[0] >> 4; v == 2 || v == 3 {
			return otherRouter, fmt.Sprintf("VRRPv%d with the same id %d: %s shares our virtual MAC; take another number on one side", v, c.vhid, from)
		}
	case "badtrailer":
		if text := c.unknownKey(s, from); text != "" {
			return otherKey, text
		}
		return otherKey, fmt.Sprintf("%s knows the password and does not sign with our key_file", from)
	case "pinned":
		return otherOwner, fmt.Sprintf("%s, which has no trailer, claims to be better than it was: not believed", from)
	case "replay":
		return repeated, fmt.Sprintf("somebody repeats adverts that were heard before, as %s: an attack, or a node whose state was set back", from)
	case "badttl":
		return forwarded, fmt.Sprintf("adverts of %s come through a router, with a TTL of %d", from, s.TTL)
	case "loop":
		return looped, fmt.Sprintf("our own adverts come back, as %s: a loop in the network, or an attack", from)
	case "ratelimit":
		return flooded, fmt.Sprintf("more adverts than any peer sends, the last as %s", from)
	case "badlen", "badsum", "badfrag":
		return malformed, fmt.Sprintf("%s sends adverts that are not well-formed (%s)", from, s.Why)
	}
	return 0, ""
}

// digest names the cause of a digest that is not ours.
func (c *clues) digest(s *loader.Sample, from string) (suspicion, string) {
	var a carp.Advert
	if err := a.UnmarshalBinary(s.Data); err != nil {
		return 0, ""
	}
	// The password of a group may come from the key, so a digest of another one
	// says nothing.
	if text := c.unknownKey(s, from); text != "" {
		return otherKey, text
	}
	if text := c.addresses(s, &a); text != "" {
		return otherAddresses, text
	}
	switch {
	case s.At.Sub(c.lastBelieved(s.From)) < spoofedFor:
		return forged, fmt.Sprintf("somebody forges adverts as %s, whose own are right", from)
	case a.AdvBase != c.advbase && !a.Goodbye():
		return otherOwner, fmt.Sprintf("vhid %d has another owner: %s with advbase %d, here it is %d; take another vhid on one side",
			c.vhid, from, a.AdvBase, c.advbase)
	case c.stranger(s):
		return otherOwner, fmt.Sprintf("vhid %d has another owner, or a member another password or another list of addresses, or somebody forges adverts: %s, while the peers that we know are heard",
			c.vhid, from)
	}
	return otherPassword, otherSecret(from)
}

// otherSecret is said of a digest that differs by more than one address.
func otherSecret(from string) string {
	return fmt.Sprintf("another password, or another list of addresses (more than one differs): compare both with those of %s", from)
}

// lastBelieved returns when an advert of a source was believed.
func (c *clues) lastBelieved(from netip.Addr) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.believed[from]
}

// stranger reports whether we hear peers that we believe, and this is not one.
func (c *clues) stranger(s *loader.Sample) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	heard := false
	for a, at := range c.believed {
		if s.At.Sub(at) < hintFor {
			heard = true
			if a == s.From {
				return false
			}
		}
	}
	return heard
}

// addresses finds the list of addresses that the advert was signed with, if it is
// ours with one address more or less.
func (c *clues) addresses(s *loader.Sample, a *carp.Advert) string {
	c.mu.Lock()
	last, done := c.searched[s.From]
	c.mu.Unlock()
	if done && s.At.Sub(last.at) < searchEvery {
		return last.text
	}
	text := c.search(s.From, a)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.searched == nil || len(c.searched) >= 64 {
		c.searched = map[netip.Addr]search{}
	}
	c.searched[s.From] = search{s.At, text}
	return text
}

func (c *clues) search(from netip.Addr, a *carp.Advert) string {
	own := make([]netip.Addr, len(c.prefixes))
	for i, p := range c.prefixes {
		own[i] = p.Addr().Unmap().WithZone("")
	}
	if len(own) > 64 {
		return "" // too much work
	}
	c.mu.Lock()
	password := c.password
	c.mu.Unlock()
	signedWith := func(addrs []netip.Addr) bool {
		return carp.NewKey(password, c.vhid, addrs, carp.OpenBSD).Verify(a)
	}
	list := func() string {
		var parts []string
		for _, o := range own {
			parts = append(parts, o.String())
		}
		return strings.Join(parts, " ")
	}
	if signedWith(own) {
		return "" // ours: the advert was refused for another reason
	}
	for i, o := range own {
		if signedWith(slices.Delete(slices.Clone(own), i, i+1)) {
			return fmt.Sprintf("the address lists differ: %s lacks %s; here it is %s", from, o, list())
		}
	}
	if len(own) > 0 && signedWith(nil) {
		return fmt.Sprintf("the address lists differ: %s has none; here it is %s", from, list())
	}
	for o := range maps.Keys(c.candidates(from, own)) {
		if signedWith(append(slices.Clone(own), o)) {
			return fmt.Sprintf("the address lists differ: %s has %s as well; here it is %s", from, o, list())
		}
	}
	return ""
}

// candidates are addresses that a peer might have and we have not: all of a small
// IPv4 network, the first of an IPv6 one, and what is known by name.
func (c *clues) candidates(from netip.Addr, own []netip.Addr) map[netip.Addr]bool {
	all := map[netip.Addr]bool{from.WithZone(""): true}
	for _, o := range c.others {
		all[o.Unmap().WithZone("")] = true
	}
	for _, p := range c.prefixes {
		a := p.Masked().Addr().Unmap().WithZone("")
		bits := p.Bits()
		if a.Is4() {
			bits = max(bits, 22)
		}
		for range min(1<<min(a.BitLen()-bits, 10), 1024) {
			all[a] = true
			a = a.Next()
		}
		// And the neighbours of the address itself, in a network that is larger.
		a = p.Addr().Unmap().WithZone("")
		for range 16 {
			if a = a.Next(); a.IsValid() {
				all[a] = true
			}
		}
	}
	for _, o := range own {
		delete(all, o)
	}
	return all
}
