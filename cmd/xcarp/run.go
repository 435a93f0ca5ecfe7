package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/daemon"
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
			src := config.Source{Path: path, Optional: !cmd.Flags().Changed("config")}
			cfg, dropped, err := loadRun(src, o.paths)
			if err != nil {
				return err
			}
			log, level, err := newLogger(cfg.Log.Level)
			if err != nil {
				return err
			}
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
	if err == nil && !run.Empty() {
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
	saved, err := config.ReadLines(paths.SavedLines())
	if err != nil {
		return nil, err
	}
	src.Lines = saved
	return loadChecked(src)
}

// loadChecked reads a configuration and holds it against this machine. Warnings
// of both checks end up in the config's.
func loadChecked(src config.Source) (*config.Config, error) {
	src.Env = os.Getenv
	cfg, err := src.Load()
	if err != nil {
		return nil, err
	}
	sys, err := config.Facts()
	if err != nil {
		return nil, fmt.Errorf("look at this machine: %w", err)
	}
	cfg.Warnings = nil
	return cfg, errorsOf(config.Check(cfg, sys), &cfg.Warnings)
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
