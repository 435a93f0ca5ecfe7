package daemon

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// A node after its start, as a story: what happens, and what it then waits for.
func TestReadiness(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	type fact struct {
		at   float64
		what string
		want string // held or open, ready, preempt delay; what it waits for
	}
	for _, c := range []struct {
		name                   string
		startup, settle, delay time.Duration
		story                  []fact
	}{
		{"nothing configured", 0, 0, 0, []fact{
			{0, "", "open 240 0 carpdev up; route; connection table in sync"},
			{0, "up", "open 240 0 route; connection table in sync"},
			{1, "synced", "open 240 0 route"},
			{2, "route", "open 0 0 "},
			{3, "down", "open 0 0 "}, // asked once
			{3, "lost", "open 0 0 "},
		}},
		{"a link that flaps settles anew", 0, time.Second, 0, []fact{
			{0, "synced", "open 240 0 carpdev up; route"},
			{0, "route", "open 240 0 carpdev up"},
			{1, "up", "open 240 0 carpdev settled, 1s left"},
			{1.5, "down", "open 240 0 carpdev up"},
			{1.9, "up", "open 240 0 carpdev settled, 1s left"},
			{2.5, "up", "open 240 0 carpdev settled, 400ms left"}, // said again
			{2.9, "", "open 0 0 "},
		}},
		{"the delay runs from readiness", 0, 0, 30 * time.Second, []fact{
			{0, "up", "open 240 0 route; connection table in sync"},
			{5, "synced", "open 240 0 route"},
			{10, "route", "open 0 2 preempt delay, 30s left"},
			{39.5, "", "open 0 2 preempt delay, 500ms left"},
			{40, "", "open 0 0 "},
		}},
		{"a master has nobody to wait for", 0, 0, 30 * time.Second, []fact{
			{0, "up", "open 240 0 route; connection table in sync"},
			{3, "master", "open 240 0 route; connection table in sync"},
			{4, "synced", "open 240 0 route"},
			{5, "route", "open 0 0 "},
		}},
		{"held in INIT", 5 * time.Second, time.Second, 0, []fact{
			{0, "up", "held 240 0 startup delay, 5s left; carpdev settled, 1s left; route; connection table in sync"},
			{1, "synced", "held 240 0 startup delay, 4s left; route"},
			{2, "route", "held 240 0 startup delay, 3s left"},
			{5, "", "open 0 0 "},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &readiness{startup: c.startup, settle: c.settle, delay: c.delay, begun: start, pending: map[string]bool{"route": true}}
			for _, f := range c.story {
				now := at(f.at)
				switch f.what {
				case "up", "down":
					r.link(now, f.what == "up")
				case "master":
					r.master(now)
				case "synced":
					r.synced = true
				case "route":
					delete(r.pending, "route")
				case "lost":
					r.synced = false
				case "": // only Run's timer looks
					if due, ok := r.deadline(); f.at > 0 && (!ok || strings.HasSuffix(f.want, " ") && due.After(now)) {
						t.Errorf("%gs: nobody would have looked: %v, %v", f.at, due, ok)
					}
				}
				r.step(now)
				ready, preempt := r.demotions()
				got := strings.Join([]string{map[bool]string{true: "open", false: "held"}[r.open], strconv.Itoa(ready), strconv.Itoa(preempt), strings.Join(r.waits(now), "; ")}, " ")
				if got != f.want {
					t.Errorf("%gs %s: got %q, want %q", f.at, f.what, got, f.want)
				}
			}
		})
	}
}
