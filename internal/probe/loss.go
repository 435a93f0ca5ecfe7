package probe

import "time"

// Interval is the time from one probe of a path to the next.
const Interval = 500 * time.Microsecond

// Shot is one probe.
type Shot struct {
	Sent     time.Duration // when it was sent
	Arrived  time.Duration // when it reached the far end; 0: never, or the far end is not ours
	Answered time.Duration // when its answer came; 0: never
	Arrivals int           // how often it reached the far end
	Answers  int           // how often it was answered
}

// Loss is what happened to a series of probes.
type Loss struct {
	Sent, Lost int
	Doubled    int // that reached the far end, or were answered, more than once

	// Blackout is the time from the sending of the last answered probe before
	// the longest run of lost ones to the sending of the first answered after
	// it. 0 if none was lost.
	Blackout time.Duration
	From     time.Duration // when it began, by the same stamp

	// Open means that the run did not end in the series; Blackout is then a
	// lower bound.
	Open bool

	// Slowest is the longest time from a send to its answer.
	Slowest time.Duration

	// RigStall is the longest gap between two sends beyond the interval: what
	// the measuring machine itself may have added.
	RigStall time.Duration
}

// Measure evaluates probes in the order of sending. end is when the observation
// ended; it closes a run that was still lost.
func Measure(shots []Shot, end time.Duration) Loss {
	l := Loss{Sent: len(shots)}
	for i, s := range shots {
		if i > 0 {
			l.RigStall = max(l.RigStall, s.Sent-shots[i-1].Sent-Interval)
		}
		if s.Answered == 0 {
			l.Lost++
		}
		l.Slowest = max(l.Slowest, s.Answered-s.Sent)
		if s.Arrivals > 1 || s.Answers > 1 {
			l.Doubled++
		}
	}
	longest := 0
	for _, g := range Gaps(shots, end) {
		if g.Lost > longest {
			longest, l.From, l.Blackout, l.Open = g.Lost, g.From, g.To-g.From, g.Open
		}
	}
	return l
}

// Gap is a run of lost probes: from the sending of the last answered one before
// it to the sending of the first after it.
type Gap struct {
	From, To time.Duration
	Lost     int
	Arrived  int  // of these, reached the far end: it was the answers that were lost
	Open     bool // it did not end in the series
}

// Gaps finds all runs of lost probes, in order.
func Gaps(shots []Shot, end time.Duration) []Gap {
	var gaps []Gap
	run, arrived := 0, 0
	var from time.Duration // of the current run
	if len(shots) > 0 {
		from = shots[0].Sent
	}
	for _, s := range shots {
		if s.Answered == 0 {
			run++
			if s.Arrivals > 0 {
				arrived++
			}
			continue
		}
		if run > 0 {
			gaps = append(gaps, Gap{From: from, To: s.Sent, Lost: run, Arrived: arrived})
		}
		run, arrived, from = 0, 0, s.Sent
	}
	if run > 0 {
		gaps = append(gaps, Gap{From: from, To: end, Lost: run, Arrived: arrived, Open: true})
	}
	return gaps
}

// Stall is a gap between two sends: the prober's own.
type Stall struct{ From, To time.Duration }

// Stalls finds the gaps between two sends that are longer than the limit and
// touch the window.
func Stalls(shots []Shot, limit, from, to time.Duration) []Stall {
	var stalls []Stall
	for i := 1; i < len(shots); i++ {
		a, b := shots[i-1].Sent, shots[i].Sent
		if b-a > limit && b > from && a < to {
			stalls = append(stalls, Stall{a, b})
		}
	}
	return stalls
}
