// Command xcarp-lab shows and measures a failover in network namespaces. Nothing
// in it is needed on a router.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"
)

// usageError is a mistake in the command line: exit status 2.
type usageError struct{ error }

func main() {
	// A goroutine that is due must find an idle processor even while the
	// download keeps some busy: the operating system's scheduler knows which
	// thread is preferred, Go's does not.
	runtime.GOMAXPROCS(max(8, runtime.NumCPU()))

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

// run carries out a command line and returns the exit status.
func run(ctx context.Context, args []string) int {
	root := &cobra.Command{
		Use:           "xcarp-lab",
		Short:         "Show and measure a failover in network namespaces",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(demoCommand(), benchCommand(), probeCommand(), upCommand(), holdCommand(), downCommand(), statusCommand(), cutCommand(), execCommand(), simCommand())
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil { // whatever failed, failed because of that
		err = errors.New("interrupted; what was built is removed")
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", cmd.CommandPath(), err)
	if _, ok := errors.AsType[usageError](err); ok {
		return 2
	}
	return 1
}
