package group

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// mailbox holds what the daemon has told a Group and Run has not yet seen. It
// is bounded by keeping only the newest word on each thing, save that a link
// that went down and came back is not forgotten.
type mailbox struct {
	mu     sync.Mutex
	news   chan struct{} // holds one: there is something
	link   []bool        // [up], [down] or [down up]
	demote map[string]int
	peers  map[string]carp.Said // by node
	ears   *carp.Ears
	follow bool
	stamp  bool
}

// put changes the mailbox under its lock and tells Run.
func (b *mailbox) put(change func()) {
	b.mu.Lock()
	change()
	b.mu.Unlock()
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// take empties the mailbox into verbs, in the order in which they apply.
func (b *mailbox) take() []func(*carp.Machine, time.Time) carp.Effects {
	b.mu.Lock()
	defer b.mu.Unlock()
	var verbs []func(*carp.Machine, time.Time) carp.Effects
	add := func(v func(*carp.Machine, time.Time) carp.Effects) { verbs = append(verbs, v) }
	for _, owner := range slices.Sorted(maps.Keys(b.demote)) {
		n := b.demote[owner]
		add(func(m *carp.Machine, now time.Time) carp.Effects { return m.Demote(now, owner, n) })
	}
	for _, up := range b.link {
		add(func(m *carp.Machine, now time.Time) carp.Effects { return m.Link(now, up) })
	}
	for _, node := range slices.Sorted(maps.Keys(b.peers)) {
		p := b.peers[node]
		add(func(m *carp.Machine, now time.Time) carp.Effects { return m.Peer(now, node, p) })
	}
	if e := b.ears; e != nil {
		add(func(m *carp.Machine, now time.Time) carp.Effects { return m.Ears(now, *e) })
	}
	if b.follow {
		add((*carp.Machine).Follow)
	}
	b.demote, b.link, b.peers, b.ears, b.follow = nil, nil, nil, nil, false
	return verbs
}

// Link tells whether the carpdev can carry frames. A group is INIT until the
// first Link(true), unless it adopted a role.
func (g *Group) Link(up bool) {
	g.box.put(func() {
		if up && len(g.box.link) > 0 && !g.box.link[0] {
			g.box.link = []bool{false, true}
			return
		}
		g.box.link = []bool{up}
	})
}

// Demote sets the demotion of one owner, in the units of advskew; 0 takes it
// back.
func (g *Group) Demote(owner string, n int) {
	g.box.put(func() {
		if g.box.demote == nil {
			g.box.demote = make(map[string]int)
		}
		g.box.demote[owner] = n
	})
}

// Peer tells what another node of ours says about this vhid over the
// authenticated sync channel. Call it every 100 ms.
func (g *Group) Peer(node string, s carp.Said) {
	g.box.put(func() {
		if g.box.peers == nil {
			g.box.peers = make(map[string]carp.Said)
		}
		g.box.peers[node] = s
	})
}

// Ears tells what this node hears on the carpdev from anybody at all.
func (g *Group) Ears(e carp.Ears) {
	g.box.put(func() { g.box.ears = &e })
}

// Stamp asks Run to call OnStamp: a sign of life that only the election itself can
// give.
func (g *Group) Stamp() {
	g.box.put(func() { g.box.stamp = true })
}

// takeStamp reports whether a sign of life is asked for.
func (b *mailbox) takeStamp() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	asked := b.stamp
	b.stamp = false
	return asked
}

// Follow tells that another group of the same bundle became MASTER here.
func (g *Group) Follow() {
	g.box.put(func() { g.box.follow = true })
}
