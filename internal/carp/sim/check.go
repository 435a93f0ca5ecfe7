package sim

import (
	"fmt"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// The rules.
const (
	RuleBetter   = "better"   // a master that heard a better advert, or of a newer term, is not master after it
	RuleWorse    = "worse"    // a master that heard a worse one stays
	RuleLease    = "lease"    // a lease that was not renewed is not used
	RuleReplay   = "replay"   // nothing old is believed
	RuleForged   = "forged"   // nothing is believed that no node has said
	RuleMasters  = "masters"  // when all is well there is one master
	RuleBest     = "best"     // and no better one that would preempt
	RuleFlap     = "flap"     // and no node changed its role more often on the way there than it must
	RuleSwitch   = "switch"   // and the switch sends to it
	RuleProgress = "progress" // no machine waits for a tick that it does not use
)

// Violation is a rule that was broken.
type Violation struct {
	Rule string
	At   time.Duration // since the start of the world
	What string
}

func (v *Violation) Error() string {
	return fmt.Sprintf("rule %q broken at %.6f s: %s", v.Rule, v.At.Seconds(), v.What)
}

// ledger is what is known of a node without asking it.
type ledger struct {
	proof  time.Time            // on its clock: the last instant that entitles to a lease
	marks  map[uint64]carp.Mark // the newest it was shown, and has not lost since
	master bool                 // before the fact at hand, with its lease
	lapsed bool                 // before the fact at hand, without
	term   uint64               // before the fact at hand
	rank   int                  // before the fact at hand
	woke   bool                 // it must notice at the next fact that its lease is over
	moves  int                  // since all is well
	ranked int                  // as of the last event
}

// genuine is an advert that a node has signed.
type genuine struct {
	id   uint64
	mark carp.Mark
}

// checker watches a world and remembers the first rule that was broken.
type checker struct {
	w      *world
	nodes  []ledger
	said   map[string]genuine
	broken *Violation
	due    time.Duration // when there must be one master; 0: not yet
	met    time.Duration // when nothing is heard any more that was said before
	total  int           // changes of role in all
}

func (c *checker) world(w *world) {
	c.w = w
	c.nodes = make([]ledger, len(w.nodes))
	c.said = map[string]genuine{}
}

func (c *checker) fail(rule, format string, args ...any) {
	if c.broken == nil {
		c.broken = &Violation{rule, c.w.now, fmt.Sprintf(format, args...)}
		c.w.line("check", "%v", c.broken)
	}
}

// lease is how long one advert entitles a node to be master: 0.9 · 3 · advbase,
// and with advbase 0 three intervals instead.
func (c *checker) lease(n *node) time.Duration {
	if c.w.sc.AdvBase > 0 {
		return time.Duration(c.w.sc.AdvBase) * 2700 * time.Millisecond
	}
	return carp.Interval(0, n.cfg.Skew) * 27 / 10
}

// started is told that a process begins with what is on the disk.
func (c *checker) started(n *node) {
	l := &c.nodes[n.i]
	l.marks = n.disk.clone().marks
	if l.marks == nil {
		l.marks = map[uint64]carp.Mark{}
	}
	if n.role.State == carp.Init {
		l.proof = time.Time{} // another boot, another clock
	}
	l.woke = false
}

// woken is told that time has passed for the node in which it did nothing.
func (c *checker) woken(n *node) { c.nodes[n.i].woke = true }

// signed is told of an advert before it is sent.
func (c *checker) signed(n *node, a *carp.Advert, payload []byte) {
	c.said[header(payload)] = genuine{n.disk.id, carp.Mark{Epoch: n.guard.Self().Epoch, Counter: a.Counter}}
	if l := &c.nodes[n.i]; !a.Goodbye() && !n.clock().Before(l.proof.Add(c.lease(n))) {
		c.fail(RuleLease, "%s sends as master %v after its last proof", n.name, n.clock().Sub(l.proof))
	}
}

// header is what of an advert somebody has signed.
func header(payload []byte) string {
	return string(payload[:min(len(payload), carp.AdvertLen+46)])
}

// sent is told that an advert got out. at is the instant before that.
func (c *checker) sent(n *node, at time.Time) {
	if l := &c.nodes[n.i]; at.After(l.proof) {
		l.proof = at
	}
}

// role is told of every change in the dataplane.
func (c *checker) role(n *node) {
	l := &c.nodes[n.i]
	if n.role.State == carp.Master && n.role.Until.After(l.proof.Add(c.lease(n))) {
		c.fail(RuleLease, "%s is to answer until %s, but its proof of %s is for %v", n.name,
			seconds(n.role.Until), seconds(l.proof), c.lease(n))
	}
}

// accepted is told of every advert that a node believes.
func (c *checker) accepted(n *node, h *carp.Heard, frame []byte) {
	g, ok := c.said[header(payload(frame))]
	if !ok {
		if h.Node == 0 && c.unknown(n, h.Counter) {
			return
		}
		c.fail(RuleForged, "%s believes an advert that nobody has sent: %d/%d demote=%d counter=%d from %v",
			n.name, h.AdvBase, h.AdvSkew, h.Demotion, h.Counter, h.From)
		return
	}
	if !c.w.sc.Trailer {
		return
	}
	l := &c.nodes[n.i]
	switch last, met := l.marks[g.id]; {
	case h.Node != g.id:
		c.fail(RuleForged, "%s believes an advert of node %x to be of %x", n.name, g.id, h.Node)
	case g.id == n.disk.id:
		c.fail(RuleForged, "%s believes an advert of its own", n.name)
	case met && !g.mark.After(last):
		c.fail(RuleReplay, "%s believes %d of epoch %d after %d of epoch %d", n.name,
			g.mark.Counter, g.mark.Epoch, last.Counter, last.Epoch)
	}
	l.marks[g.id] = g.mark
}

// unknown reports whether a plain advert is of a station whose trailers, if it
// has any, the node cannot know: with compat there is no way to refuse it.
func (c *checker) unknown(n *node, counter uint64) bool {
	if c.foreign() {
		return true
	}
	for _, g := range c.said {
		if _, met := c.nodes[n.i].marks[g.id]; g.mark.Counter == counter && (met || g.id == n.disk.id) {
			return false
		}
	}
	return c.w.sc.Auth != carp.Enforce
}

// heard reports whether all other nodes have heard that advert, or a later one.
func (c *checker) heard(payload []byte) bool {
	g, ok := c.said[header(payload)]
	if !ok {
		return false
	}
	for i, n := range c.w.nodes {
		if last, met := c.nodes[i].marks[g.id]; n.disk.id != g.id && (!met || g.mark.After(last)) {
			return false
		}
	}
	return true
}

// foreign reports whether stations take part that are not nodes.
func (c *checker) foreign() bool { return len(c.w.stations) > len(c.w.nodes) }

// before is told of a fact that a Machine is about to get.
func (c *checker) before(n *node, p *pending) {
	l := &c.nodes[n.i]
	master := p.from == carp.Master
	over := !p.now.Before(l.proof.Add(c.lease(n)))
	l.master, l.lapsed = master && !over, master && over
	l.term, l.rank = n.m.Term(), n.rank()
}

// after is told what the Machine made of it.
func (c *checker) after(n *node, p *pending) {
	l := &c.nodes[n.i]
	to := n.m.State()
	is, was := to == carp.Master, p.from == carp.Master
	if is != was {
		c.total++
		if c.due != 0 && n.rank() != l.ranked {
			c.calm() // it thinks otherwise of itself than before: see each
		}
		switch {
		case l.lapsed && c.due > c.w.now:
			// The end of what went wrong before: its last sends had failed.
			c.due = c.w.now + c.w.sc.bound()
		case !l.lapsed && c.w.now >= c.met:
			l.moves++
		}
		if c.due != 0 && l.moves > c.w.sc.transitions() {
			c.fail(RuleFlap, "%s changed its role %d times since all is well", n.name, l.moves)
		}
	}
	if is && !was && p.fact.verb != verbAdopt {
		l.proof = p.now
	}
	if is && l.lapsed {
		c.fail(RuleLease, "%s is master %v after its last proof", n.name, p.now.Sub(l.proof))
	}
	if is && n.m.Lease().After(l.proof.Add(c.lease(n))) {
		c.fail(RuleLease, "%s has a lease until %s, but its proof of %s is for %v", n.name,
			seconds(n.m.Lease()), seconds(l.proof), c.lease(n))
	}
	if !l.master {
		return
	}
	switch p.fact.verb {
	case verbRecv, verbGoodbye:
		switch better := c.better(n, &p.fact.heard); {
		case better > 0 && is:
			c.fail(RuleBetter, "%s stays master after %s", n.name, p.fact.String())
		case better < 0 && !is:
			c.fail(RuleWorse, "%s makes way to %s", n.name, p.fact.String())
		}
	case verbPeer:
		if is && p.fact.state == carp.Master && p.fact.term > l.term {
			c.fail(RuleBetter, "%s of term %d stays master after %s", n.name, l.term, p.fact.String())
		}
	}
}

// better reports whether an advert is better than the master that hears it, 1,
// or worse, -1; 0 if that is not to be told from the two alone. Between nodes
// that have a trailer the newer term decides, then demotion and interval, then
// the lower id.
func (c *checker) better(n *node, h *carp.Heard) int {
	l := &c.nodes[n.i]
	his := int(h.Demotion)<<16 | int(h.AdvBase)<<8 | int(h.AdvSkew)
	ordered := c.w.sc.Trailer && h.Node != 0
	switch {
	case h.AdvBase == 255 && h.AdvSkew == 255:
		return -1 // leaving
	case ordered && h.Term != l.term:
		return sign(h.Term > l.term)
	case !ordered && his <= l.rank:
		// Equals send one more advert each, and a node that knows over the sync
		// channel that the other one's term is older stays.
		return 0
	case his != l.rank:
		return sign(his < l.rank)
	}
	return sign(h.Node < n.disk.id)
}

func sign(yes bool) int {
	if yes {
		return 1
	}
	return -1
}

// calm is told that all is well from now on.
func (c *checker) calm() {
	c.due, c.met = c.w.now+c.w.sc.bound(), c.w.now+c.w.sc.meeting()
	for i, n := range c.w.nodes {
		c.nodes[i].moves, c.nodes[i].ranked = 0, n.rank()
	}
}

// each looks at the world after every event.
func (c *checker) each(w *world) {
	if c.due == 0 {
		return
	}
	for i, n := range w.nodes {
		if l := &c.nodes[i]; n.m != nil && n.rank() != l.ranked {
			// It thinks otherwise of itself than before: not all was well.
			c.calm()
			return
		}
	}
	if w.now >= c.due {
		c.one()
	}
}

// one demands that there is one master, and returns it.
func (c *checker) one() station {
	var master station
	count := 0
	for _, s := range c.w.stations {
		if s.acting() {
			master, count = s, count+1
		}
	}
	if count != 1 {
		c.fail(RuleMasters, "%d masters %v after all was well", count, c.w.now-(c.due-c.w.sc.bound()))
	}
	return master
}

// end looks at the world when nothing is to happen any more.
func (c *checker) end() {
	if c.broken != nil {
		return
	}
	master, ok := c.one().(*node)
	if c.broken != nil || !ok { // a foreign one
		return
	}
	for _, n := range c.w.nodes {
		switch {
		case n == master:
		case n.cfg.Preempt && n.rank() < master.rank():
			c.fail(RuleBest, "%s is master, and %s is better and preempts", master.name, n.name)
		case n.m.Demotion() < master.m.Demotion():
			c.fail(RuleBest, "%s is master with demotion %d, %s has %d", master.name, master.m.Demotion(), n.name, n.m.Demotion())
		}
	}
	if c.w.mac != master.i && c.broken == nil {
		c.fail(RuleSwitch, "%s is master, and the switch sends to station %d", master.name, c.w.mac)
	}
}
