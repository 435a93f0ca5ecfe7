// Command xcarp shares IP addresses between routers by CARP: the daemon
// (xcarp run) and everything that an operator types.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// usageError is a command line that makes no sense: exit 2 instead of 1.
type usageError struct{ error }

// errSilent is a failure that has been explained already.
var errSilent = errors.New("already explained")

func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errSilent):
		return 1
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "xcarp: %v: see %s --help\n", err, cmd.CommandPath())
		return 2
	}
	for _, p := range config.Problems(err) {
		fmt.Fprintf(stderr, "xcarp: %s\n", p.Error())
		if f, ok := stderr.(*os.File); ok && p.Caret != "" && p.Line == 0 && term.IsTerminal(int(f.Fd())) { // of a line that was typed
			fmt.Fprintln(stderr, p.Caret)
		}
	}
	return 1
}

func rootCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:           "xcarp",
		Short:         "Share IP addresses between routers: CARP at XDP speed, with connection state",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.Version = version.Version
	o.pathFlags(cmd)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	cmd.AddCommand(runCommand(o), showCommand(o), checkCommand(o), keygenCommand(o), keyCommand(o), detachCommand(o),
		demoteCommand(o), undemoteCommand(o), handoverCommand(o), restartCommand(o), ifconfigCommand(o), sysctlCommand(o), doctorCommand(o), logCommand(o), whyCommand(o), versionCommand(o))
	return cmd
}
