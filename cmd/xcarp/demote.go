package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/daemon"
)

func demoteCommand(o *options) *cobra.Command {
	var in daemon.DemoteRequest
	var span time.Duration
	cmd := &cobra.Command{
		Use:   "demote [GROUP]",
		Short: "Demote this node, so that a peer takes over",
		Long: `Demote a group of this node with the rest of its bundle, or all groups, so that a
peer takes over, also without preempt. The demotion is added to what else demotes
the group. It lasts until xcarp undemote, or as long as --for says, over restarts
of the daemon and the node. A node that is alone stays master.`,
		Example: `  xcarp demote --for 30m --reason "new power supply"
  xcarp demote wan --by 50`,
		Args: words(0, 1),
		RunE: func(cmd *cobra.Command, a []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			if span < 0 {
				return usageError{fmt.Errorf("--for %v: write a time such as 30m", span)}
			}
			if len(a) == 1 {
				in.Group = a[0]
			}
			in.ForS = span.Seconds()
			d, err := daemon.Demote(cmd.Context(), o.paths.Run, in)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if asJSON {
				return json.NewEncoder(w).Encode(d)
			}
			_, err = fmt.Fprintf(w, "demotion %s\n", demotion(d, time.Now()))
			return err
		},
	}
	o.outputFlag(cmd)
	f := cmd.Flags()
	f.IntVar(&in.By, "by", 240, "how much, 1 to 255; the lower demotion is master")
	f.DurationVar(&span, "for", 0, "how long, such as 30m; without it until undemote")
	f.StringVar(&in.Reason, "reason", "", "why, for those who look at xcarp show")
	return cmd
}

func undemoteCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "undemote [ID]",
		Short: "Take back a demotion that was asked for by xcarp demote, or all of them",
		Args:  words(0, 1),
		RunE: func(cmd *cobra.Command, a []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			id := 0
			if len(a) == 1 {
				if id, err = strconv.Atoi(a[0]); err != nil || id < 1 {
					return usageError{fmt.Errorf("%q is not the id of a demotion: `xcarp show` lists them", a[0])}
				}
			}
			gone, err := daemon.Undemote(cmd.Context(), o.paths.Run, id)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if asJSON {
				return json.NewEncoder(w).Encode(gone)
			}
			if len(gone) == 0 {
				_, err = io.WriteString(w, "there was nothing to take back\n")
				return err
			}
			for _, d := range gone {
				if _, err = fmt.Fprintf(w, "taken back: %s\n", demotion(d, time.Now())); err != nil {
					return err
				}
			}
			return nil
		},
	}
	o.outputFlag(cmd)
	return cmd
}

// demotion describes one that an operator asked for.
func demotion(d daemon.Demotion, now time.Time) string {
	s := fmt.Sprintf("%d: %s by %d", d.ID, word(d.Group == "", "all groups", d.Group), d.By)
	if d.Until != nil {
		s += fmt.Sprintf(" for another %s, until %s", round(max(0, d.Until.Sub(now))), d.Until.Local().Format(time.DateTime))
	} else {
		s += " until undemote"
	}
	if d.Reason != "" {
		s += " (" + d.Reason + ")"
	}
	return s
}
