package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/config"
)

func keygenCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Print a new key for key_file",
		Long: `Print a new key: 32 random bytes in base64, for key_file. All nodes have the same.

	(umask 077; xcarp keygen > /etc/xcarp/xcarp.key)`,
		Args: words(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			text := config.GenerateKey()
			if asJSON {
				keys, err := config.ParseKeys([]byte(text))
				if err != nil {
					return err
				}
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{"id": keyID(keys[0]), "key": strings.TrimSpace(text)})
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	}
	o.outputFlag(cmd)
	return cmd
}
