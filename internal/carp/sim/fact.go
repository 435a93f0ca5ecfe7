package sim

import (
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// The verbs of a script: one for each of a Machine's.
const (
	verbUp      = "up"
	verbDown    = "down"
	verbTick    = "tick"
	verbStop    = "stop"
	verbFollow  = "follow"
	verbRecv    = "recv"
	verbGoodbye = "goodbye"
	verbSent    = "sent"
	verbDemote  = "demote"
	verbAdopt   = "adopt"
	verbPeer    = "peer"
	verbEars    = "ears"
	verbStatus  = "status" // no fact: where the machine stands
)

// fact is one thing that a Machine is told: a line of a script.
type fact struct {
	verb  string
	heard carp.Heard // recv, goodbye
	at    time.Time  // sent: the instant before the send
	fail  bool       // sent
	owner string     // demote
	by    int        // demote
	state carp.State // peer, adopt
	until time.Time  // adopt
	node  string     // peer
	term  uint64     // peer, adopt
	ears  carp.Ears  // peer, ears
}

var errSend = errors.New("no buffer space available")

// apply tells it to a Machine.
func (f *fact) apply(m *carp.Machine, now time.Time) carp.Effects {
	switch f.verb {
	case verbUp, verbDown:
		return m.Link(now, f.verb == verbUp)
	case verbTick:
		return m.Tick(now)
	case verbStop:
		return m.Stop(now)
	case verbFollow:
		return m.Follow(now)
	case verbRecv, verbGoodbye:
		return m.Receive(now, f.heard)
	case verbSent:
		var err error
		if f.fail {
			err = errSend
		}
		return m.Sent(now, f.at, err)
	case verbDemote:
		return m.Demote(now, f.owner, f.by)
	case verbAdopt:
		return m.Adopt(now, carp.Role{State: f.state, Until: f.until}, f.term)
	case verbPeer:
		return m.Peer(now, f.node, carp.Said{State: f.state, Term: f.term, Ears: f.ears})
	case verbEars:
		return m.Ears(now, f.ears)
	}
	panic("unknown verb " + f.verb)
}

// String returns the fact as a script has it, without its time.
func (f *fact) String() string {
	switch f.verb {
	case verbRecv, verbGoodbye:
		h := &f.heard
		s := fmt.Sprintf("%s from=%v own=%v", f.verb, h.From, h.Own)
		if !h.Own.IsValid() {
			s = fmt.Sprintf("%s from=%v own=none", f.verb, h.From)
		}
		if f.verb == verbRecv {
			s += fmt.Sprintf(" advbase=%d advskew=%d", h.AdvBase, h.AdvSkew)
		}
		if h.Demotion != 0 {
			s += fmt.Sprintf(" demote=%d", h.Demotion)
		}
		if s += fmt.Sprintf(" counter=%d", h.Counter); h.Node != 0 {
			s += fmt.Sprintf(" node=%d term=%d", h.Node, h.Term)
		}
		return s
	case verbSent:
		s := verbSent + " at=" + seconds(f.at)
		if f.fail {
			s += " fail"
		}
		return s
	case verbDemote:
		return fmt.Sprintf("demote %s by=%d", f.owner, f.by)
	case verbAdopt:
		if f.until.IsZero() {
			return fmt.Sprintf("adopt %v until=0 term=%d", f.state, f.term)
		}
		return fmt.Sprintf("adopt %v until=%s term=%d", f.state, seconds(f.until), f.term)
	case verbPeer:
		s := fmt.Sprintf("peer %v node=%s term=%d", f.state, f.node, f.term)
		if f.ears != carp.EarsUnknown {
			s += " ears=" + earsWord(f.ears)
		}
		return s
	case verbEars:
		return verbEars + " " + earsWord(f.ears)
	}
	return f.verb
}

// seconds formats an instant with every digit that it has.
func seconds(at time.Time) string {
	ns := int64(carp.SinceBoot(at))
	sign := ""
	if ns < 0 {
		sign, ns = "-", -ns
	}
	s := strings.TrimRight(fmt.Sprintf("%s%d.%09d", sign, ns/1e9, ns%1e9), "0")
	if strings.HasSuffix(s, ".") {
		s += "0"
	}
	return s
}

// parseSeconds is the inverse of seconds.
func parseSeconds(s string) (time.Time, error) {
	r, ok := new(big.Rat).SetString(s)
	if !ok || strings.ContainsAny(s, "/eExXpP") {
		return time.Time{}, fmt.Errorf("time %q: want seconds, as 12.5", s)
	}
	r.Mul(r, big.NewRat(1e9, 1))
	if !r.IsInt() || !r.Num().IsInt64() {
		return time.Time{}, fmt.Errorf("time %q: want seconds with at most nine decimals", s)
	}
	return carp.BootTime(time.Duration(r.Num().Int64())), nil
}

// words are the key=value words of a line; a word without = has an empty value.
type words struct {
	of  map[string]string
	err error // the first thing that was wrong
}

func parseWords(list []string) *words {
	w := &words{of: make(map[string]string, len(list))}
	for _, s := range list {
		k, v, _ := strings.Cut(s, "=")
		if _, twice := w.of[k]; twice && w.err == nil {
			w.err = fmt.Errorf("%s: given twice", k)
		}
		w.of[k] = v
	}
	return w
}

// has takes a word without a value.
func (w *words) has(key string) bool {
	_, ok := w.of[key]
	delete(w.of, key)
	return ok
}

func (w *words) text(key, otherwise string) string {
	s, ok := w.of[key]
	delete(w.of, key)
	if !ok {
		return otherwise
	}
	return s
}

func (w *words) num(key string, bits int) uint64 {
	s := w.text(key, "0")
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("%s=%s: want a number of at most %d bits", key, s, bits)
	}
	return n
}

func (w *words) addr(key, otherwise string) netip.Addr {
	s := w.text(key, otherwise)
	if s == "none" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("%s=%s: want an address", key, s)
	}
	return a
}

func (w *words) time(key string, otherwise time.Time) time.Time {
	s, ok := w.of[key]
	delete(w.of, key)
	if !ok {
		return otherwise
	}
	at, err := parseSeconds(s)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("%s: %w", key, err)
	}
	return at
}

// end reports what was wrong, or what nobody asked for.
func (w *words) end() error {
	if w.err != nil {
		return w.err
	}
	for k := range w.of {
		return fmt.Errorf("unknown word %q", k)
	}
	return nil
}

var states = map[string]carp.State{
	"INIT": carp.Init, "BACKUP": carp.Backup, "MASTER": carp.Master, "DRAIN": carp.Drain,
}

var earsWords = map[string]carp.Ears{"unknown": carp.EarsUnknown, "hear": carp.EarsHear, "deaf": carp.EarsDeaf}

func earsWord(e carp.Ears) string {
	for w, is := range earsWords {
		if is == e {
			return w
		}
	}
	return e.String()
}

func (w *words) ears(s string) carp.Ears {
	e, ok := earsWords[s]
	if !ok && w.err == nil {
		w.err = fmt.Errorf("ears %s: want hear, deaf or unknown", s)
	}
	return e
}

// parseFact reads the words after the time. now is that time: what happens at
// once need not say when.
func parseFact(list []string, now time.Time) (fact, error) {
	f := fact{verb: list[0]}
	list = list[1:]
	word := ""
	needs := map[string]string{verbDemote: "an owner", verbPeer: "a state", verbAdopt: "a state", verbEars: "hear, deaf or unknown"}
	if what, ok := needs[f.verb]; ok {
		if len(list) == 0 {
			return f, fmt.Errorf("%s: want %s", f.verb, what)
		}
		word = list[0]
		if f.verb == verbPeer || f.verb == verbAdopt {
			if f.state, ok = states[word]; !ok {
				return f, fmt.Errorf("%s %s: want INIT, BACKUP, MASTER or DRAIN", f.verb, word)
			}
		}
		list = list[1:]
	}
	w := parseWords(list)
	switch f.verb {
	case verbUp, verbDown, verbTick, verbStop, verbFollow, verbStatus:
	case verbRecv, verbGoodbye:
		h := &f.heard
		h.From, h.Own = w.addr("from", "10.0.0.2"), w.addr("own", "10.0.0.1")
		h.AdvBase, h.AdvSkew = uint8(w.num("advbase", 8)), uint8(w.num("advskew", 8))
		h.Demotion, h.Counter = uint8(w.num("demote", 8)), w.num("counter", 64)
		h.Node, h.Term = w.num("node", 64), w.num("term", 64)
		if f.verb == verbGoodbye {
			h.AdvBase, h.AdvSkew = 255, 255
		}
	case verbSent:
		f.at, f.fail = w.time("at", now), w.has("fail")
		w.has("ok")
	case verbDemote:
		f.owner, f.by = word, int(w.num("by", 31))
	case verbAdopt:
		f.until, f.term = w.time("until", time.Time{}), w.num("term", 64)
	case verbPeer:
		f.node, f.term = w.text("node", ""), w.num("term", 64)
		f.ears = w.ears(w.text("ears", "unknown"))
	case verbEars:
		f.ears = w.ears(word)
	default:
		return f, fmt.Errorf("unknown fact %q", f.verb)
	}
	return f, w.end()
}
