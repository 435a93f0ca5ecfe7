package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/bench"
	"github.com/xcarp/xcarp/internal/lab"
)

// failover is what the flags of `xcarp-lab bench failover` say.
type failover struct {
	contest
	runs   int
	faults []string
	modes  []string
	flows  int
	quick  bool
	report string
}

func failoverCommand() *cobra.Command {
	var f failover
	c := &cobra.Command{
		Use:   "failover",
		Short: "Measure failovers of xcarp beside every peer that is installed",
		Long: `Builds the two routers of the demo anew for every run, with one system after the
other on them, then again: runs are interleaved. Each makes one fault of the master and
heals it. Meanwhile the client sends a UDP probe every 0.5 ms over IPv4 and IPv6, keeps
two TCP connections busy, and the switch asks who has the shared addresses.

A run is rejected only if the prober's own stamps show a gap of more than 2 ms within
50 ms of the fault: one rule for all. A row that lost over a third of its runs is void.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), os.Stdout, os.Stderr) },
	}
	fl := c.Flags()
	f.contest.flags(fl)
	fl.IntVar(&f.runs, "runs", 10, "runs of each row")
	fl.StringSliceVar(&f.faults, "faults", []string{string(lab.Crash)}, strings.Join(faultWords(), ",")+", or all")
	fl.StringSliceVar(&f.faults, "cases", []string{string(lab.Crash)}, "the same as --faults")
	fl.StringSliceVar(&f.modes, "modes", []string{string(lab.NAT)}, "route, nat (strict filters), nat-open (no filter on what is for the router itself), masquerade (the WAN has the shared address alone), or all")
	fl.IntVar(&f.flows, "flows", 0, "other connections in the table")
	fl.BoolVar(&f.quick, "quick", false, "up to three rounds of crashes, of xcarp and the fastest setting of each peer; none begins after 25 s")
	fl.StringVar(&f.report, "report", "", "also write a report to this HTML file")
	return c
}

func faultWords() []string {
	var words []string
	for _, f := range lab.Faults {
		words = append(words, string(f))
	}
	return words
}

func (f *failover) run(ctx context.Context, out, progress io.Writer) error {
	opt, err := f.check()
	if err != nil {
		return err
	}
	systems, absent, err := f.choose()
	if err != nil {
		return err
	}
	if f.quick && len(f.profiles) == 0 {
		systems = firstOfEach(systems)
	}
	opt.Systems = systems
	var file *os.File // before the work, not after
	if f.report != "" {
		if file, err = os.Create(f.report); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
		defer file.Close()
	}
	show := newProgress(progress)
	opt.Progress = show.step
	rep := lab.MeasureFailover(ctx, opt)
	show.end()
	rep.Command = strings.Join(append([]string{"xcarp-lab"}, os.Args[1:]...), " ")
	rep.Absent = append(rep.Absent, absent...)
	if err := f.print(out, rep); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	if file != nil {
		if err := errors.Join(rep.HTML(file), file.Close()); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	return context.Cause(ctx)
}

// check finds mistakes in the flags before anything is built.
func (f *failover) check() (opt lab.FailoverOptions, err error) {
	opt = lab.FailoverOptions{Runs: f.runs, Flows: f.flows}
	if f.quick {
		opt.Runs, opt.Budget = 3, 25*time.Second
	}
	if err := f.contest.check(); err != nil {
		return opt, err
	}
	switch {
	case f.runs < 1:
		return opt, usageError{fmt.Errorf("%d runs are none", f.runs)}
	case f.flows < 0 || f.flows > 120_000:
		return opt, usageError{fmt.Errorf("%d flows: 0 to 120000", f.flows)}
	}
	if len(f.faults) == 1 && f.faults[0] == "all" {
		f.faults = faultWords()
	}
	for _, w := range f.faults {
		fault, err := lab.ParseFault(w)
		if err != nil {
			return opt, usageError{err}
		}
		opt.Faults = append(opt.Faults, fault)
	}
	if len(f.modes) == 1 && f.modes[0] == "all" {
		opt.Modes, f.modes = lab.Modes, nil
	}
	for _, w := range f.modes {
		mode, err := lab.ParseMode(w)
		if err != nil {
			return opt, usageError{err}
		}
		opt.Modes = append(opt.Modes, mode)
	}
	if f.flows > 0 {
		for _, m := range opt.Modes {
			if m == lab.Route {
				return opt, usageError{errors.New("--flows needs a connection table: --modes nat, nat-open or masquerade")}
			}
		}
	}
	return opt, nil
}

// firstOfEach keeps the first setting of each system, which is its fastest.
func firstOfEach(all []lab.System) (first []lab.System) {
	seen := map[string]bool{}
	for _, s := range all {
		if !seen[s.Name] {
			seen[s.Name] = true
			first = append(first, s)
		}
	}
	return first
}

func (f *failover) print(w io.Writer, rep bench.Report) error {
	if f.output == "json" {
		return json.NewEncoder(w).Encode(rep)
	}
	_, err := io.WriteString(w, rep.Text())
	return err
}
