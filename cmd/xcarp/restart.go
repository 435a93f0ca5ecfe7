package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/daemon"
)

func restartCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restart",
		Short: "Replace the daemon in place, by the program that is installed now",
		Long: `Replace the daemon in place, by the program that is now where it was started from: for a
new version, or for settings that a reload leaves to a restart. It is the same process
for systemd. The dataplane works on meanwhile, and the new daemon adopts roles, leases
and connections: no master moves. It happens only if the configuration on disk is
accepted, by the new program if there is one. What a handover said about not taking
groups back ends with it.

A group with advbase 0 has a lease that is shorter than a start, and moves to its peer:
hand it over first.`,
		Args: words(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			r, err := daemon.AskRestart(cmd.Context(), o.paths.Run)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if asJSON {
				return json.NewEncoder(w).Encode(r)
			}
			took := time.Duration(r.TookMS * float64(time.Millisecond)).Round(time.Millisecond)
			fmt.Fprintf(w, "restarted in %v: %s, version %s\n", took, r.Program, r.Version)
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			for _, g := range r.Groups {
				fmt.Fprintf(t, "%s\t%s\t%s\n", g.Name, g.State, g.Reason)
			}
			return t.Flush()
		},
	}
	o.outputFlag(cmd)
	return cmd
}
