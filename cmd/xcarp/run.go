package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/daemon"
	"github.com/xcarp/xcarp/internal/journal"
)

const defaultConfig = "/etc/xcarp/xcarp.yaml"

func runCommand(o *options) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon in the foreground",
		Long: `Run the daemon in the foreground.

SIGTERM hands the groups over: the node drains, says goodbye and ends. A daemon
that was killed leaves the dataplane working until its lease ends; one that is
started again before that adopts role, lease and tables.

Without --config a configuration that does not exist is an empty one: everything
may come from xcarp ifconfig and xcarp sysctl.`,
		Args: words(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// First: until then a SIGHUP ends the process.
			hangup := make(chan os.Signal, 1)
			signal.Notify(hangup, unix.SIGHUP)
			defer signal.Stop(hangup)
			if err := o.paths.Check(); err != nil {
				return err
			}
			src := config.Source{Path: path, Optional: !cmd.Flags().Changed("config")}
			cfg, dropped, err := loadRun(src, o.paths)
			if err != nil {
				return err
			}
			log, level, err := newLogger(cfg.Log.Level)
			if err != nil {
				return err
			}
			events, err := journal.Open(o.paths.State)
			if err != nil { // history is no reason not to route
				log.Warn("the journal begins anew", zap.Error(err))
				events = journal.New(o.paths.State)
			}
			log = log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core { return zapcore.NewTee(c, events.Core()) }))
			defer func() { _ = log.Sync() }() // stderr cannot always be synced
			for _, w := range cfg.Warnings {
				log.Warn("config", zap.String("problem", w.Error()))
			}
			if dropped != nil {
				log.Error("lines given at run time no longer fit and are dropped", zap.String("file", o.paths.RunLines()), zap.Error(dropped))
			}
			d, err := daemon.New(cfg, o.paths, log)
			if err != nil {
				return err
			}
			d.Hangup, d.Journal = hangup, events
			d.SetLevel = func(s string) {
				if l, err := zapcore.ParseLevel(s); err == nil {
					level.SetLevel(l)
				}
			}
			return d.Run(cmd.Context())
		},
	}
	configFlag(cmd, &path, "configuration file")
	return cmd
}

// loadRun reads what a daemon runs on: the configuration and, over it, the lines
// that a daemon before followed, else the saved ones. Lines that no longer fit the
// configuration must not keep a router from starting: dropped says why they were
// left out.
func loadRun(src config.Source, paths daemon.Paths) (cfg *config.Config, dropped, err error) {
	run, err := config.ReadLines(paths.RunLines())
	if _, absent := os.Lstat(paths.RunLines()); err == nil && absent == nil {
		src.Lines = run
		if cfg, err = loadChecked(src); err == nil {
			return cfg, nil, nil
		}
	}
	dropped = err
	if cfg, err = loadSaved(src, paths); err != nil {
		return nil, nil, err // the lines are not what is wrong
	}
	return cfg, dropped, nil
}

// loadSaved reads the configuration with the lines that hold from the start.
func loadSaved(src config.Source, paths daemon.Paths) (*config.Config, error) {
	cfg, problems := examineSaved(src, paths)
	return cfg, errorsOf(problems)
}

// examineSaved is loadSaved with all that is left to say. If the lines are wrong
// the file is examined without them.
func examineSaved(src config.Source, paths daemon.Paths) (*config.Config, []*config.Problem) {
	saved, err := config.ReadLines(paths.SavedLines())
	src.Lines = saved
	cfg, problems := examine(src)
	if err != nil {
		return nil, append(config.Problems(err), problems...)
	}
	return cfg, problems
}

// loadChecked reads a configuration and holds it against this machine.
func loadChecked(src config.Source) (*config.Config, error) {
	cfg, problems := examine(src)
	return cfg, errorsOf(problems)
}

func examine(src config.Source) (*config.Config, []*config.Problem) {
	src.Env = os.Getenv
	sys, err := config.Facts()
	if err != nil {
		return nil, config.Problems(fmt.Errorf("look at this machine: %w", err))
	}
	return src.Examine(sys)
}

// errorsOf joins those of the problems that keep a configuration from being used.
func errorsOf(problems []*config.Problem) error {
	var errs []error
	for _, p := range problems {
		if !p.Warning {
			errs = append(errs, p)
		}
	}
	return errors.Join(errs...)
}

// newLogger writes to stderr: lines for a person on a terminal, else JSON.
// The level can be changed later.
func newLogger(level string) (*zap.Logger, zap.AtomicLevel, error) {
	l, err := zap.ParseAtomicLevel(level)
	if err != nil {
		return nil, l, fmt.Errorf("log level %q: %w", level, err)
	}
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoder := zapcore.NewJSONEncoder(enc)
	if term.IsTerminal(int(os.Stderr.Fd())) {
		encoder = zapcore.NewConsoleEncoder(enc)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(os.Stderr), l)), l, nil
}
