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
that they had. It refuses while a daemon runs. Unless --force is given it also refuses
while this node is MASTER, and where it cannot know, since another version of xcarp has
left the pins.`,
		Args: words(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			removed, err := daemon.Detach(o.paths, force)
			switch {
			case asJSON:
				out := map[string][]string{"removed": append([]string{}, removed...)}
				err = errors.Join(err, json.NewEncoder(cmd.OutOrStdout()).Encode(out))
			case err == nil && len(removed) == 0:
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "nothing of xcarp is on this box")
			default:
				for _, r := range removed {
					fmt.Fprintln(cmd.OutOrStdout(), "removed", r)
				}
			}
			switch {
			case errors.Is(err, daemon.ErrMaster):
				return fmt.Errorf("%w: stop the daemon and wait for the peer, or give --force", err)
			case errors.Is(err, daemon.ErrVersion):
				return fmt.Errorf("%w: run xcarp detach of that version; or give --force, which leaves its entries in the NIC's address filter", err)
			}
			return err
		},
	}
	o.outputFlag(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also while this node is MASTER, or may be")
	return cmd
}
