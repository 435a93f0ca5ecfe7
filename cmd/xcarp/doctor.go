package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/xcarp/xcarp/internal/doctor"
)

func doctorCommand(o *options) *cobra.Command {
	var listen time.Duration
	var path string
	cmd := &cobra.Command{
		Use:   "doctor [FILE]",
		Short: "Look at this machine as a router of the group would have to live on it",
		Long: `Look at the kernel, the interfaces of the configuration, sysctls, what else manages
them, and for a while at what others say on the carpdevs: VRRP routers with our
numbers, and from which address hosts learn their gateway. Each finding is ok, warn or
fail, with what to do. Nothing is changed; but routers are asked to advertise
themselves. Exit status 1 if something cannot work.`,
		Args: words(0, 1),
		RunE: func(cmd *cobra.Command, a []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			if os.Geteuid() != 0 {
				return fmt.Errorf("doctor: needs root to probe the kernel and to listen on interfaces: use sudo")
			}
			src, err := configSource(cmd, path, a)
			if err != nil {
				return err
			}
			cfg, problems := examineSaved(src, o.paths)
			if cfg == nil {
				return errorsOf(problems)
			}
			m, err := doctor.Look(cfg)
			if err != nil {
				return err
			}
			heard := map[string]doctor.Heard{}
			if listen > 0 {
				if term.IsTerminal(int(os.Stderr.Fd())) {
					fmt.Fprintf(os.Stderr, "listening for %v …\n", listen)
				}
				var devs []string
				for _, g := range cfg.Groups {
					devs = append(devs, g.Carpdev)
				}
				if heard, err = doctor.Listen(cmd.Context(), devs, listen); err != nil {
					fmt.Fprintln(os.Stderr, "xcarp:", err)
				}
			}
			return printFindings(cmd.OutOrStdout(), doctor.Examine(cfg, m, heard, problems), asJSON)
		},
	}
	cmd.Flags().DurationVar(&listen, "listen", 4*time.Second, "for how long to listen on the carpdevs; 0: not at all")
	configFlag(cmd, &path, "the same as FILE")
	o.outputFlag(cmd)
	return cmd
}

// printFindings prints one line each, and what to do on the next.
func printFindings(w io.Writer, all []doctor.Finding, asJSON bool) error {
	var failed bool
	for _, f := range all {
		failed = failed || f.Level == doctor.Fail
	}
	if asJSON {
		if err := json.NewEncoder(w).Encode(struct {
			OK       bool             `json:"ok"`
			Findings []doctor.Finding `json:"findings"`
		}{!failed, all}); err != nil {
			return err
		}
	} else {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, f := range all {
			fmt.Fprintf(t, "%s\t%s\t%s\n", f.Level, f.About, f.What)
			if f.Fix != "" {
				fmt.Fprintf(t, "\t\t→ %s\n", f.Fix)
			}
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if failed {
		return errSilent
	}
	return nil
}
