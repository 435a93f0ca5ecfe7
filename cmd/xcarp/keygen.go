package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/config"
)

func keygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen",
		Short: "Print a new key for key_file",
		Long: `Print a new key: 32 random bytes in base64, for key_file. All nodes have the same.

	(umask 077; xcarp keygen > /etc/xcarp/xcarp.key)`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(cmd.OutOrStdout(), config.GenerateKey())
			return err
		},
	}
}
