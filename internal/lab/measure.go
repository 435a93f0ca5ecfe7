package lab

import "time"

// Arrival is payload that reached the client.
type Arrival struct {
	At    time.Duration
	Total int64 // bytes up to and including this arrival
}

// Stall is the longest time without payload.
type Stall struct {
	Length, From time.Duration
	Open         bool // no payload came any more; Length is a lower bound
}

// MeasureStall finds the longest gap between arrivals that touches the window
// from fault to end, which also closes the last gap.
func MeasureStall(arrivals []Arrival, fault, end time.Duration) Stall {
	var s Stall
	var last time.Duration
	seen := false
	for _, a := range arrivals {
		if a.At > end {
			break
		}
		if seen && a.At >= fault && a.At-last > s.Length {
			s = Stall{Length: a.At - last, From: last}
		}
		last, seen = a.At, true
	}
	if !seen {
		last = fault
	}
	if end-last > s.Length {
		s = Stall{Length: end - last, From: last, Open: true}
	}
	return s
}

// reached returns when the client had received more than the offset, and false
// if it had not by the end.
func reached(arrivals []Arrival, offset int64, end time.Duration) (time.Duration, bool) {
	for _, a := range arrivals {
		if a.At > end {
			break
		}
		if a.Total > offset {
			return a.At, true
		}
	}
	return 0, false
}

// SurvivalLimit is how long after the fault new payload may come at the latest.
const SurvivalLimit = 10 * time.Second

// Survived reports whether payload that did not exist when the pair had settled
// reached the client within SurvivalLimit of the fault and before end.
func Survived(arrivals []Arrival, unsent int64, fault, end time.Duration) bool {
	_, ok := reached(arrivals, unsent, min(end, fault+SurvivalLimit))
	return ok
}
