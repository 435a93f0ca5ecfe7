package daemon

import (
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// TestLinesAreAskedAtTheirPace however often the thread wakes up, and together where asks
// are slowed.
func TestLinesAreAskedAtTheirPace(t *testing.T) {
	for _, tt := range []struct {
		name        string
		slowed      bool
		paces       []time.Duration
		apart, wake time.Duration
		want        []int // asks in 6 s
		wakes       int   // with an ask
	}{
		{"one by one", false, []time.Duration{5 * time.Millisecond, 5 * time.Millisecond}, 2 * time.Millisecond, time.Millisecond, []int{1200, 1200}, 2400},
		{"together", true, []time.Duration{50 * time.Millisecond, 50 * time.Millisecond}, 20 * time.Millisecond, 5 * time.Millisecond, []int{120, 120}, 120},
		{"woken up for something else", true, []time.Duration{600 * time.Millisecond, 600 * time.Millisecond}, 0, 100 * time.Millisecond, []int{10, 10}, 10},
		{"beside one that drains, at most twice as often", true, []time.Duration{150 * time.Millisecond, 600 * time.Millisecond}, 0, time.Millisecond, []int{40, 20}, 40},
	} {
		start := carp.BootTime(time.Hour)
		var p pulsePlan
		for i, pace := range tt.paces {
			p.lines = append(p.lines, &line{pace: pace, next: start.Add(time.Duration(i) * tt.apart)})
		}
		asks, wakes := make([]int, len(p.lines)), 0
		for now := start; now.Before(start.Add(6 * time.Second)); now = now.Add(tt.wake) {
			p.turns(now, tt.slowed)
			asked := false
			for i, l := range p.lines {
				if l.goes {
					asks[i]++
					asked = true
				}
			}
			if asked {
				wakes++
			}
		}
		for i, want := range tt.want {
			if asks[i] != want {
				t.Errorf("%s: line %d asked %d times in 6 s at a pace of %v, want %d", tt.name, i, asks[i], tt.paces[i], want)
			}
		}
		if wakes != tt.wakes {
			t.Errorf("%s: asked at %d times, want %d", tt.name, wakes, tt.wakes)
		}
	}
}
