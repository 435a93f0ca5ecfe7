package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// openTestOperator returns the operator's demotions of a folder and what they ask
// for now, by owner.
func openTestOperator(t *testing.T, dir string) (*operator, map[string]int) {
	t.Helper()
	now := map[string]int{}
	o, err := openOperator(openState(dir, zap.NewNop()), zap.NewNop(), func(g string) bool { return g == "wan" }, func(d Demotion, n int) {
		now[d.Owner()+"@"+d.Group] = n
		if n == 0 {
			delete(now, d.Owner()+"@"+d.Group)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	o.Begin()
	return o, now
}

func TestDemotionsExpireAndOutliveTheDaemon(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		run := func(o *operator) (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- o.Run(ctx) }()
			return func() { cancel(); <-done; o.state.Close() }
		}
		expect := func(when string, got map[string]int, want string) {
			t.Helper()
			if fmt.Sprint(got) != want {
				t.Errorf("%s: got %v, want %s", when, got, want)
			}
		}
		o, now := openTestOperator(t, dir)
		stop := run(o)
		for _, d := range []struct {
			Demotion
			span time.Duration
		}{{Demotion{By: 240}, 0}, {Demotion{Group: "wan", By: 10}, time.Hour}, {Demotion{Group: "wan", By: 20}, time.Minute}} {
			if _, err := o.Demote(d.Demotion, d.span); err != nil {
				t.Fatal(err)
			}
		}
		expect("at first", now, "map[operator 1@:240 operator 2@wan:10 operator 3@wan:20]")
		time.Sleep(time.Minute - 1)
		expect("a moment before", now, "map[operator 1@:240 operator 2@wan:10 operator 3@wan:20]")
		time.Sleep(2 * time.Nanosecond)
		expect("after a minute", now, "map[operator 1@:240 operator 2@wan:10]")
		stop()

		o, now = openTestOperator(t, dir)
		expect("another daemon", now, "map[operator 1@:240 operator 2@wan:10]")
		stop = run(o)
		time.Sleep(30 * time.Minute)
		if d, err := o.Demote(Demotion{By: 5}, 0); err != nil || d.ID != 4 {
			t.Errorf("the next is %d, %v, want 4", d.ID, err)
		}
		if gone, err := o.Undemote(1, "root"); err != nil || len(gone) != 1 {
			t.Errorf("undemote: %v, %v", gone, err)
		}
		expect("after undemote", now, "map[operator 2@wan:10 operator 4@:5]")
		stop()

		time.Sleep(time.Hour) // nobody runs
		_, now = openTestOperator(t, dir)
		expect("a third daemon", now, "map[operator 4@:5]")
	})
}

func TestDemotionsThatMakeNoSense(t *testing.T) {
	dir := t.TempDir()
	o, now := openTestOperator(t, dir)
	for _, c := range []struct {
		d    Demotion
		span time.Duration
		want string
	}{
		{Demotion{By: 0}, 0, "demote by 0: write 1 to 255"},
		{Demotion{By: 1, Group: "wna"}, 0, "no group \"wna\": `xcarp show` lists them"},
		{Demotion{By: 1}, -time.Second, "demote for -1s: write a time up to a year, or leave it out for ever"},
		{Demotion{By: 1, Reason: "a\x1b[2J"}, 0, "the reason must be one line of at most 200 bytes"},
	} {
		if _, err := o.Demote(c.d, c.span); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	for range maxOperator {
		if _, err := o.Demote(Demotion{By: 1}, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Demote(Demotion{By: 1}, 0); err == nil || !strings.Contains(err.Error(), "64 demotions already") {
		t.Errorf("got %v", err)
	}
	if gone, err := o.Undemote(0, "root"); err != nil || len(gone) != maxOperator || len(now) != 0 {
		t.Errorf("%d gone, %d left, %v", len(gone), len(now), err)
	}
	// What cannot be kept is not done.
	o.state.dir = filepath.Join(dir, "no-folder\x00")
	if _, err := o.Demote(Demotion{By: 1}, 0); err == nil || len(now) != 0 {
		t.Errorf("demoted by %v without a disk, %v", now, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "demotions.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.state.Close()
	if _, err := openOperator(openState(dir, zap.NewNop()), zap.NewNop(), nil, nil); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("got %v", err)
	}
}
