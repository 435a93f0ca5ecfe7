package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/lab"
)

func benchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure, beside the systems that are installed",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown benchmark %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(failoverCommand(), flapCommand(), shieldCommand())
	return c
}

// shield is what the flags of `xcarp-lab bench shield` say.
type shield struct {
	systems string
	cases   string
	quick   bool
	program string
	output  string

	profiles []string
}

func shieldCommand() *cobra.Command {
	var s shield
	c := &cobra.Command{
		Use:   "shield",
		Short: "Flood the election with false adverts, and kill the master meanwhile",
		Long: `Builds the two routers of the demo and floods their LAN from a host on it, as fast as
all processors can send: with forged adverts (right vhid, TTL and checksum, spoofed
source, wrong digest), with a genuine one that was captured, and with the same
relabelled to be better than the master. Ten seconds each; then the master is killed
while the flood goes on. xcarp is flooded twice: with CARP's timers alone, and as it is,
with pulses. Fails if it does not keep what it promises.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unexpected %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd.Context(), os.Stdout, os.Stderr) },
	}
	var words []string
	for _, a := range lab.Attacks {
		words = append(words, string(a))
	}
	f := c.Flags()
	f.StringVar(&s.systems, "systems", "", "xcarp and ucarp, separated by commas (default: those that are installed)")
	f.StringVar(&s.cases, "cases", "", "which adverts: "+strings.Join(words, ", ")+" (default: all)")
	f.StringSliceVar(&s.profiles, "profiles", nil, "settings of xcarp: "+strings.Join(shieldProfiles, ", ")+" (default: all)")
	f.BoolVar(&s.quick, "quick", false, "two seconds each, xcarp alone unless --systems says more")
	f.StringVar(&s.program, "xcarp", "", "the xcarp program (default: beside xcarp-lab, then in PATH)")
	f.StringVarP(&s.output, "output", "o", "text", "text or json (one object a line)")
	return c
}

// shieldProfiles are the settings in which xcarp is flooded: with CARP's timers alone,
// and as it is.
var shieldProfiles = []string{"timers", "default"}

func (s *shield) run(ctx context.Context, out, progress io.Writer) error {
	opt := lab.ShieldOptions{For: 10 * time.Second}
	if s.quick {
		opt.For = 2 * time.Second
	}
	systems, err := s.check(&opt)
	if err != nil {
		return err
	}
	if err := requirements(); err != nil {
		return err
	}
	if _, err := lab.Sweep(); err != nil {
		return err
	}
	show := newProgress(progress)
	opt.Progress = show.step
	var all []lab.ShieldResult
	for _, name := range systems {
		these := []lab.System{lab.UCARP()}
		if name == "xcarp" {
			program, err := lab.FindXCarp(s.program)
			if err != nil {
				return err
			}
			these = nil
			for _, p := range s.profiles {
				these = append(these, lab.XCarpProfile(program, p))
			}
		}
		for _, sys := range these {
			results, err := lab.MeasureShield(ctx, sys, opt)
			show.end()
			if err != nil {
				return err
			}
			all = append(all, results...)
		}
	}
	text, kept := lab.ShieldText(all)
	if s.output == "json" {
		for _, r := range all {
			if err := json.NewEncoder(out).Encode(r); err != nil {
				return fmt.Errorf("print the result: %w", err)
			}
		}
	} else if _, err := io.WriteString(out, text); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	if !kept {
		return errors.New("xcarp did not keep what it promises: see \"not kept\", or \"broken\" in the JSON")
	}
	return nil
}

// check finds mistakes in the flags before anything is built.
func (s *shield) check(opt *lab.ShieldOptions) (systems []string, err error) {
	if s.output != "text" && s.output != "json" {
		return nil, usageError{fmt.Errorf("output %q is unknown, there are text and json", s.output)}
	}
	if s.cases != "" {
		for c := range strings.SplitSeq(s.cases, ",") {
			a, err := lab.ParseAttack(c)
			if err != nil {
				return nil, usageError{err}
			}
			opt.Attacks = append(opt.Attacks, a)
		}
	}
	if len(s.profiles) == 0 {
		s.profiles = shieldProfiles
	}
	for _, p := range s.profiles {
		if !slices.Contains(shieldProfiles, p) {
			return nil, usageError{fmt.Errorf("profile %q is not flooded, there are %s", p, strings.Join(shieldProfiles, " and "))}
		}
	}
	if s.systems == "" {
		systems = []string{"xcarp"}
		if _, err := exec.LookPath("ucarp"); err == nil && !s.quick {
			systems = append(systems, "ucarp")
		}
		return systems, nil
	}
	for name := range strings.SplitSeq(s.systems, ",") {
		if name != "xcarp" && name != "ucarp" {
			return nil, usageError{fmt.Errorf("system %q has no shield to measure, there are xcarp and ucarp", name)}
		}
		systems = append(systems, name)
	}
	return systems, nil
}
