package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/daemon"
	"github.com/xcarp/xcarp/internal/journal"
)

func logCommand(o *options) *cobra.Command {
	var follow bool
	var since string
	cmd := &cobra.Command{
		Use:   "log [GROUP]",
		Short: "Show what happened, in order",
		Long: `Show what happened on this node, in order and numbered, also before the last restart:
all that the daemon logs at level info and above. Without a daemon the files in the
state-dir are read. With GROUP only what concerns it.`,
		Args: words(0, 1),
		RunE: func(cmd *cobra.Command, a []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			from, err := parseSince(since, time.Now())
			if err != nil {
				return err
			}
			known := len(a) == 0 || follow
			keep := func(e *journal.Event) bool {
				ours := len(a) == 0 || concerns(e, a[0])
				known = known || ours && e.Str("group") != ""
				return ours && !e.At.Before(from)
			}
			if err := logEvents(cmd.Context(), cmd.OutOrStdout(), o.paths, keep, asJSON, follow); err != nil || known {
				return err
			}
			return fmt.Errorf("nothing of a group %q is on record: `xcarp show` lists the groups", a[0])
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens from now on")
	cmd.Flags().StringVar(&since, "since", "", "from that time on: 10m ago, or 2026-11-28T00:10:00Z")
	o.outputFlag(cmd)
	return cmd
}

// concerns reports whether an event is the group's: by its name, by that of one of
// its elections (GROUP/VHID) or of the group that an election is of, or because it
// is of all groups, which an empty name says.
func concerns(e *journal.Event, group string) bool {
	if _, ok := e.Fields["group"]; !ok {
		return false
	}
	of := e.Str("group")
	return of == "" || of == group || strings.HasPrefix(of, group+"/") || strings.HasPrefix(group, of+"/")
}

// parseSince reads a time, or how long ago it was.
func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(strings.TrimSuffix(strings.TrimSuffix(s, "ago"), " ")); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, usageError{fmt.Errorf("--since %s: write 10m, or a time such as %s", s, now.UTC().Truncate(time.Minute).Format(time.RFC3339))}
	}
	return t, nil
}

func logEvents(ctx context.Context, w io.Writer, p daemon.Paths, keep func(*journal.Event) bool, asJSON, follow bool) error {
	events, err := daemon.AllEvents(ctx, p)
	var last uint64
	for err == nil {
		for i := range events {
			e := &events[i]
			last = e.Seq
			if !keep(e) {
				continue
			}
			if asJSON {
				err = json.NewEncoder(w).Encode(e) // one a line: it may go on for ever
			} else {
				_, err = fmt.Fprintln(w, renderEvent(e))
			}
			if err != nil {
				return err
			}
		}
		if !follow || ctx.Err() != nil {
			return nil
		}
		events, err = daemon.Events(ctx, p.Run, last, true)
	}
	if follow && errors.Is(ctx.Err(), context.Canceled) {
		return nil // the operator has seen enough
	}
	return err
}

// renderEvent draws an event as one line.
func renderEvent(e *journal.Event) string {
	head := fmt.Sprintf("%6d  %s  ", e.Seq, e.At.Local().Format("2006-01-02 15:04:05.000"))
	if e.Level != "info" {
		head += strings.ToUpper(e.Level) + " "
	}
	if e.Text == "state" || e.Text == "adopted" {
		return head + renderChange(e)
	}
	if e.Text == peersState {
		return fmt.Sprintf("%s%s, %s: %s → %s: %s (term %s)", head, fieldText(e.Str("peer")), fieldText(e.Str("group")), fieldText(e.Str("from")), fieldText(e.Str("to")),
			printable(e.Str("reason")), e.Str("term")) + agoText(e)
	}
	var rest []string
	for _, k := range slices.Sorted(maps.Keys(e.Fields)) {
		rest = append(rest, k+"="+fieldText(e.Str(k)))
	}
	if len(rest) == 0 {
		return head + e.Text
	}
	return head + e.Text + ": " + strings.Join(rest, " ")
}

// fieldText draws a value. What a program has printed, or a peer has said, must not
// reach a terminal as it is.
func fieldText(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r == ' ' || r == '"' || !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// agoText says how long ago it was what a peer has told, if it did not come at once.
func agoText(e *journal.Event) string {
	if ago, ok := e.Fields["ago"].(float64); ok && ago >= 1 {
		return fmt.Sprintf(", %s before", seconds(e, "ago"))
	}
	return ""
}

// printable is the text, or its quoted form if a terminal could take it for more.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// renderChange draws a change of state.
func renderChange(e *journal.Event) string {
	return fmt.Sprintf("%s: %s → %s: %s (vhid %s on %s, term %s)",
		e.Str("group"), e.Str("from"), e.Str("to"), e.Str("reason"), e.Str("vhid"), e.Str("carpdev"), e.Str("term"))
}
