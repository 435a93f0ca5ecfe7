package lab

import "time"

// Shot is one probe.
type Shot struct {
	Sent     time.Duration // when it was sent
	Answered time.Duration // when its answer came; 0: never
}

// Loss is what happened to a series of probes.
type Loss struct {
	Sent, Lost int

	// Blackout is the time from the sending of the last answered probe before
	// the longest run of lost ones to the sending of the first answered after
	// it. 0 if none was lost.
	Blackout time.Duration
	From     time.Duration // when it began, by the same stamp

	// Open means that the run did not end in the series; Blackout is then a
	// lower bound.
	Open bool

	// RigStall is the longest gap between two sends beyond the interval: what
	// the measuring machine itself may have added.
	RigStall time.Duration
}

// MeasureLoss evaluates probes in the order of sending. end is when the
// observation ended; it closes a run that was still lost.
func MeasureLoss(shots []Shot, end time.Duration) Loss {
	l := Loss{Sent: len(shots)}
	var longest, run int
	var from time.Duration // of the current run
	if len(shots) > 0 {
		from = shots[0].Sent
	}
	for i, s := range shots {
		if i > 0 {
			l.RigStall = max(l.RigStall, s.Sent-shots[i-1].Sent-ProbeInterval)
		}
		if s.Answered == 0 {
			l.Lost++
			run++
			continue
		}
		if run > longest {
			longest, l.From, l.Blackout = run, from, s.Sent-from
		}
		run, from = 0, s.Sent
	}
	if run > longest {
		l.From, l.Blackout, l.Open = from, end-from, true
	}
	return l
}

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
