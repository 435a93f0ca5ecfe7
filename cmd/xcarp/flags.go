package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/daemon"
	"github.com/xcarp/xcarp/internal/spell"
)

// options are the flags that commands share, before or behind the name of the
// command alike.
type options struct {
	paths  daemon.Paths
	output string
}

// pathFlags adds what every command takes: the directories of the node, which
// differ between nodes that live on one machine.
func (o *options) pathFlags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&o.paths.Run, "run-dir", env("XCARP_RUN_DIR", "/run/xcarp"), "control socket and lock (XCARP_RUN_DIR)")
	f.StringVar(&o.paths.State, "state-dir", env("XCARP_STATE_DIR", "/var/lib/xcarp"), "what outlives a reboot (XCARP_STATE_DIR)")
	f.StringVar(&o.paths.Pin, "pin-dir", env("XCARP_PIN_DIR", "/sys/fs/bpf/xcarp"), "pinned programs and maps (XCARP_PIN_DIR)")
}

func env(key, fallback string) string {
	if v := os.Getenv(key); v != "" {
		return v
	}
	return fallback
}

// outputFlag adds -o to a command that prints, and to those below it.
func (o *options) outputFlag(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVarP(&o.output, "output", "o", "table", "output format: table or json")
}

func (o *options) json() (bool, error) {
	switch o.output {
	case "table":
		return false, nil
	case "json":
		return true, nil
	}
	return false, usageError{fmt.Errorf("-o %s: not a format: table or json", o.output)}
}

// configFlag adds --config. Whether it was given tells a file that must exist from
// the one that may.
func configFlag(cmd *cobra.Command, path *string, usage string) {
	cmd.PersistentFlags().StringVarP(path, "config", "c", defaultConfig, usage)
}

// configSource is the configuration of a command that takes it as its only word, or by
// --config as xcarp run does: one that was named must exist.
func configSource(cmd *cobra.Command, path string, a []string) (config.Source, error) {
	given := cmd.Flags().Changed("config")
	switch {
	case given && len(a) > 0:
		return config.Source{}, usageError{fmt.Errorf("%s: FILE and --config are the same: give one", cmd.Name())}
	case len(a) > 0:
		path, given = a[0], true
	}
	return config.Source{Path: path, Optional: !given}, nil
}

// words checks how many words stand behind a command.
func words(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		switch {
		case len(a) > most:
			return usageError{fmt.Errorf("%q is one word too many", a[most])}
		case len(a) < least:
			form, _, _ := strings.Cut(cmd.UseLine(), " [flags]")
			return usageError{fmt.Errorf("a word is missing: write %s", form)}
		}
		return nil
	}
}

// noSuchCommand refuses a word where only the name of a command can stand.
func noSuchCommand(cmd *cobra.Command, a []string) error {
	if len(a) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	if like := spell.Nearest(a[0], names); like != "" {
		return usageError{fmt.Errorf("no command %q: did you mean %q?", a[0], like)}
	}
	return usageError{fmt.Errorf("no command %q", a[0])}
}
