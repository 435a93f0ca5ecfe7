package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/daemon"
)

func detachCommand(o *options) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "detach",
		Short: "Take programs, filters, pins and shared addresses off this box",
		Long: `Take everything of xcarp off this box: XDP and tc programs, pins, entries of the
NIC's address filter, shared addresses and the nftables table; sysctls get the values
that they had. It refuses while a daemon runs, and while this node is MASTER unless
--force is given.`,
		Args: words(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			removed, err := daemon.Detach(o.paths, force)
			if asJSON && err == nil {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string][]string{"removed": append([]string{}, removed...)})
			}
			for _, r := range removed {
				fmt.Fprintln(cmd.OutOrStdout(), "removed", r)
			}
			if err == nil && len(removed) == 0 {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "nothing of xcarp is on this box")
			}
			if errors.Is(err, daemon.ErrMaster) {
				return fmt.Errorf("%w: stop the daemon and wait for the peer, or give --force", err)
			}
			return err
		},
	}
	o.outputFlag(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also while this node is MASTER")
	return cmd
}
