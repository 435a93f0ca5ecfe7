package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	stdsync "sync"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp/group"
	"github.com/xcarp/xcarp/internal/command"
	"github.com/xcarp/xcarp/internal/config"
)

const (
	// hookQueue is how many changes may wait to be told.
	hookQueue = 256

	// hookFarewell is how long hooks have at an orderly stop, within the service
	// manager's patience.
	hookFarewell = 3 * time.Second

	hookRetryEvery = time.Second
)

// hooks tells programs of changes of state, one after the other in the order of
// the changes. The election only puts a change into the queue.
type hooks struct {
	node string
	log  *zap.Logger
	all  []hook
	news chan struct{} // holds one: the queue is not empty

	mu      stdsync.Mutex
	queue   []change
	seq     uint64
	dropped uint64
	status  []HookStatus // as all
}

type hook struct {
	cfg *config.Hook // but for its groups, which mu guards
	run func(ctx context.Context, env ...string) error
}

// change is a Transition that is to be told.
type change struct {
	group.Transition
	seq     uint64
	at      time.Time // wall clock
	carpdev string
	addrs   string
	hooks   []int // that want to know, by their place
}

// newHooks prepares the programs.
func newHooks(cfg *config.Config, log *zap.Logger) (*hooks, error) {
	h := &hooks{node: cfg.Node, log: log, news: make(chan struct{}, 1)}
	for i := range cfg.Hooks {
		c := &cfg.Hooks[i]
		spec, err := commandSpec(c.Command, c.User)
		if err != nil {
			return nil, fmt.Errorf("hook %s: %w", c.Name, err)
		}
		h.add(c, command.NewRunner(spec).Run)
	}
	return h, nil
}

func (h *hooks) add(c *config.Hook, run func(ctx context.Context, env ...string) error) {
	h.all = append(h.all, hook{c, run})
	h.status = append(h.status, HookStatus{Name: c.Name, Command: c.Command})
}

// Tell queues a change. It does not block: when the queue is full the oldest goes,
// for the newest is what a program must know.
func (h *hooks) Tell(m *config.Group, t group.Transition) {
	addrs := make([]string, len(m.Addresses))
	for i, a := range m.Addresses {
		addrs[i] = a.String()
	}
	h.mu.Lock()
	var hooks []int
	for i, k := range h.all {
		if k.wants(t, m.Shared()) {
			hooks = append(hooks, i)
		}
	}
	if len(hooks) == 0 {
		h.mu.Unlock()
		return
	}
	h.seq++
	h.queue = append(h.queue, change{t, h.seq, time.Now(), m.Carpdev, strings.Join(addrs, " "), hooks})
	over := len(h.queue) > hookQueue
	if over {
		h.queue = h.queue[1:]
		h.dropped++
	}
	h.mu.Unlock()
	if over {
		h.log.Warn("hooks are too slow: a change of state was not told", zap.Int("queued", hookQueue))
	}
	select {
	case h.news <- struct{}{}:
	default:
	}
}

// Follow takes the groups of the same hooks in other configurations.
func (h *hooks) Follow(cfgs ...[]config.Hook) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.all {
		next := *h.all[i].cfg
		next.Groups = nil
		for _, cfg := range cfgs {
			next.Groups = append(next.Groups, cfg[i].Groups...)
		}
		h.all[i].cfg = &next
	}
}

// wants reports whether the hook asks for the change; with mu held.
func (k hook) wants(t group.Transition, group string) bool {
	return slices.Contains(k.cfg.On, t.To.String()) && slices.Contains(k.cfg.Groups, group)
}

// Run works off the queue until the context ends, and then for a short while.
func (h *hooks) Run(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	stop := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(hookFarewell, end)
		context.AfterFunc(life, func() { t.Stop() })
	})
	defer stop()
	for {
		if c, ok := h.next(); ok {
			h.tell(life, c)
			if life.Err() != nil {
				h.giveUp()
				return nil
			}
			continue
		}
		select {
		case <-h.news:
		case <-ctx.Done():
			if h.waiting() == 0 {
				return nil
			}
		}
	}
}

func (h *hooks) next() (change, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.queue) == 0 {
		return change{}, false
	}
	c := h.queue[0]
	h.queue = h.queue[1:]
	return c, true
}

func (h *hooks) waiting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.queue)
}

// giveUp drops what could not be told before the end.
func (h *hooks) giveUp() {
	h.mu.Lock()
	n := len(h.queue)
	h.queue = nil
	h.dropped += uint64(n)
	h.mu.Unlock()
	if n > 0 {
		h.log.Warn("stopping: changes of state were not told to the hooks", zap.Int("changes", n))
	}
}

// superseded reports whether a newer change of the group waits.
func (h *hooks) superseded(group string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.queue, func(c change) bool { return c.Name == group })
}

// tell runs the hooks that want to know.
func (h *hooks) tell(ctx context.Context, c change) {
	for _, i := range c.hooks {
		for try := 0; ; try++ {
			ok := h.run(ctx, i, c)
			if ok || try == h.retries(i) || h.superseded(c.Name) {
				break
			}
			select {
			case <-time.After(hookRetryEvery):
			case <-ctx.Done():
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

func (h *hooks) retries(i int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all[i].cfg.Retries
}

// run runs one hook once and notes what became of it.
func (h *hooks) run(ctx context.Context, i int, c change) bool {
	h.mu.Lock()
	k := h.all[i]
	h.mu.Unlock()
	begun := time.Now()
	h.note(i, func(s *HookStatus) { s.Running = &begun })
	limit, cancel := context.WithTimeout(ctx, k.cfg.Timeout)
	err := k.run(limit,
		"XCARP_NODE="+h.node,
		"XCARP_HOOK="+k.cfg.Name,
		"XCARP_GROUP="+c.Name,
		fmt.Sprintf("XCARP_VHID=%d", c.VHID),
		"XCARP_CARPDEV="+c.carpdev,
		"XCARP_ADDRESSES="+c.addrs,
		"XCARP_FROM="+c.From.String(),
		"XCARP_TO="+c.To.String(),
		"XCARP_REASON="+c.Reason,
		fmt.Sprintf("XCARP_TERM=%d", c.Term),
		fmt.Sprintf("XCARP_SEQ=%d", c.seq),
		"XCARP_TIME="+c.at.Format(time.RFC3339Nano),
	)
	cancel()
	last := &HookRun{Group: c.Name, To: c.To.String(), At: begun, TookMS: float64(time.Since(begun)) / 1e6}
	fields := []zap.Field{zap.String("hook", k.cfg.Name), zap.String("group", c.Name), zap.Stringer("to", c.To),
		zap.Uint64("seq", c.seq), zap.Duration("took", time.Since(begun))}
	if err != nil {
		last.Error = err.Error()
		h.log.Warn("hook failed", append(fields, zap.Error(err))...)
	} else {
		h.log.Info("hook", fields...)
	}
	h.note(i, func(s *HookStatus) {
		s.Running, s.Last = nil, last
		s.Runs++
		if err != nil {
			s.Failures++
		}
	})
	return err == nil
}

func (h *hooks) note(i int, f func(*HookStatus)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.status[i])
}

// Status describes the hooks; nil if there are none.
func (h *hooks) Status() *HooksStatus {
	if len(h.all) == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return &HooksStatus{Queued: len(h.queue), Dropped: h.dropped, Hooks: slices.Clone(h.status)}
}
