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
started again before that adopts role, lease and tables.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadChecked(path)
			if err != nil {
				return err
			}
			log, err := newLogger(cfg.Log.Level)
			if err != nil {
				return err
			}
			defer func() { _ = log.Sync() }() // stderr cannot always be synced
			for _, w := range cfg.Warnings {
				log.Warn("config", zap.String("problem", w.Error()))
			}
			d, err := daemon.New(cfg, o.paths, log)
			if err != nil {
				return err
			}
			return d.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", defaultConfig, "configuration file")
	return cmd
}

// loadChecked reads a configuration and holds it against this machine. Warnings
// of both checks end up in the config's.
func loadChecked(path string) (*config.Config, error) {
	cfg, err := config.Load(path, os.Getenv)
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
func newLogger(level string) (*zap.Logger, error) {
	l, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("log level %q: %w", level, err)
	}
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoder := zapcore.NewJSONEncoder(enc)
	if term.IsTerminal(int(os.Stderr.Fd())) {
		encoder = zapcore.NewConsoleEncoder(enc)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(os.Stderr), l)), nil
}
