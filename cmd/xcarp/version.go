package main

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/version"
)

func versionCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  words(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if asJSON {
				return json.NewEncoder(w).Encode(map[string]string{"version": version.Version, "go": runtime.Version(), "arch": runtime.GOARCH})
			}
			_, err = fmt.Fprintf(w, "xcarp %s (%s, %s)\n", version.Version, runtime.Version(), runtime.GOARCH)
			return err
		},
	}
	o.outputFlag(cmd)
	return cmd
}
