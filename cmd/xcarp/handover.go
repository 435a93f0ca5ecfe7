package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/daemon"
)

func handoverCommand(o *options) *cobra.Command {
	var in daemon.HandoverRequest
	cmd := &cobra.Command{
		Use:   "handover [GROUP]",
		Short: "Let a peer become master, without loss",
		Long: `Let a peer claim a group of this node with the rest of its bundle, or all groups of
which this node is master. This node stops answering at the instant at which the
peer's claim arrives, and the peer begins when it has heard of that. The gap is from
there to its first advert, as heard here. This node does not take the groups back by
itself, also with preempt, as long as the peer lives and is not demoted.`,
		Example: `  xcarp handover
  xcarp handover wan --to fw-b`,
		Args: words(0, 1),
		RunE: func(cmd *cobra.Command, a []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			if len(a) == 1 {
				in.Group = a[0]
			}
			done, err := daemon.AskHandover(cmd.Context(), o.paths.Run, in)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if asJSON {
				return json.NewEncoder(w).Encode(done)
			}
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "GROUP\tMASTER\tGAP")
			for _, r := range done {
				gap := "not measured"
				if r.GapMS >= 0 {
					gap = fmt.Sprintf("%.2f ms", r.GapMS)
				}
				fmt.Fprintf(t, "%s\t%s\t%s\n", r.Group, r.To, gap)
			}
			return t.Flush()
		},
	}
	o.outputFlag(cmd)
	cmd.Flags().StringVar(&in.To, "to", "", "the node that shall be master; without it whichever answers")
	return cmd
}
