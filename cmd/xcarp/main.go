// Command xcarp shares IP addresses between routers by CARP: the daemon
// (xcarp run) and everything that an operator types.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/daemon"
	"github.com/xcarp/xcarp/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	os.Exit(execute(ctx, os.Args[1:]))
}

// usageError is a command line that makes no sense: exit 2 instead of 1.
type usageError struct{ error }

// errSilent is a failure that has been explained already.
var errSilent = errors.New("already explained")

func execute(ctx context.Context, args []string) int {
	cmd := rootCommand()
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errSilent):
		return 1
	case errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command"):
		fmt.Fprintf(os.Stderr, "xcarp: %v: see xcarp --help\n", err)
		return 2
	}
	for _, p := range config.Problems(err) {
		fmt.Fprintf(os.Stderr, "xcarp: %s\n", p.Error())
		if p.Caret != "" && p.Line == 0 && term.IsTerminal(int(os.Stderr.Fd())) { // of a line that was typed
			fmt.Fprintln(os.Stderr, p.Caret)
		}
	}
	return 1
}

// options are the flags that every command takes.
type options struct {
	paths  daemon.Paths
	output string
}

func rootCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:           "xcarp",
		Short:         "Share IP addresses between routers: CARP at XDP speed, with connection state",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.Version = version.Version
	f := cmd.PersistentFlags()
	f.StringVar(&o.paths.Run, "run-dir", env("XCARP_RUN_DIR", "/run/xcarp"), "control socket and lock (XCARP_RUN_DIR)")
	f.StringVar(&o.paths.State, "state-dir", env("XCARP_STATE_DIR", "/var/lib/xcarp"), "what outlives a reboot (XCARP_STATE_DIR)")
	f.StringVar(&o.paths.Pin, "pin-dir", env("XCARP_PIN_DIR", "/sys/fs/bpf/xcarp"), "pinned programs and maps (XCARP_PIN_DIR)")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	cmd.AddCommand(runCommand(o), showCommand(o), checkCommand(o), keygenCommand(), keyCommand(o), detachCommand(o),
		demoteCommand(o), undemoteCommand(o), ifconfigCommand(o), sysctlCommand(o), doctorCommand(o), versionCommand(o))
	return cmd
}

func env(key, fallback string) string {
	if v := os.Getenv(key); v != "" {
		return v
	}
	return fallback
}

// outputFlag adds -o to a command that prints.
func (o *options) outputFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.output, "output", "o", "table", "output format: table or json")
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

// args checks the number of arguments and makes a mistake a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if err := check(cmd, a); err != nil {
			return usageError{err}
		}
		return nil
	}
}
