package track

import (
	"context"

	"github.com/xcarp/xcarp/internal/command"
)

// Command asks a program, which says yes by exit status 0.
type Command struct {
	run *command.Runner
	env []string
}

// NewCommand returns a Probe that runs the program with that environment.
func NewCommand(s command.Spec, env ...string) Command {
	return Command{command.NewRunner(s), env}
}

// Check implements Probe.
func (p Command) Check(ctx context.Context) (Reading, error) {
	return Reading{}, p.run.Run(ctx, p.env...)
}
