package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/carp/group"
	"github.com/xcarp/xcarp/internal/config"
)

// scribe is a hook that writes down what it is told.
type scribe struct {
	takes time.Duration
	fails int // that many times
	told  []string
	most  int
	now   int
}

func (s *scribe) run(ctx context.Context, env ...string) error {
	s.now++
	s.most = max(s.most, s.now)
	defer func() { s.now-- }()
	get := func(key string) string {
		i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, key+"=") })
		if i < 0 {
			return "?"
		}
		return env[i][len(key)+1:]
	}
	s.told = append(s.told, strings.Join([]string{get("XCARP_SEQ"), get("XCARP_GROUP"), get("XCARP_FROM"), get("XCARP_TO"), get("XCARP_TERM"), get("XCARP_REASON")}, " "))
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return errors.New("killed")
	}
	if s.fails > 0 {
		s.fails--
		return errors.New("exit status 1")
	}
	return nil
}

func startHooks(t *testing.T, add func(*hooks)) (h *hooks, stop func()) {
	t.Helper()
	h = &hooks{node: "fw-a", log: zap.NewNop(), news: make(chan struct{}, 1)}
	add(h)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return h, stop
}

func hookOn(name string, timeout time.Duration, retries int, on ...string) *config.Hook {
	return &config.Hook{Name: name, On: on, Groups: []string{"lan", "wan"}, Timeout: timeout, Retries: retries}
}

func tell(h *hooks, name string, from, to carp.State, term uint64) {
	h.Tell(&config.Group{Name: name}, group.Transition{Name: name, From: from, To: to, Term: term, Reason: "a test"})
}

func TestHooksAreToldInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, masters := &scribe{takes: time.Second}, &scribe{takes: time.Second}
		h, stop := startHooks(t, func(h *hooks) {
			h.add(hookOn("all", time.Minute, 0, "MASTER", "BACKUP"), all.run)
			h.add(hookOn("masters", time.Minute, 0, "MASTER"), masters.run)
		})
		begun := time.Now()
		tell(h, "lan", carp.Backup, carp.Master, 7)
		tell(h, "wan", carp.Backup, carp.Master, 3)
		tell(h, "lan", carp.Master, carp.Drain, 7) // asked for by nobody
		tell(h, "lan", carp.Drain, carp.Backup, 8)
		tell(h, "dmz", carp.Drain, carp.Backup, 8) // of a group that nobody asked for
		if took := time.Since(begun); took != 0 {
			t.Errorf("the election waited %v", took)
		}
		time.Sleep(10 * time.Second)
		stop()
		want := "[1 lan BACKUP MASTER 7 a test 2 wan BACKUP MASTER 3 a test 3 lan DRAIN BACKUP 8 a test]"
		if got := fmt.Sprint(all.told); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got := len(masters.told); got != 2 {
			t.Errorf("masters: %q", masters.told)
		}
		s := h.Status()
		if s.Hooks[0].Runs != 3 || s.Hooks[0].Failures != 0 || s.Hooks[1].Last.Group != "wan" || s.Hooks[1].Last.TookMS != 1000 || s.Queued != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestHookTimeoutAndRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang, shaky := &scribe{takes: time.Hour}, &scribe{fails: 2}
		h, stop := startHooks(t, func(h *hooks) {
			h.add(hookOn("hang", 2*time.Second, 0, "MASTER"), hang.run)
			h.add(hookOn("shaky", time.Second, 5, "MASTER"), shaky.run)
		})
		tell(h, "lan", carp.Backup, carp.Master, 1)
		time.Sleep(time.Second)
		if s := h.Status(); s.Hooks[0].Running == nil || s.Hooks[0].Runs != 0 {
			t.Errorf("while it runs: %+v", s.Hooks[0])
		}
		time.Sleep(time.Minute)
		s := h.Status()
		if last := s.Hooks[0].Last; last == nil || last.Error != "killed" || last.TookMS != 2000 || s.Hooks[0].Failures != 1 || s.Hooks[0].Running != nil {
			t.Errorf("hang: %+v, %+v", s.Hooks[0], last)
		}
		if len(shaky.told) != 3 || s.Hooks[1].Failures != 2 || s.Hooks[1].Last.Error != "" {
			t.Errorf("shaky: %q, %+v", shaky.told, s.Hooks[1])
		}
		// What is out of date is not tried again.
		shaky.fails, hang.takes = 100, 0
		shaky.told = nil
		tell(h, "lan", carp.Backup, carp.Master, 2)
		tell(h, "lan", carp.Backup, carp.Master, 3)
		time.Sleep(time.Minute)
		if got := len(shaky.told); got != 1+6 {
			t.Errorf("told %d times, want once of term 2 and 6 times of term 3: %q", got, shaky.told)
		}
		stop()
	})
}

// A full queue loses the oldest, never the newest, and never blocks.
func TestHookQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scribe{takes: time.Second}
		h, stop := startHooks(t, func(h *hooks) { h.add(hookOn("slow", time.Minute, 0, "MASTER"), s.run) })
		tell(h, "lan", carp.Backup, carp.Master, 0)
		synctest.Wait() // it runs
		for i := range hookQueue + 10 {
			tell(h, "lan", carp.Backup, carp.Master, uint64(i+1))
		}
		if st := h.Status(); st.Queued != hookQueue || st.Dropped != 10 {
			t.Errorf("queued %d, dropped %d", st.Queued, st.Dropped)
		}
		time.Sleep((hookQueue + 20) * time.Second)
		stop()
		last := s.told[len(s.told)-1]
		if want := fmt.Sprintf("%d lan BACKUP MASTER %d a test", hookQueue+11, hookQueue+10); last != want || len(s.told) != hookQueue+1 {
			t.Errorf("told %d, the last %q, want %q", len(s.told), last, want)
		}
		if !strings.HasPrefix(s.told[1], "12 ") || s.most != 1 {
			t.Errorf("the second was %q; %d at the same time", s.told[1], s.most)
		}
	})
}

// An orderly stop tells what is queued, within bounds.
func TestHooksAtTheEnd(t *testing.T) {
	for _, c := range []struct {
		name         string
		takes, until time.Duration
		told         int
	}{
		{"quick hooks hear all", 100 * time.Millisecond, 300 * time.Millisecond, 3},
		{"slow ones are killed", time.Minute, hookFarewell, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scribe{takes: c.takes}
				h, stop := startHooks(t, func(h *hooks) { h.add(hookOn("h", time.Hour, 0, "BACKUP"), s.run) })
				for range 3 {
					tell(h, "lan", carp.Drain, carp.Backup, 1)
				}
				begun := time.Now()
				stop()
				if took := time.Since(begun); took != c.until || len(s.told) != c.told {
					t.Errorf("%v, told %d; want %v, %d", took, len(s.told), c.until, c.told)
				}
			})
		})
	}
}
