package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/xcarp/xcarp/internal/probe"
)

// Sight is what a probe saw of a real pair of routers.
type Sight struct {
	Address     string  `json:"address"`
	Seconds     float64 `json:"seconds"`
	Sent        int     `json:"sent"`
	Lost        int     `json:"lost"`
	Doubled     int     `json:"doubled"`       // answered more than once
	BlackoutMS  float64 `json:"blackout_ms"`   // the longest
	SenderGapMS float64 `json:"sender_gap_ms"` // the prober's own longest gap
	Gaps        []Span  `json:"gaps"`          // since the beginning
	Stalls      []Span  `json:"stalls"`        // of the prober itself, over 2 ms
}

// NewSight sums up probes of one address.
func NewSight(address string, shots []probe.Shot, end time.Duration) Sight {
	l := probe.Measure(shots, end)
	s := Sight{
		Address: address, Seconds: end.Seconds(), Sent: l.Sent, Lost: l.Lost, Doubled: l.Doubled,
		BlackoutMS: millis(l.Blackout), SenderGapMS: millis(l.RigStall + probe.Interval), Gaps: []Span{}, Stalls: []Span{},
	}
	for _, g := range probe.Gaps(shots, end) {
		s.Gaps = append(s.Gaps, Span{Lane: "probe", FromMS: millis(g.From), ToMS: millis(g.To), Open: g.Open, Lost: g.Lost})
	}
	for _, g := range probe.Stalls(shots, RejectGap, 0, end) {
		s.Stalls = append(s.Stalls, Span{Lane: "rig", FromMS: millis(g.From), ToMS: millis(g.To)})
	}
	return s
}

const (
	sightColumns = 60
	sightLongest = 10 // gaps that are listed
)

// SightsText prints what was seen, with a bar on an axis of time for each.
func SightsText(all []Sight, unicode bool) string {
	full, gap := "#", "."
	if unicode {
		full, gap = "█", "·"
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, s := range all {
		fmt.Fprintf(w, "%s\t%s\n", s.Address, bar(s, full, gap))
		fmt.Fprintf(w, "\t%d of %d probes lost in %.1f s, %d answered twice; longest blackout %.1f ms; the prober's own longest gap %.1f ms\n",
			s.Lost, s.Sent, s.Seconds, s.Doubled, s.BlackoutMS, s.SenderGapMS)
		for i, g := range s.Gaps {
			if i == sightLongest {
				fmt.Fprintf(w, "\tand %d more\n", len(s.Gaps)-i)
				break
			}
			bound := ""
			if g.Open {
				bound = "at least "
			}
			fmt.Fprintf(w, "\tat %.3f s: nothing for %s%.1f ms\n", g.FromMS/1000, bound, g.ToMS-g.FromMS)
		}
	}
	if err := w.Flush(); err != nil {
		panic(err) // a Builder takes everything
	}
	return b.String()
}

// bar marks the columns in which something was lost.
func bar(s Sight, full, gap string) string {
	dark := [sightColumns]bool{}
	for _, g := range s.Gaps {
		column := func(ms float64) int { return min(int(ms/1000/s.Seconds*sightColumns), sightColumns-1) }
		for i := column(g.FromMS); i <= column(g.ToMS); i++ {
			dark[i] = true
		}
	}
	var b strings.Builder
	for _, d := range dark {
		if d {
			b.WriteString(gap)
		} else {
			b.WriteString(full)
		}
	}
	return b.String()
}

// SightsHTML writes the same as a page with the strips of the benchmark's report.
func SightsHTML(w io.Writer, began time.Time, all []Sight) error {
	r := Report{Began: began, Command: "xcarp-lab probe", Host: Host{}, Probe: true}
	var runs []Run
	for _, s := range all {
		run := Run{
			System: s.Address, Fault: "probe", Sent: s.Sent, Lost: s.Lost, BlackoutMS: s.BlackoutMS,
			SenderGapMS: s.SenderGapMS, Spans: append(append([]Span{}, s.Gaps...), s.Stalls...), WatchedMS: s.Seconds * 1000,
		}
		r.TookS = s.Seconds
		runs = append(runs, run)
	}
	r.Rows = Rows(runs)
	return r.HTML(w)
}
