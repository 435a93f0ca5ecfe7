package daemon

import (
	"encoding/binary"
	"fmt"
	stdsync "sync"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/carp/group"
)

const (
	storyKept = 16  // changes that wait for a peer to be reached again
	storyText = 200 // bytes of a reason

	storyAtOnce = 4 // messages to one peer

	// firstFor is for how long a new master looks for the first frame that it takes.
	firstFor = 10 * time.Second
)

// story tells the peers of this node's changes of state, so that `xcarp why` on one node
// shows both sides. What cannot be told at once waits, a little of it.
type story struct {
	mu      stdsync.Mutex
	waiting map[string][]group.Transition // by peer
}

// storyMessage is what follows tellStory:
//
//	how long ago it was, ns (8), term (8), from (1), to (1), length of the group's name (1),
//	the name, the reason
func storyMessage(t *group.Transition, ago time.Duration) []byte {
	b := []byte{tellStory}
	b = binary.BigEndian.AppendUint64(b, uint64(max(ago, 0)))
	b = binary.BigEndian.AppendUint64(b, t.Term)
	b = append(b, byte(t.From), byte(t.To), byte(len(t.Name)))
	b = append(b, t.Name...)
	return append(b, t.Reason[:min(len(t.Reason), storyText)]...)
}

func parseStory(b []byte) (t group.Transition, ago time.Duration, err error) {
	const head = 8 + 8 + 3
	if len(b) < head || len(b) < head+int(b[head-1]) || len(b) > head+255+storyText {
		return t, 0, fmt.Errorf("%d bytes: %w", len(b), errTold)
	}
	ago = time.Duration(binary.BigEndian.Uint64(b))
	t.Term, t.From, t.To = binary.BigEndian.Uint64(b[8:]), carp.State(b[16]), carp.State(b[17])
	name := head + int(b[18])
	t.Name, t.Reason = string(b[head:name]), string(b[name:])
	return t, max(ago, 0), nil
}

// Add tells all peers of a change.
func (s *story) Add(d *Daemon, t group.Transition) {
	s.mu.Lock()
	if s.waiting == nil {
		s.waiting = map[string][]group.Transition{}
	}
	for _, peer := range d.peerNames() {
		all := append(s.waiting[peer], t)
		s.waiting[peer] = all[max(0, len(all)-storyKept):]
	}
	s.mu.Unlock()
	s.Tell(d)
}

// Tell says what waits to the peers that can be reached.
func (s *story) Tell(d *Daemon) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for peer, all := range s.waiting {
		// What waits in the mirror is pushed out by what is newer: a few at a time.
		for n := 0; n < storyAtOnce && len(all) > 0 && d.mirror.Tell(peer, storyMessage(&all[0], group.BootClock().Sub(all[0].At))); n++ {
			all = all[1:]
		}
		s.waiting[peer] = all
	}
}

// peerTold takes what a peer says.
func (d *Daemon) peerTold(peer string, body []byte) {
	if len(body) == 0 || body[0] != tellStory {
		d.pulses.Heard(peer, body)
		return
	}
	t, ago, err := parseStory(body[1:])
	if err != nil {
		d.log.Warn("a peer's message about its state", zap.String("peer", peer), zap.Error(err))
		return
	}
	d.log.Info("peer's state", zap.String("peer", peer), zap.String("group", t.Name), zap.Stringer("from", t.From),
		zap.Stringer("to", t.To), zap.String("reason", t.Reason), zap.Uint64("term", t.Term), zap.Duration("ago", ago))
}

// awaitsFirst has the group's first frame as master looked for.
func (m *member) awaitsFirst(t group.Transition) { m.first.Store(&t) }

// lookForFirst says when the first frame came after the group became master here.
func (d *Daemon) lookForFirst(m *member) {
	t := m.first.Load()
	if t == nil {
		return
	}
	at := m.dev.port.First(m.cfg.VHID)
	if at.IsZero() && group.BootClock().Sub(t.At) < firstFor {
		return
	}
	m.first.CompareAndSwap(t, nil)
	if !at.IsZero() {
		d.log.Info("first frame as master", zap.String("group", t.Name), zap.Duration("after", at.Sub(t.At)))
	}
}
