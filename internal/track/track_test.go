package track

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestVerdict(t *testing.T) {
	// answers: + or -; want: the state after each: ? pending, U up, D down.
	for _, c := range []struct {
		name          string
		rise, fall    int
		answers, want string
	}{
		{"one answer decides", 1, 1, "+-+", "UDU"},
		{"pending until risen", 3, 2, "+++", "??U"},
		{"pending until fallen", 3, 2, "--", "?D"},
		{"a lost answer is no fall", 2, 3, "++--+--+---", "?UUUUUUUUUD"},
		{"a lucky answer is no rise", 3, 1, "-++-+++", "DDDDDDU"},
		{"unsteady from the start", 3, 3, "+-+-+-+-+++", "?????DDDDDU"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := verdict{rise: c.rise, fall: c.fall}
			var got strings.Builder
			for _, a := range c.answers {
				got.WriteByte("?UD"[v.observe(a == '+')])
			}
			if got.String() != c.want {
				t.Errorf("%s gave %s, want %s", c.answers, &got, c.want)
			}
		})
	}
}

// probe answers what the test says, after what time the test says.
type probe struct {
	err    error
	demote int
	takes  time.Duration
	deaf   bool // does not hear its context

	checks, running, most int
}

func (p *probe) Check(ctx context.Context) (Reading, error) {
	p.checks++
	p.running++
	p.most = max(p.most, p.running)
	defer func() { p.running-- }()
	expired := ctx.Done()
	if p.deaf {
		expired = nil
	}
	select {
	case <-time.After(p.takes):
		return Reading{RTT: p.takes, Demote: p.demote}, p.err
	case <-expired:
		return Reading{}, errors.New("no answer")
	}
}

// run runs a track in the bubble and notes its changes as "time state demotion".
func run(t *testing.T, c Config) (*Track, *[]string) {
	t.Helper()
	begun := time.Now()
	changes := &[]string{}
	c.Name, c.Demote = "upstream", 240
	c.OnChange = func(s Status) {
		*changes = append(*changes, fmt.Sprint(time.Since(begun), " ", s.State, " ", s.Demote))
	}
	tr := New(c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return tr, changes
}

func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestRiseAndFall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &probe{takes: 2 * time.Millisecond}
		tr, changes := run(t, Config{Every: 100 * time.Millisecond, Timeout: 50 * time.Millisecond, Rise: 2, Fall: 3, Probe: p})
		time.Sleep(99 * time.Millisecond)
		check(t, "state after one answer", tr.Status().State, Pending)
		check(t, "demotion while pending", tr.Status().Demote, 0)
		time.Sleep(151 * time.Millisecond) // to 250 ms; checks at 0, 100, 200
		p.err = errors.New("gone")
		time.Sleep(300 * time.Millisecond) // to 550; failures at 300, 400, 500
		p.err = nil
		time.Sleep(300 * time.Millisecond) // to 850; answers at 600, 700
		check(t, "changes", *changes, []string{"102ms UP 0", "502ms DOWN 240", "702ms UP 0"})
		s := tr.Status()
		check(t, "checks and failures", []uint64{s.Checks, s.Failures}, []uint64{9, 3})
		check(t, "round trip", s.RTT, 2*time.Millisecond)
	})
}

// The time to the verdict is that of Fall checks: a probe that times out costs its
// timeout, not more, and the next one begins on time.
func TestTimeoutIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &probe{takes: time.Hour}
		tr, changes := run(t, Config{Every: 100 * time.Millisecond, Timeout: 60 * time.Millisecond, Rise: 1, Fall: 3, Probe: p})
		time.Sleep(time.Second)
		check(t, "changes", *changes, []string{"260ms DOWN 240"})
		check(t, "error", tr.Status().Err, "no answer")
		check(t, "at the same time", p.most, 1)
	})
}

// A probe that does not come back fails ever on, and no second one is begun. When
// it comes back its answer is too old to count.
func TestHangingProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &probe{takes: 9950 * time.Millisecond, deaf: true}
		tr, changes := run(t, Config{Every: 100 * time.Millisecond, Timeout: 100 * time.Millisecond, Rise: 1, Fall: 3, Probe: p})
		time.Sleep(9 * time.Second)
		check(t, "changes", *changes, []string{"2.2s DOWN 240"})
		check(t, "checks begun", p.checks, 1)
		check(t, "error", tr.Status().Err, errHangs)
		p.takes = 0
		time.Sleep(2 * time.Second)
		check(t, "changes", *changes, []string{"2.2s DOWN 240", "10s UP 0"})
		check(t, "at the same time", p.most, 1)
	})
}

func TestWakeChecksNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &probe{}
		tr, changes := run(t, Config{Every: time.Hour, Timeout: time.Second, Rise: 1, Fall: 1, Probe: p})
		time.Sleep(time.Second)
		p.err = errors.New("gone")
		tr.Wake()
		synctest.Wait()
		check(t, "changes", *changes, []string{"0s UP 0", "1s DOWN 240"})
		p.err = nil
		for range 100 { // a storm of events costs one check per gap
			tr.Wake()
			synctest.Wait()
		}
		time.Sleep(time.Second)
		check(t, "changes", *changes, []string{"0s UP 0", "1s DOWN 240", "1.01s UP 0"})
		check(t, "checks", p.checks, 3)
	})
}

// A file may say by how much; a new number counts at once.
func TestDemotionOfTheReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &probe{err: errors.New("says 5"), demote: 5}
		_, changes := run(t, Config{Every: time.Second, Timeout: time.Second, Rise: 1, Fall: 1, Probe: p})
		time.Sleep(500 * time.Millisecond)
		p.demote = 7
		time.Sleep(time.Second)
		p.demote = 0
		time.Sleep(time.Second)
		p.err = nil
		time.Sleep(time.Second)
		check(t, "changes", *changes, []string{"0s DOWN 5", "1s DOWN 7", "2s DOWN 240", "3s UP 0"})
	})
}

// Down stays down with its demotion until it has risen.
func TestDownUntilRisen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &probe{err: errors.New("gone")}
		tr, changes := run(t, Config{Every: time.Second, Timeout: time.Second, Rise: 3, Fall: 1, Probe: p})
		time.Sleep(500 * time.Millisecond)
		p.err = nil
		time.Sleep(2 * time.Second)
		check(t, "state after two answers", tr.Status().State, Down)
		check(t, "demotion after two answers", tr.Status().Demote, 240)
		time.Sleep(time.Second)
		check(t, "changes", *changes, []string{"0s DOWN 240", "3s UP 0"})
	})
}
