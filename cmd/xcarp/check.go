package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/config"
)

func checkCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration, and this machine against it",
		Args:  words(0, 1),
		RunE: func(cmd *cobra.Command, a []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			path := defaultConfig
			if len(a) == 1 {
				path = a[0]
			}
			cfg, err := loadSaved(config.Source{Path: path, Optional: len(a) == 0}, o.paths)
			if asJSON {
				return checkJSON(cmd.OutOrStdout(), cfg, err)
			}
			if err != nil {
				printProblems(os.Stderr, config.Problems(err))
				return errSilent
			}
			printProblems(os.Stderr, cfg.Warnings)
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok: node %s, %d groups, config %s\n", path, cfg.Node, len(cfg.Groups), cfg.Hash)
			return nil
		},
	}
	o.outputFlag(cmd)
	return cmd
}

// printProblems prints one line each; on a terminal the place in the text, too.
func printProblems(w io.Writer, problems []*config.Problem) {
	for _, p := range problems {
		fmt.Fprintf(w, "xcarp: %s\n", p.Error())
		if p.Caret != "" {
			fmt.Fprintln(w, p.Caret)
		}
	}
}

func checkJSON(w io.Writer, cfg *config.Config, err error) error {
	type problem struct {
		File    string `json:"file"`
		Line    int    `json:"line,omitempty"`
		Column  int    `json:"column,omitempty"`
		Message string `json:"message"`
		Fix     string `json:"fix,omitempty"`
		Warning bool   `json:"warning,omitempty"`
	}
	out := struct {
		OK       bool      `json:"ok"`
		Problems []problem `json:"problems"`
	}{OK: err == nil, Problems: []problem{}}
	all := config.Problems(err)
	if err == nil {
		all = cfg.Warnings
	}
	for _, p := range all {
		out.Problems = append(out.Problems, problem{p.File, p.Line, p.Column, p.Message, p.Fix, p.Warning})
	}
	if err := json.NewEncoder(w).Encode(out); err != nil {
		return err
	}
	if !out.OK {
		return errSilent
	}
	return nil
}

// errorsOf splits problems: warnings go to the list, the others become an error.
func errorsOf(problems []config.Problem, warnings *[]*config.Problem) error {
	var errs []error
	for i := range problems {
		if problems[i].Warning {
			*warnings = append(*warnings, &problems[i])
		} else {
			errs = append(errs, &problems[i])
		}
	}
	return errors.Join(errs...)
}
