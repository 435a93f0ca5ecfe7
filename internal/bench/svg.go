package bench

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"
	"time"
)

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Sizes of the pictures, in units of their own.
const (
	width   = 960
	plotX   = 46.0  // left edge of a plot
	plotW   = 596.0 // of the distribution
	plotH   = 220.0
	plotY   = 12.0
	stripX  = 92.0
	stripW  = width - stripX - 10
	laneH   = 5.0
	stripsY = 8.0
)

// decades is the axis of the distribution: 1 ms, and less, to 10 s.
const (
	firstMS = 1.0
	decades = 4
)

// column is where a blackout is drawn.
func column(ms float64) float64 {
	d := math.Log10(max(ms, firstMS) / firstMS)
	return plotX + min(d/decades, 1)*plotW
}

// ecdf draws which share of the runs was dark for at most how long, a curve a row.
func ecdf(rows []Row, colors map[string]string) template.HTML {
	var b strings.Builder
	height := max(plotY+plotH+34, plotY+14+18*float64(len(rows)))
	fmt.Fprintf(&b, `<svg class="ecdf" role="img" viewBox="0 0 %d %.0f" xmlns="http://www.w3.org/2000/svg"><title>Share of the runs by length of the blackout</title>`, width, height)
	for i, label := range []string{"≤ 1 ms", "10 ms", "100 ms", "1 s", "10 s"} {
		x := plotX + plotW*float64(i)/decades
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/><text class="tick" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`,
			x, plotY, x, plotY+plotH, x, plotY+plotH+18, label)
	}
	for i, label := range []string{"0", "50 %", "100 %"} {
		y := plotY + plotH - plotH*float64(i)/2
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/><text class="tick" x="%.1f" y="%.1f" text-anchor="end">%s</text>`,
			plotX, y, plotX+plotW, y, plotX-6, y+4, label)
	}
	for i, r := range rows {
		name := Name(r.System, r.Profile)
		p50 := "no figure"
		if r.BlackoutMS != nil {
			p50 = fmt.Sprintf("%.1f ms", r.BlackoutMS.P50)
			fmt.Fprintf(&b, `<path class="curve" data-system="%s" d="%s" stroke="%s"/>`, html.EscapeString(name), steps(r.Counted()), colors[name])
		}
		y := plotY + 14 + 18*float64(i)
		x := plotX + plotW + 22
		fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="12" height="12" rx="3" fill="%s"/><text class="key" x="%.1f" y="%.1f">%s</text><text class="key" x="%d" y="%.1f" text-anchor="end">%s</text>`,
			x, y-10, colors[name], x+18, y, html.EscapeString(name), width-4, y, p50)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

// steps is the path of a distribution.
func steps(runs []Run) string {
	var v []float64
	for _, r := range runs {
		v = append(v, r.BlackoutMS)
	}
	slices.Sort(v)
	var b strings.Builder
	fmt.Fprintf(&b, "M%.1f %.1f", plotX, plotY+plotH)
	for i, ms := range v {
		fmt.Fprintf(&b, "H%.1fV%.1f", column(ms), plotY+plotH*(1-float64(i+1)/float64(len(v))))
	}
	fmt.Fprintf(&b, "H%.1f", plotX+plotW)
	return b.String()
}

// strips draws the runs of a row below each other on one axis of time: what
// flowed, and what did not.
func strips(r Row) template.HTML {
	var made []Run
	to := 50.0
	for _, run := range r.Raw {
		if run.Error != "" {
			continue
		}
		made = append(made, run)
		if run.Fault == "probe" {
			to = run.WatchedMS
		}
		for _, s := range run.Spans {
			to = max(to, s.ToMS)
		}
	}
	if len(made) == 0 {
		return ""
	}
	to *= 1.05
	from := -to / 10
	x := func(ms float64) float64 { return stripX + (min(max(ms, from), to)-from)/(to-from)*stripW }
	lanes := Lanes
	if r.Fault == "probe" {
		lanes = []string{"probe", "rig"}
	}
	lane := map[string]int{}
	for i, l := range lanes {
		lane[l] = i
	}
	each := laneH*float64(len(lanes)) + 9
	height := stripsY + each*float64(len(made)) + 20
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="strips" role="img" viewBox="0 0 %d %.0f" xmlns="http://www.w3.org/2000/svg"><title>What did not flow, run by run</title>`, width, height)
	for i, run := range made {
		y := stripsY + each*float64(i)
		class, label := "run", fmt.Sprintf("%.1f ms", run.BlackoutMS)
		if run.Rejected {
			class, label = "run rejected", "rejected"
		}
		fmt.Fprintf(&b, `<g class="%s"><title>run %d: IPv4 dark for %.1f ms, IPv6 %.1f ms; echo stalled %.1f ms, push %.1f ms; the prober's own gap %.1f ms</title><text class="tick" x="%.0f" y="%.1f" text-anchor="end">%s</text>`,
			class, run.Order, run.BlackoutMS, run.Blackout6MS, run.TCP.EchoMS, run.TCP.PushMS, run.SenderGapMS, stripX-8, y+laneH*3, label)
		for i := range len(lanes) - 1 {
			fmt.Fprintf(&b, `<rect class="flow" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, stripX, y+laneH*float64(i), stripW, laneH-1)
		}
		for _, s := range run.Spans {
			a := x(s.FromMS)
			fmt.Fprintf(&b, `<rect class="gap %s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`,
				strings.ToLower(s.Lane), a, y+laneH*float64(lane[s.Lane]), max(x(s.ToMS)-a, 1), laneH-1)
		}
		b.WriteString(`</g>`)
	}
	bottom := height - 16
	fmt.Fprintf(&b, `<line class="cause" x1="%.1f" y1="2" x2="%.1f" y2="%.1f"/>`, x(0), x(0), bottom)
	for _, ms := range []float64{0, to / 2, to} {
		anchor := "middle"
		if ms == to {
			anchor = "end"
		}
		fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, x(ms), height-3, anchor, span(ms))
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

// span is a time on the axis.
func span(ms float64) string {
	switch {
	case ms == 0:
		return "0"
	case ms >= 1000:
		return fmt.Sprintf("%.1f s", ms/1000)
	}
	return fmt.Sprintf("%.0f ms", ms)
}
