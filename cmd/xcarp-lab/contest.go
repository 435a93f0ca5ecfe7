package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/xcarp/xcarp/internal/lab"
)

// contest is what the benchmarks of several systems have in common.
type contest struct {
	systems  []string
	profiles []string
	program  string
	output   string
}

func (c *contest) flags(fl *pflag.FlagSet) {
	fl.StringSliceVar(&c.systems, "systems", nil, strings.Join(lab.SystemNames(), ",")+" (default: all that are installed)")
	fl.StringSliceVar(&c.profiles, "profiles", nil, "settings of the systems that have them: of xcarp fast, default, classic (default: all)")
	fl.StringVar(&c.program, "xcarp", "", "the xcarp program (default: beside xcarp-lab, then in PATH)")
	fl.StringVarP(&c.output, "output", "o", "text", "text or json")
}

// check finds mistakes in the flags before anything is built.
func (c *contest) check() error {
	if c.output != "text" && c.output != "json" {
		return usageError{fmt.Errorf("output %q is unknown, there are text and json", c.output)}
	}
	return nil
}

// choose returns the systems that can be measured here, says which of those that were
// asked for cannot, and clears what an earlier run left.
func (c *contest) choose() (systems []lab.System, absent []string, err error) {
	if err := requirements(); err != nil {
		return nil, nil, err
	}
	program, err := lab.FindXCarp(c.program)
	if err != nil {
		return nil, nil, err
	}
	if systems, absent, err = lab.Select(lab.Systems(program), c.systems, c.profiles); err != nil {
		return nil, nil, err
	}
	_, err = lab.Sweep()
	return systems, absent, err
}
