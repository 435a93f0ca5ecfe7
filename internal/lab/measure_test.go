package lab

import (
	"testing"
	"time"
)

// arrivals makes one arrival of ten bytes at each millisecond given.
func arrivals(ms ...int) []Arrival {
	var a []Arrival
	for i, at := range ms {
		a = append(a, Arrival{At: time.Duration(at) * time.Millisecond, Total: int64(10 * (i + 1))})
	}
	return a
}

func TestMeasureStall(t *testing.T) {
	const m = time.Millisecond
	for _, c := range []struct {
		name       string
		arrivals   []Arrival
		fault, end time.Duration
		want       Stall
	}{
		{"the longest gap after the fault", arrivals(0, 2, 4, 54, 56, 76), 3 * m, 80 * m, Stall{Length: 50 * m, From: 4 * m}},
		{"a gap that the fault fell into counts whole", arrivals(0, 2, 42, 44), 10 * m, 50 * m, Stall{Length: 40 * m, From: 2 * m}},
		{"a gap before the fault does not count", arrivals(0, 90, 92, 97), 91 * m, 98 * m, Stall{Length: 5 * m, From: 92 * m}},
		{"a stream that ends is open", arrivals(0, 2, 4), 3 * m, 100 * m, Stall{Length: 96 * m, From: 4 * m, Open: true}},
		{"what comes after the end does not count", arrivals(0, 2, 200), 1 * m, 100 * m, Stall{Length: 98 * m, From: 2 * m, Open: true}},
		{"no payload at all", nil, 10 * m, 100 * m, Stall{Length: 90 * m, From: 10 * m, Open: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := MeasureStall(c.arrivals, c.fault, c.end); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestSurvived(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name     string
		arrivals []Arrival // 10 bytes each
		unsent   int64
		end      time.Duration
		want     bool
	}{
		{"new payload in time", arrivals(500, 3000), 15, 12 * s, true},
		{"only what was in flight at the fault", arrivals(500, 1001), 20, 12 * s, false},
		{"new payload after the limit", arrivals(500, 11001), 15, 12 * s, false},
		{"new payload at the limit", arrivals(500, 11000), 15, 12 * s, true},
		{"new payload only after healing", arrivals(500, 5000), 15, 4 * s, false},
		{"nothing", nil, 0, 12 * s, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Survived(c.arrivals, c.unsent, 1*s, c.end); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}
