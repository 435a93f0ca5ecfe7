package track

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Probe asks once whether something is there.
type Probe interface {
	// Check returns nil if it is, else what an operator must know. It should
	// return when ctx is done. It is not called twice at the same time.
	Check(ctx context.Context) (Reading, error)
}

// Notifier is a Probe that learns of changes by itself. Notify is called once,
// before the first Check; wake does not block.
type Notifier interface {
	Notify(wake func())
}

// Reading is what a Check found beside yes or no.
type Reading struct {
	RTT    time.Duration // of an answer over the network; 0: there is none
	Demote int           // of a failure, instead of the configured one; 0: that
}

const (
	// wakeGap is the least time between two checks that events ask for.
	wakeGap = 10 * time.Millisecond

	// grace is how much later than its timeout a probe may return: a command
	// that does not die at once takes a second.
	grace = 2 * time.Second
)

var errHangs = errors.New("the check before still hangs")

// Config is one Track.
type Config struct {
	Name    string
	What    string // as an operator names it: "ping 203.0.113.254"
	Every   time.Duration
	Timeout time.Duration
	Rise    int
	Fall    int
	Demote  int
	Probe   Probe

	// OnChange is called by Run after each change of State or demotion. It must
	// not block. May be nil.
	OnChange func(Status)

	Log *zap.Logger // nil: none
}

// Status is a snapshot of a Track.
type Status struct {
	Name     string
	What     string
	State    State
	Since    time.Time // when it became so; the start while Pending
	Demote   int       // what it asks for now
	Err      string    // of the last check, empty if it succeeded
	RTT      time.Duration
	Checks   uint64
	Failures uint64 // among Checks
}

// Track watches one thing.
type Track struct {
	cfg     Config
	wake    chan struct{}  // holds one: check now
	hung    <-chan outcome // of a probe that did not come back in time; Run's
	verdict verdict        // Run's

	mu     sync.Mutex
	status Status
}

type outcome struct {
	Reading
	err error
}

// New returns a Track. It does nothing until Run.
func New(c Config) *Track {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	t := &Track{
		cfg:     c,
		wake:    make(chan struct{}, 1),
		verdict: verdict{rise: c.Rise, fall: c.Fall},
		status:  Status{Name: c.Name, What: c.What, Since: time.Now()},
	}
	if n, ok := c.Probe.(Notifier); ok {
		n.Notify(t.Wake)
	}
	return t
}

// Wake asks for a check now. It does not block.
func (t *Track) Wake() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Status returns a snapshot.
func (t *Track) Status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.status
}

// Run checks until the context ends.
func (t *Track) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var begun time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-t.wake:
			if wait := wakeGap - time.Since(begun); wait > 0 {
				timer.Reset(wait)
				continue
			}
		}
		begun = time.Now()
		if o, ok := t.check(ctx); ok {
			t.observe(o)
		}
		timer.Reset(max(0, t.cfg.Every-time.Since(begun)))
	}
}

// check asks the probe once. It reports false if the context ended meanwhile.
func (t *Track) check(ctx context.Context) (outcome, bool) {
	if t.hung != nil {
		select {
		case <-t.hung:
			t.hung = nil
		default:
			return outcome{err: errHangs}, true
		}
	}
	asking, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	done := make(chan outcome, 1)
	go func() {
		r, err := t.cfg.Probe.Check(asking)
		done <- outcome{r, err}
	}()
	late := time.NewTimer(t.cfg.Timeout + grace)
	defer late.Stop()
	select {
	case o := <-done:
		return o, ctx.Err() == nil
	case <-late.C:
		t.hung = done
		return outcome{err: errHangs}, ctx.Err() == nil
	}
}

// observe counts an answer and tells of a change.
func (t *Track) observe(o outcome) {
	t.mu.Lock()
	before := t.status
	s := &t.status
	s.Checks++
	s.Err, s.RTT = "", o.RTT
	if o.err != nil {
		s.Failures++
		s.Err = o.err.Error()
	}
	s.State = t.verdict.observe(o.err == nil)
	switch {
	case s.State != Down:
		s.Demote = 0
	case o.err == nil: // not yet risen
	case o.Demote > 0:
		s.Demote = o.Demote
	default:
		s.Demote = t.cfg.Demote
	}
	if s.State == Down && s.Demote == 0 {
		s.Demote = t.cfg.Demote // unsteady from the start
	}
	if s.State != before.State {
		s.Since = time.Now()
	}
	after := *s
	t.mu.Unlock()
	if after.State == before.State && after.Demote == before.Demote {
		return
	}
	why := after.Err
	if why == "" {
		why = "it answers"
		if after.State == Down {
			why = "it answers now and then"
		}
	}
	t.cfg.Log.Info("track", zap.String("track", after.Name), zap.String("what", after.What), zap.Stringer("from", before.State),
		zap.Stringer("to", after.State), zap.Int("demote", after.Demote), zap.String("reason", why))
	if t.cfg.OnChange != nil {
		t.cfg.OnChange(after)
	}
}
