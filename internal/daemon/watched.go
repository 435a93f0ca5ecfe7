package daemon

import (
	"sync/atomic"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// watched is one group of one peer. The watch is the thread's.
type watched struct {
	member  *member
	peer    string
	watch   *carp.Watch
	ways    [2]*askee
	last    carp.Finding
	acted   time.Time // when the group was last told something, and what
	actedOn carp.Silence
	behind  time.Time // since when the peer, as last heard, is master of an earlier term
	fenced  uint64    // the first nonce of the claims for that; 0: none, or acknowledged
	vouch   uint64    // the newest term of which the peer has said that it is MASTER
	hung    bool      // the group was told to claim from a daemon that hangs

	*shown // by the thread, to others
}

// shown is what others read of a group of a peer.
type shown struct {
	silence  atomic.Uint32
	said     atomic.Pointer[carp.Said] // of itself, state and term; nil: nothing yet
	heard    atomic.Int64              // when the peer last answered on the carpdev, boot time
	demotion atomic.Uint32
	limit    atomic.Int64
	slowest  atomic.Int64
	slowed   atomic.Int64
	regrets  atomic.Int64
	deaf     atomic.Bool
}

// state is where the peer's group last said that it is.
func (s *shown) state() carp.State {
	if said := s.said.Load(); said != nil {
		return said.State
	}
	return carp.Init
}

// isBehind reports whether we are master, and the peer is master of an earlier term by
// what was last heard of it.
func (w *watched) isBehind(now time.Time) bool {
	answer, _ := w.watch.Last()
	state, term := w.member.group.Stands()
	switch {
	case state != carp.Master || answer.State != carp.Master || answer.Term >= term || w.acknowledged(term):
		w.behind, w.fenced = time.Time{}, 0
	case w.behind.IsZero():
		w.behind = now
	}
	return !w.behind.IsZero()
}

// acknowledged reports whether the peer's last word about claims is that we have the term.
func (w *watched) acknowledged(term uint64) bool {
	for _, a := range w.ways {
		if a == nil {
			continue
		}
		if h, ok := a.path.Claimed(); ok && h.Kind == carp.PulseAck && h.Term == term {
			return true
		}
	}
	return false
}

// vouched tells the group that the peer answers as its master, if that is news or the
// group is making way.
func (w *watched) vouched() {
	answer, _ := w.watch.Last()
	if s := w.stands(); answer.State == carp.Master && (s == carp.Drain || s == carp.Backup && answer.Term > w.vouch) {
		w.vouch = answer.Term
		w.member.group.Do(func(m *carp.Machine, now time.Time) carp.Effects { return m.Vouched(now, answer.Term) })
	}
}

// show says to others what was found.
func (w *watched) show() {
	w.silence.Store(uint32(w.last.Silence))
	answer, at := w.watch.Last()
	if s := w.said.Load(); !at.IsZero() && (s == nil || s.State != answer.State || s.Term != answer.Term) {
		w.said.Store(&carp.Said{State: answer.State, Term: answer.Term})
	}
	if at := w.watch.Heard(carp.PathCarpdev); !at.IsZero() {
		w.heard.Store(int64(carp.SinceBoot(at)))
	}
	w.demotion.Store(uint32(answer.Demotion))
	w.deaf.Store(w.last.Deaf)
	w.limit.Store(int64(w.last.Limit))
	w.slowest.Store(int64(w.watch.Slowest(carp.PathCarpdev)))
	slowed := w.watch.Slowed()
	if w.stands() != carp.Backup {
		slowed = 0 // it asks less often anyway
	}
	w.slowed.Store(int64(slowed))
	w.regrets.Store(int64(w.watch.Regrets()))
}

// news reports whether a verdict is another one than the group was told, or that is a
// while ago. One that has just come about waits for nothing.
func (w *watched) news(s carp.Silence, now time.Time) bool {
	return s != w.actedOn || now.Sub(w.acted) >= pulseAgain
}

// stands returns where our group stands.
func (w *watched) stands() carp.State {
	s, _ := w.member.group.Stands()
	return s
}
