package sync

import (
	"time"

	"github.com/xcarp/xcarp/internal/ct"
)

// entry is one flow that this node knows, and where each peer stands with it.
// Entries are recycled, never freed: at a steady number of flows nothing is
// allocated.
type entry struct {
	flow ct.Flow // the newest state; of a peer's flow with the timeout that it told

	// from is the peer that told the flow; it counts while epoch is the
	// shadow's, see Mirror.source.
	from  *peer
	epoch uint32

	used    bool          // in the map
	dead    bool          // gone; kept until no peer has to be told any more
	held    bool          // the kernel has a longer timeout than the flow's
	expires time.Duration // when the kernel lets go of a peer's flow by itself
	gen     uint32        // the last dump, or change during it, that mentioned it
	bulk    uint32        // the last bulk update of from that mentioned it

	slots []slot // by peer.index
}

// slot is where one peer stands with an entry.
type slot struct {
	next   *entry        // in the peer's pending queue
	queued bool          // in that queue: the peer lacks the current state
	bulk   bool          // a bulk update waits for it
	known  bool          // the peer was told of it, or told us
	sent   uint64        // the frame in flight with its latest state, 0: none
	at     time.Duration // when it was queued first
}

func (s *slot) idle() bool { return !s.queued && s.sent == 0 }

// shadow is the table in user space. It is guarded by Mirror.mu.
type shadow struct {
	byKey map[ct.Tuple]*entry
	slab  []*entry // every entry there is, used or not: to walk in steps
	free  []*entry
	live  int // used and not dead
	dead  int
	peers int
	epoch uint32

	// A dump of the kernel's table is compared entry by entry, while the table
	// goes on changing: gen tells old from new, and dead entries stay until it
	// is done so that an old message cannot bring them back.
	gen     uint32
	dumping bool
}

func newShadow(peers int) shadow {
	return shadow{byKey: make(map[ct.Tuple]*entry), peers: peers, epoch: 1, gen: 1}
}

func (s *shadow) find(k ct.Tuple) *entry { return s.byKey[k] }

// add makes an entry for a flow that is not in the shadow.
func (s *shadow) add(f *ct.Flow) *entry {
	var e *entry
	if n := len(s.free); n > 0 {
		e, s.free = s.free[n-1], s.free[:n-1]
		slots := e.slots
		clear(slots)
		*e = entry{slots: slots}
	} else {
		e = &entry{slots: make([]slot, s.peers)}
		s.slab = append(s.slab, e)
	}
	e.used, e.flow = true, *f
	s.byKey[f.Orig] = e
	s.live++
	return e
}

// kill marks the entry dead. It goes when nobody needs it, see reap.
func (s *shadow) kill(e *entry) {
	if !e.dead {
		e.dead = true
		s.live--
		s.dead++
	}
}

// revive takes kill back.
func (s *shadow) revive(e *entry) {
	if e.dead {
		e.dead = false
		s.live++
		s.dead--
	}
}

// reap takes a dead entry out once no peer has to be told.
func (s *shadow) reap(e *entry) {
	if !e.used || !e.dead || s.dumping {
		return
	}
	for i := range e.slots {
		if !e.slots[i].idle() {
			return
		}
	}
	delete(s.byKey, e.flow.Orig)
	e.used = false
	s.dead--
	s.free = append(s.free, e)
}

// source returns the peer whose flow it is: the peer told it since our own role
// last changed, and still owns something. Otherwise it is nil: the flow is ours
// if we are an owner, else nobody's.
func (s *shadow) source(e *entry) *peer {
	if e.from == nil || e.epoch != s.epoch || !e.from.owner {
		return nil
	}
	return e.from
}

// sameState compares all but the timeout.
func sameState(a, b *ct.Flow) bool {
	return a.Reply == b.Reply && a.Status == b.Status && a.Mark == b.Mark && a.TCP == b.TCP
}

// rank orders the states of a TCP connection by its life.
func rank(s ct.TCPState) int {
	switch s {
	case ct.TCPSynSent, ct.TCPSynSent2:
		return 1
	case ct.TCPNone:
		return 0
	}
	return int(s) // as the kernel numbers them: SYN_RECV 2 … CLOSE 8
}

// later reports whether a is a later state of the connection than b.
func later(a, b *ct.Flow) bool {
	if a.Orig.Proto == protoTCP {
		return rank(a.TCP.State) > rank(b.TCP.State)
	}
	return a.Status&ct.SeenReply > b.Status&ct.SeenReply
}
