package bench

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// Flap is one pair that had to bear something for a while without a fault.
type Flap struct {
	System      string  `json:"system"`
	Profile     string  `json:"profile"`
	Case        string  `json:"case"`
	Seconds     float64 `json:"seconds"`
	Transitions int     `json:"transitions"` // groups that became master, by the logs of both routers: false failovers
	Sent        int     `json:"sent"`        // probes over IPv4
	Lost        int     `json:"lost"`
	BlackoutMS  float64 `json:"blackout_ms"`   // the longest
	SenderGapMS float64 `json:"sender_gap_ms"` // the prober's own longest gap
	Frames      uint64  `json:"frames"`        // that the flood sent
	Load        float64 `json:"load"`          // average of the last minute before
	Error       string  `json:"error,omitempty"`
}

// FlapText prints what was borne.
func FlapText(all []Flap) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "system\tcase\ts\tfalse failovers\tlost\tlongest blackout\tprober's own gap\tflood")
	for _, f := range all {
		name := Name(f.System, f.Profile)
		if f.Error != "" {
			fmt.Fprintf(w, "%s\t%s\tno run: %s\n", name, f.Case, f.Error)
			continue
		}
		flood := "-"
		if f.Frames > 0 {
			flood = fmt.Sprintf("%.0f k/s", float64(f.Frames)/f.Seconds/1000)
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%d\t%d of %d\t%.1f ms\t%.1f ms\t%s\n",
			name, f.Case, f.Seconds, f.Transitions, f.Lost, f.Sent, f.BlackoutMS, f.SenderGapMS, flood)
	}
	if err := w.Flush(); err != nil {
		panic(err) // a Builder takes everything
	}
	return b.String()
}
