package carp

import (
	"bytes"
	"fmt"
	"maps"
	"time"
)

// Auth says whose adverts are believed.
type Auth uint8

// The modes of authentication. A trailer that is right is believed in all.
const (
	// Compat welcomes peers that speak plain CARP.
	Compat Auth = iota

	// Permissive believes them, too, and complains: for the time in which the
	// last nodes get their trailer.
	Permissive

	// Enforce believes nothing without a trailer.
	Enforce
)

// String returns the word of the configuration.
func (a Auth) String() string {
	switch a {
	case Compat:
		return "compat"
	case Permissive:
		return "permissive"
	case Enforce:
		return "enforce"
	}
	return fmt.Sprintf("Auth(%d)", uint8(a))
}

// Alarm is what an operator should know about an advert, believed or not.
type Alarm uint8

// The alarms.
const (
	NoAlarm        Alarm = iota
	AlarmDigest          // a right trailer on a wrong digest: passwords or address lists differ
	AlarmPlain           // no trailer, in Permissive
	AlarmRelabeled       // one of somebody's adverts with other values in it: an attack
	AlarmReplay          // an advert that was heard before
	AlarmBetter          // a plain peer better than it used to be, which only the digest vouches for
	AlarmWorse           // a plain peer worse than it used to be: demoted, or told to leave by an attacker
	AlarmTwin            // a later advert of our own node: storage lost, or another node of our name
	AlarmLoop            // one of our own adverts: a loop in the network, or somebody plays it back
	AlarmVRRP            // VRRP with the number of our vhid: it has the same virtual MAC
	alarms
)

// Alarms is the number of Alarm values.
const Alarms = int(alarms)

var alarmNames = [Alarms]string{"", "digest", "plain", "relabeled", "replay", "better", "worse", "twin", "loop", "vrrp"}

// String returns the name of the alarm's counter.
func (a Alarm) String() string {
	if a < alarms {
		return alarmNames[a]
	}
	return fmt.Sprintf("Alarm(%d)", uint8(a))
}

// Mark is how far a node has come: the place of one of its adverts in the order
// of all.
type Mark struct {
	Epoch   uint64
	Counter uint64
}

// After reports whether m comes after o.
func (m Mark) After(o Mark) bool {
	return m.Epoch > o.Epoch || m.Epoch == o.Epoch && m.Counter > o.Counter
}

// CounterBlock is how far a start moves the counters of a node.
const CounterBlock = 1 << 48

// counterWindow is how far from the newest counter of a node a plain advert with
// its tag counts as one of its own, with the trailer cut off: 256 starts back,
// and as many ahead. A random counter is in there once in four million times.
const counterWindow = 256 * CounterBlock

// plainWindow is the same for a plain peer: more adverts than anybody keeps.
const plainWindow = 1 << 32

// behind reports whether counter is last or one of the window before it.
func behind(counter, last, window uint64) bool { return last-counter < window }

// GuardConfig is what a Guard goes by.
type GuardConfig struct {
	VHID uint8
	Key  *Key // of the CARP digest
	Auth Auth

	// Keys are those of the trailer: the first one signs, all are accepted.
	// Without any, adverts are plain in both directions.
	Keys []*TrailerKey
	Send bool // a trailer

	Node  uint64 // our id: a random number, kept over restarts
	Epoch uint64 // higher than that of every process before

	// Counter is the Machine's: ours are above it.
	Counter uint64

	// Seen are the marks that a process before has accepted.
	Seen map[uint64]Mark

	// Forget is after which silence a plain peer may come back better than it
	// was: three master-down times.
	Forget time.Duration
}

// Verdict is what a Guard thinks of an advert.
type Verdict struct {
	Heard        // for the Machine, if Why is Accepted; without Own
	Why   Drop   // why it is not believed
	Alarm Alarm  // what to say about it
	Seen  []byte // to be sent to the group, if not nil: see Guard.Reminder

	// Raised says that it makes us want a new epoch: see Guard.Wants.
	Raised bool
}

// Guard decides which adverts of a vhid are believed: by digest, trailer, order
// and what is known of a peer. It is pure, and not for two goroutines at once.
type Guard struct {
	cfg    GuardConfig
	self   Mark            // our last advert
	wants  uint64          // the epoch to begin when it is stored
	marks  map[uint64]Mark // of the other nodes, by id
	twin   Mark            // the last advert of ours that we did not send
	plain  []*plainPeer
	told   time.Time // when somebody was last told what we have seen of him
	record recent
}

// NewGuard returns a Guard.
func NewGuard(c GuardConfig) *Guard {
	g := &Guard{cfg: c, marks: maps.Clone(c.Seen)}
	g.self.Counter = c.Counter
	if g.marks == nil {
		g.marks = map[uint64]Mark{}
	}
	delete(g.marks, c.Node)
	return g
}

// SetKeys replaces the keys of the trailer, and that of the digest unless it is nil.
func (g *Guard) SetKeys(trailer []*TrailerKey, digest *Key) {
	g.cfg.Keys = trailer
	if digest != nil {
		g.cfg.Key = digest
	}
}

// Self returns the mark of our last advert, or where we begin. It is zero if our
// adverts have no trailer: then a plain one is no stripped one.
func (g *Guard) Self() Mark {
	if !g.signs() {
		return Mark{}
	}
	return g.own()
}

// signs reports whether our adverts have a trailer.
func (g *Guard) signs() bool { return g.cfg.Send && len(g.cfg.Keys) > 0 }

// own returns where our adverts are in the order of all, with a trailer or not.
func (g *Guard) own() Mark { return Mark{g.cfg.Epoch, g.self.Counter} }

// Counter returns that of our last advert, or where we begin, with a trailer or not.
func (g *Guard) Counter() uint64 { return g.self.Counter }

// Marks returns the last accepted mark of every other node that has a trailer.
func (g *Guard) Marks() map[uint64]Mark { return maps.Clone(g.marks) }

// Mark returns the last accepted mark of a node.
func (g *Guard) Mark(node uint64) Mark { return g.marks[node] }

// Sign appends the payload of an advert to b: 36 bytes and the trailer.
func (g *Guard) Sign(b []byte, a *Advert, term uint64) []byte {
	g.cfg.Key.Sign(a)
	g.self.Counter = a.Counter
	a.Trailer = nil
	b, err := a.AppendBinary(b)
	if err != nil {
		panic(err) // there is none
	}
	if g.signs() {
		b = g.cfg.Keys[0].append(b, Trailer{Node: g.cfg.Node, Epoch: g.cfg.Epoch, Term: term})
	}
	return b
}

// Judge decides whether to believe a received advert.
func (g *Guard) Judge(now time.Time, r *Received) Verdict {
	v := Verdict{Heard: Heard{Advert: r.Advert, From: r.From}}
	if r.VHID != g.cfg.VHID {
		v.Why = DropVHID
		return v
	}
	digest := g.cfg.Key.Verify(&r.Advert)
	t, known, signed := g.trailer(r)
	switch {
	case signed:
		g.judgeSigned(now, &v, t, digest)
	case digest && g.cfg.Key.Sent(&r.Advert):
		v.Why = DropLoop
	case !digest:
		v.Why = DropAuth
	case g.ours(r.Counter, 0):
		// What every plain CARP falls for: its digest leaves the interval open.
		v.Why, v.Alarm = DropReplay, AlarmRelabeled
	case known, g.cfg.Auth == Enforce:
		v.Why = DropTrailer
	case g.ours(r.Counter, counterWindow): // we have missed it when it had its trailer
		v.Why, v.Alarm = DropReplay, AlarmRelabeled
	default:
		g.judgePlain(now, &v)
	}
	return v
}

// Suspect returns what to say about an advert that the dataplane has refused and
// nobody will judge. It changes nothing.
func (g *Guard) Suspect(r *Received) Alarm {
	digest := g.cfg.Key.Verify(&r.Advert)
	t, _, signed := g.trailer(r)
	switch {
	case r.VHID != g.cfg.VHID:
		return NoAlarm
	case signed && t.Node == g.cfg.Node, digest && g.cfg.Key.Sent(&r.Advert):
		return AlarmLoop
	case signed:
		return AlarmReplay
	case digest && g.ours(r.Counter, counterWindow):
		return AlarmRelabeled
	}
	return NoAlarm
}

// trailer reads the trailer of an advert. known reports that one of our keys
// should have signed it, signed that it did.
func (g *Guard) trailer(r *Received) (t Trailer, known, signed bool) {
	t, ok := parseTrailer(r.Trailer)
	if !ok {
		return t, false, false
	}
	var header [AdvertLen]byte
	b, err := (&Advert{VHID: r.VHID, AdvBase: r.AdvBase, AdvSkew: r.AdvSkew, Demotion: r.Demotion,
		Counter: r.Counter, Digest: r.Digest}).AppendBinary(header[:0])
	if err != nil {
		return t, false, false
	}
	for _, k := range g.cfg.Keys {
		if k.id == t.KeyID {
			known = true
			signed = signed || k.verify(b, r.Trailer)
		}
	}
	return t, known, signed
}

// judgeSigned decides about an advert whose trailer is right: whoever made it
// has our key, so only its age is in question.
func (g *Guard) judgeSigned(now time.Time, v *Verdict, t Trailer, digest bool) {
	m := Mark{t.Epoch, v.Counter}
	if t.Node == g.cfg.Node {
		v.Why = DropLoop
		if m.After(g.own()) && m.After(g.twin) {
			// We lost our storage, and this is from a life before, or somebody
			// has our name. Whatever comes after it is new.
			g.twin, v.Alarm = m, AlarmTwin
			v.Raised = g.raise(m.Epoch)
		}
		return
	}
	last, met := g.marks[t.Node]
	if met && !m.After(last) {
		// What is not the last one again may come from a node that was set back, be
		// it by one start: that has the epoch of the life that it forgot.
		v.Why, v.Alarm = DropReplay, AlarmReplay
		if m != last && now.Sub(g.told) >= time.Second {
			g.told = now
			v.Seen = g.seen(t.Node, last)
		}
		return
	}
	g.marks[t.Node] = m
	v.Node, v.Term = t.Node, t.Term
	if !digest {
		v.Alarm = AlarmDigest
	}
}

// ours reports whether a counter is one that a node with a trailer has used:
// then an advert without is a stripped one. It may be so far ahead of the newest.
func (g *Guard) ours(counter, ahead uint64) bool {
	of := func(node, last uint64) bool {
		return last != 0 && tag(counter) == tag(node) && behind(counter, last+ahead, ahead+counterWindow)
	}
	for node, m := range g.marks {
		if of(node, m.Counter) {
			return true
		}
	}
	return of(g.cfg.Node, g.self.Counter) || !g.signs() && of(untagged(g.cfg.Node), g.self.Counter)
}

// raise makes us want an epoch above one that was already in use, and reports
// whether that is news.
func (g *Guard) raise(epoch uint64) bool {
	if epoch < max(g.wants, g.cfg.Epoch) {
		return false
	}
	g.wants = epoch + 1
	return true
}

// Wants returns the epoch that we want to begin, or the one that we are in. It must
// be where no crash forgets it before Begin: a node that has forgotten an epoch
// that it used is refused once more.
func (g *Guard) Wants() uint64 { return max(g.wants, g.cfg.Epoch) }

// Begin begins an epoch, unless a later one is in use.
func (g *Guard) Begin(epoch uint64) { g.cfg.Epoch = max(g.cfg.Epoch, epoch) }

// meetSlack is how many adverts may still be on their way when we are told of them.
const meetSlack = 2 * counterStep

// Meet notes how far a node has come that we have not heard yet, said over a
// channel that cannot be replayed. Of one that we know only its adverts tell. Its
// latest ones may still be on their way: to refuse a master's first makes two.
func (g *Guard) Meet(node uint64, m Mark) {
	if _, met := g.marks[node]; !met && node != g.cfg.Node && m.Counter > meetSlack {
		g.marks[node] = Mark{m.Epoch, m.Counter - meetSlack}
	}
}

// Remind tells us how far somebody has seen us come. If that is farther than
// we know, we have lost our storage, and want a new epoch above it: see Wants.
func (g *Guard) Remind(m Mark) (raised bool) { return m.After(g.own()) && g.raise(m.Epoch) }

// seenLen is the length of a Seen message.
const seenLen = 60

// seenVersion stands where CARP and VRRP have their version: theirs drop it.
const seenVersion = 0xf1

// seen makes the message that tells a node how far we have seen it come:
//
//	0 version 0xf1 | 1 vhid | 2 key id | 3 … 5 zero | 6 checksum of the first 36 |
//	8 node | 16 epoch | 24 counter | 32 zero | 36 sender | 44 HMAC-SHA256/128 of the first 44
//
// It can be replayed without harm: it only ever raises an epoch above one that
// was in use.
func (g *Guard) seen(node uint64, m Mark) []byte {
	if len(g.cfg.Keys) == 0 {
		return nil
	}
	k := g.cfg.Keys[0]
	b := make([]byte, 0, seenLen)
	b = append(b, seenVersion, g.cfg.VHID, k.id, 0, 0, 0, 0, 0)
	b = appendUint64(b, node, m.Epoch, m.Counter)
	b = append(b, 0, 0, 0, 0)
	s := ^sum(0, b)
	b[6], b[7] = byte(s>>8), byte(s)
	b = appendUint64(b, g.cfg.Node)
	mac := k.mac(b[:AdvertLen], seenSigned(b))
	return append(b, mac[:]...)
}

// seenSigned pads what follows the first 36 bytes to what a trailer has there.
func seenSigned(b []byte) []byte {
	p := make([]byte, trailerSigned)
	copy(p, b[AdvertLen:AdvertLen+8])
	return p
}

// Reminder reads a Seen message: whether it is one for us, signed with a key of
// ours, and whether that makes us want a new epoch, as Remind does. Everything else
// changes nothing.
func (g *Guard) Reminder(b []byte) (genuine, raised bool) {
	if len(b) != seenLen || b[0] != seenVersion || b[1] != g.cfg.VHID {
		return false, false
	}
	for _, k := range g.cfg.Keys {
		mac := k.mac(b[:AdvertLen], seenSigned(b))
		if k.id != b[2] || !equal(mac[:], b[44:]) {
			continue
		}
		if !bytes.Equal(b[8:16], appendUint64(nil, g.cfg.Node)) {
			return false, false
		}
		return true, g.Remind(Mark{Epoch: uint64At(b, 16), Counter: uint64At(b, 24)})
	}
	return false, false
}
