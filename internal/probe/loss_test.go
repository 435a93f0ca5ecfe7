package probe

import (
	"slices"
	"testing"
	"time"
)

// shots makes probes from a picture, one per interval: '.' answered, 'x' lost,
// '>' lost after it reached the far end, '_' not sent, because the rig itself stalled.
func shots(picture string) []Shot {
	var s []Shot
	for i, c := range picture {
		at := time.Duration(i+1) * Interval
		switch c {
		case '.':
			s = append(s, Shot{Sent: at, Answered: at + 100*time.Microsecond})
		case 'x':
			s = append(s, Shot{Sent: at})
		case '>':
			s = append(s, Shot{Sent: at, Arrived: at + 50*time.Microsecond, Arrivals: 1})
		}
	}
	return s
}

func TestMeasure(t *testing.T) {
	const i = Interval
	for _, c := range []struct {
		name, picture string
		end           time.Duration
		want          Loss
	}{
		{"no probes", "", 0, Loss{}},
		{"nothing lost is no blackout", ".....", 6 * i, Loss{Sent: 5}},
		{"a run counts from send to send", "..xxx..", 8 * i, Loss{Sent: 7, Lost: 3, From: 2 * i, Blackout: 4 * i}},
		{"the longest run counts", "..x..xx..x.", 12 * i, Loss{Sent: 11, Lost: 4, From: 5 * i, Blackout: 3 * i}},
		{"the first of equals counts", ".xx..xx.", 9 * i, Loss{Sent: 8, Lost: 4, From: 1 * i, Blackout: 3 * i}},
		{"a run from the start counts from its first send", "xx..", 5 * i, Loss{Sent: 4, Lost: 2, From: 1 * i, Blackout: 2 * i}},
		{"a run to the end is open", "..xxx", 9 * i, Loss{Sent: 5, Lost: 3, From: 2 * i, Blackout: 7 * i, Open: true}},
		{"a longer closed run wins over an open one", "..xxx..x", 9 * i, Loss{Sent: 8, Lost: 4, From: 2 * i, Blackout: 4 * i}},
		{"the rig's stall is no loss", "..__..", 7 * i, Loss{Sent: 4, RigStall: 2 * i}},
		{"a stall within a run lengthens it and is reported", ".x__x.", 7 * i,
			Loss{Sent: 4, Lost: 2, From: 1 * i, Blackout: 5 * i, RigStall: 2 * i}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want.Lost < c.want.Sent {
				c.want.Slowest = 100 * time.Microsecond
			}
			if got := Measure(shots(c.picture), c.end); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestMeasureCountsCopies(t *testing.T) {
	s := shots("....x.")
	s[1].Arrivals = 2
	s[2].Arrivals, s[2].Answers = 1, 2
	s[3].Arrivals, s[3].Answers = 1, 1
	s[4].Arrivals = 2 // arrived twice, answered never
	if got := Measure(s, 7*Interval); got.Doubled != 3 || got.Lost != 1 {
		t.Errorf("got %+v, want 3 doubled and 1 lost", got)
	}
}

func TestGaps(t *testing.T) {
	const i = Interval
	got := Gaps(shots("x..x>.>"), 9*i)
	want := []Gap{{1 * i, 2 * i, 1, 0, false}, {3 * i, 6 * i, 2, 1, false}, {6 * i, 9 * i, 1, 1, true}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestStallsAreThoseOfTheWindow(t *testing.T) {
	const i = Interval
	s := shots("..___..____...") // gaps of 4 and 5 intervals, at 2 and 7
	for _, c := range []struct {
		name            string
		limit, from, to time.Duration
		want            []Stall
	}{
		{"both", 2 * i, 0, 20 * i, []Stall{{2 * i, 6 * i}, {7 * i, 12 * i}}},
		{"at the limit is not beyond it", 4 * i, 0, 20 * i, []Stall{{7 * i, 12 * i}}},
		{"one that reaches into the window", 2 * i, 5 * i, 7 * i, []Stall{{2 * i, 6 * i}}},
		{"none touches it", 2 * i, 12 * i, 20 * i, nil},
	} {
		if got := Stalls(s, c.limit, c.from, c.to); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
