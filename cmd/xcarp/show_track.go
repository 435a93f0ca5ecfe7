package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/xcarp/xcarp/internal/daemon"
)

// renderTracks draws what demotes the groups from outside of the election, and who
// is told of changes.
func renderTracks(b *strings.Builder, s *daemon.Status, now time.Time) {
	if len(s.Tracks) > 0 {
		b.WriteString("\ntracks:\n")
	}
	for _, t := range s.Tracks {
		fmt.Fprintf(b, "  %s: %s for %s: %s", t.Name, t.State, round(now.Sub(t.Since)), t.Check)
		if t.RTTMS > 0 {
			fmt.Fprintf(b, ", answered in %.3g ms", t.RTTMS)
		}
		if t.Error != "" {
			fmt.Fprintf(b, ": %s", t.Error)
		}
		if t.Demote > 0 {
			fmt.Fprintf(b, "; demotes %s by %d", strings.Join(t.Groups, ", "), t.Demote)
		}
		b.WriteString("\n")
	}
	if len(s.Demotions) > 0 {
		b.WriteString("\ndemoted by an operator:\n")
	}
	for _, d := range s.Demotions {
		fmt.Fprintf(b, "  %s", demotion(d, now))
		if d.User != "" {
			fmt.Fprintf(b, ", by %s", d.User)
		}
		b.WriteString("\n")
	}
	if s.Hooks == nil {
		return
	}
	fmt.Fprintf(b, "\nhooks: %d changes queued, %d never told\n", s.Hooks.Queued, s.Hooks.Dropped)
	for _, h := range s.Hooks.Hooks {
		fmt.Fprintf(b, "  %s: %d runs, %d failed", h.Name, h.Runs, h.Failures)
		if h.Running != nil {
			fmt.Fprintf(b, ", running for %s", round(now.Sub(*h.Running)))
		}
		if l := h.Last; l != nil {
			fmt.Fprintf(b, "; last: %s %s, %s ago, took %.3g ms: %s", l.Group, l.To, round(now.Sub(l.At)), l.TookMS, word(l.Error == "", "ok", l.Error))
		}
		b.WriteString("\n")
	}
}
