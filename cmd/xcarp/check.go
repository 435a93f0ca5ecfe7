package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/config"
)

func checkCommand(o *options) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration, and this machine against it",
		Args:  words(0, 1),
		RunE: func(cmd *cobra.Command, a []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			src, err := configSource(cmd, path, a)
			if err != nil {
				return err
			}
			cfg, problems := examineSaved(src, o.paths)
			if err := o.paths.Check(); err != nil {
				problems = append(problems, config.Problems(err)...)
			}
			ok := errorsOf(problems) == nil
			if asJSON {
				return checkJSON(cmd.OutOrStdout(), ok, problems)
			}
			printProblems(cmd.ErrOrStderr(), problems)
			if !ok {
				return errSilent
			}
			name := src.Path
			if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
				name += " (no such file, which is as good as an empty one)"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok: node %s, groups: %d, config %s\n", name, cfg.Node, len(cfg.Groups), cfg.Hash)
			return err
		},
	}
	configFlag(cmd, &path, "the same as FILE")
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

func checkJSON(w io.Writer, ok bool, problems []*config.Problem) error {
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
	}{OK: ok, Problems: []problem{}}
	for _, p := range problems {
		out.Problems = append(out.Problems, problem{p.File, p.Line, p.Column, p.Message, p.Fix, p.Warning})
	}
	if err := json.NewEncoder(w).Encode(out); err != nil {
		return err
	}
	if !ok {
		return errSilent
	}
	return nil
}
