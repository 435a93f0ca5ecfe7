package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/daemon"
	"github.com/xcarp/xcarp/internal/journal"
)

// why is the cause chain of a change of state: `xcarp why -o json` prints it.
type why struct {
	Change journal.Event   `json:"change"`
	Before []journal.Event `json:"before"` // what else happened on the way to it
	After  []journal.Event `json:"after"`  // and what followed
}

const (
	// whyBefore is how far back causes are looked for: master-down of most groups,
	// and the hold times of tracks.
	whyBefore = 10 * time.Second

	// whyAfter is how long consequences are looked for.
	whyAfter = 3 * time.Second
)

func whyCommand(o *options) *cobra.Command {
	var group string
	cmd := &cobra.Command{
		Use:   "why [N]",
		Short: "Say why the state of a group changed last, or the Nth time before now",
		Long: `Say why the state of a group changed last, or the Nth change back from now: what was
heard until then, for how long this node waited and how late it was itself, what else
happened on the way, also at the peers that could tell, and how long each step took that
followed: map, advert and announced are times since the decision.`,
		Args: words(0, 1),
		RunE: func(cmd *cobra.Command, a []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			n := 1
			if len(a) == 1 {
				if n, err = strconv.Atoi(a[0]); err != nil || n < 1 {
					return usageError{fmt.Errorf("why %s: write 1 for the last change, 2 for the one before it", a[0])}
				}
			}
			events, err := daemon.AllEvents(cmd.Context(), o.paths)
			if err != nil {
				return err
			}
			y, err := explain(inTheirTime(events), n, group)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(y)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), y.render())
			return err
		},
	}
	cmd.Flags().StringVar(&group, "group", "", "changes of this group only")
	o.outputFlag(cmd)
	return cmd
}

// inTheirTime puts what a peer has told where it happened: it says how long ago that was.
// Our own stay in the order of their numbers, for clocks step.
func inTheirTime(events []journal.Event) (sorted []journal.Event) {
	for _, e := range events {
		at := len(sorted)
		if ago, ok := e.Fields["ago"].(float64); ok && e.Text == peersState {
			e.At = e.At.Add(-time.Duration(ago * float64(time.Second)))
			for at > 0 && sorted[at-1].At.After(e.At) {
				at--
			}
		}
		sorted = slices.Insert(sorted, at, e)
	}
	return sorted
}

// peersState is the text of an event that a peer has told.
const peersState = "peer's state"

// explain finds the nth change back from the end, and what belongs to it.
func explain(events []journal.Event, n int, group string) (*why, error) {
	at, found := -1, 0
	for i := len(events) - 1; i >= 0 && found < n; i-- {
		e := &events[i]
		drained := e.Str("from") == "DRAIN" && e.Str("to") == "BACKUP" // only the end of a change that had a cause
		if e.Text == "state" && !drained && (group == "" || e.Str("group") == group) {
			at = i
			found++
		}
	}
	switch {
	case found == 0 && group != "":
		return nil, fmt.Errorf("no change of group %q is on record: `xcarp show` lists the groups", group)
	case found == 0:
		return nil, errors.New("no change of state is on record yet")
	case found < n:
		return nil, fmt.Errorf("only %d changes are on record", found)
	}
	y := &why{Change: events[at], Before: []journal.Event{}, After: []journal.Event{}}
	for i, e := range events {
		d := e.At.Sub(y.Change.At)
		switch {
		case i < at && -d <= whyBefore:
			y.Before = append(y.Before, e)
		case i > at && d <= whyAfter:
			y.After = append(y.After, e)
		}
	}
	return y, nil
}

// render draws the chain for a person.
func (y *why) render() string {
	var b strings.Builder
	e := &y.Change
	fmt.Fprintf(&b, "%s\n%s\n", e.At.Local().Format("2006-01-02 15:04:05.000000"), renderChange(e))
	heard, listened, limit := seconds(e, "heard_before"), seconds(e, "listened"), seconds(e, "limit")
	if limit != "" {
		limit = fmt.Sprintf("; a master that is silent for %s counts as gone", limit)
	}
	switch {
	case listened != "":
		fmt.Fprintf(&b, "  heard     no advert in %s%s\n", listened, limit)
	case heard != "":
		fmt.Fprintf(&b, "  heard     the last advert %s before%s\n", heard, limit)
	}
	if listened+heard != "" {
		if n := e.Str("gaps"); n != "" {
			fmt.Fprintf(&b, "  adverts   the %s gaps before: median %s, longest %s\n", n, seconds(e, "gap_median"), seconds(e, "gap_longest"))
		}
		if s := seconds(e, "late"); s != "" {
			fmt.Fprintf(&b, "  own delay %s\n", s)
		}
	}
	if n := e.Str("pulses_missed"); n != "" {
		fmt.Fprintf(&b, "  pulses    %s asks unanswered, the last answer %s before; %s is the limit, %s a slow answer\n",
			n, seconds(e, "pulse_heard"), seconds(e, "pulse_limit"), seconds(e, "reflection"))
	}
	if s := e.Str("demoted"); s != "" {
		fmt.Fprintf(&b, "  demoted   here, by %s\n", s)
	}
	if d := seconds(e, "claimed"); d != "" {
		fmt.Fprintf(&b, "  claim     acknowledged after %s\n", d)
	}
	var steps []string
	for _, s := range []string{"map", "advert", "announced"} {
		if d := seconds(e, s); d != "" {
			steps = append(steps, s+" +"+d)
		}
	}
	if len(steps) > 0 {
		fmt.Fprintf(&b, "  done      %s\n", strings.Join(steps, ", "))
	}
	for _, part := range []struct {
		name   string
		events []journal.Event
	}{{"before", y.Before}, {"after", y.After}} {
		for i := range part.events {
			p := &part.events[i]
			name := ""
			if i == 0 {
				name = part.name
			}
			line := strings.TrimSpace(renderEvent(p))
			if _, text, ok := strings.Cut(line, p.At.Local().Format("2006-01-02 15:04:05.000")); ok {
				line = strings.TrimSpace(text)
			}
			fmt.Fprintf(&b, "  %-9s %+9.3f s  %s\n", name, p.At.Sub(e.At).Seconds(), line)
		}
	}
	return b.String()
}

// seconds draws a field that is a number of seconds.
func seconds(e *journal.Event, key string) string {
	v, ok := e.Fields[key].(float64)
	if !ok {
		return ""
	}
	d := time.Duration(v * float64(time.Second))
	switch {
	case d >= 100*time.Millisecond:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(time.Microsecond).String()
	}
}
