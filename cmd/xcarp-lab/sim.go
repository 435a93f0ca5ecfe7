package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/xcarp/xcarp/internal/carp/sim"
)

// simEnough is after how many seeds that broke a rule there is enough to look at.
const simEnough = 10

// simulation is what the flags of `xcarp-lab sim` say.
type simulation struct {
	seeds  uint64
	first  uint64
	seed   uint64
	replay string
	record string
	output string
}

func simCommand() *cobra.Command {
	var s simulation
	c := &cobra.Command{
		Use:   "sim",
		Short: "Run the election through simulated chaos, or replay what it was told",
		Long: `Simulates nodes with faults of all kinds and an attacker, and checks that the rules
of the election hold: without --seed or --replay many seeds, with --seed one, with
a line for each event. A seed always gives the same.

--record DIR writes, with --seed, what the election of each process was told, one
file each. --replay FILE tells such a record to the real election and prints what
it wants; where the file has other effects after => that is said, and the exit
status is 1. Without --replay the exit status is 1 if a rule was broken.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unexpected %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := cmd.Flags()
			one, replay := f.Changed("seed"), f.Changed("replay")
			switch {
			case s.output != "" && s.output != "json":
				return usageError{fmt.Errorf("-o %s: want json", s.output)}
			case one && replay:
				return usageError{errors.New("--seed and --replay: want one of them")}
			case (one || replay) && s.output != "":
				return usageError{errors.New("-o json: goes with many seeds")}
			case s.record != "" && !one:
				return usageError{errors.New("--record: goes with --seed")}
			case replay:
				return s.runReplay(os.Stdout)
			case one:
				return s.runOne(os.Stdout)
			}
			return s.runMany(cmd.Context(), os.Stdout, os.Stderr)
		},
	}
	f := c.Flags()
	f.Uint64Var(&s.seeds, "seeds", 20000, "how many seeds to simulate")
	f.Uint64Var(&s.first, "first", 1, "the first of them")
	f.Uint64Var(&s.seed, "seed", 0, "simulate this one and print every event")
	f.StringVar(&s.replay, "replay", "", "tell the facts in this file to the election")
	f.StringVar(&s.record, "record", "", "with --seed: write what each process was told into this directory")
	f.StringVarP(&s.output, "output", "o", "", "json: print figures for programs")
	return c
}

// simReport is what `xcarp-lab sim -o json` prints.
type simReport struct {
	Seeds       uint64      `json:"seeds"`
	Events      int         `json:"events"`
	Transitions int         `json:"transitions"`
	Refused     int         `json:"refused"` // adverts that were received and not believed
	TookMS      int64       `json:"took_ms"`
	Broken      []simBroken `json:"broken"`
}

type simBroken struct {
	Seed     uint64  `json:"seed"`
	Rule     string  `json:"rule"`
	AtS      float64 `json:"at_s"`
	What     string  `json:"what"`
	Scenario string  `json:"scenario"`
}

func (s *simulation) runMany(ctx context.Context, out, progress io.Writer) error {
	debug.SetGCPercent(400) // much garbage, and next to nothing that lives
	began := time.Now()
	var told atomic.Uint64
	var step func(uint64)
	if f, ok := progress.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		step = func(done uint64) {
			if percent := done * 100 / s.seeds; told.Swap(percent) != percent {
				fmt.Fprintf(progress, "\r%3d %% of %d seeds", percent, s.seeds)
			}
		}
		defer fmt.Fprintln(progress)
	}
	sum := sim.Seeds(s.first, s.seeds, runtime.NumCPU(), simEnough, ctx.Done(), step)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	took := time.Since(began)
	if s.output == "json" {
		r := simReport{sum.Seeds, sum.Events, sum.Transitions, sum.Refused, took.Milliseconds(), []simBroken{}}
		for _, b := range sum.Broken {
			r.Broken = append(r.Broken, simBroken{b.Scenario.Seed, b.Broken.Rule, b.Broken.At.Seconds(), b.Broken.What, b.Scenario.String()})
		}
		if err := json.NewEncoder(out).Encode(r); err != nil {
			return err
		}
	} else {
		for _, b := range sum.Broken {
			fmt.Fprintf(out, "%v\n    %v\n    replay: make sim SEED=%d, or xcarp-lab sim --seed %d\n", b.Scenario, b.Broken, b.Scenario.Seed, b.Scenario.Seed)
		}
		fmt.Fprintf(out, "%d seeds, %d events, %d changes of role, %d adverts refused: %d rules broken, %.1f s\n",
			sum.Seeds, sum.Events, sum.Transitions, sum.Refused, len(sum.Broken), took.Seconds())
	}
	if len(sum.Broken) > 0 {
		return fmt.Errorf("%d of %d simulations broke a rule", len(sum.Broken), sum.Seeds)
	}
	return nil
}

func (s *simulation) runOne(out io.Writer) error {
	var record func(string, int) io.Writer
	files := map[string]*os.File{}
	var failed error
	if s.record != "" {
		if err := os.MkdirAll(s.record, 0o755); err != nil {
			return fmt.Errorf("make a place for the records: %w", err)
		}
		record = func(node string, process int) io.Writer {
			name := fmt.Sprintf("seed%d-%s-%d.txt", s.seed, node, process)
			if f, ok := files[name]; ok {
				return f
			}
			f, err := os.Create(filepath.Join(s.record, name))
			if err != nil {
				failed = errors.Join(failed, err)
				return io.Discard
			}
			files[name] = f
			return f
		}
	}
	r := sim.Run(s.seed, out, record)
	for _, f := range files {
		failed = errors.Join(failed, f.Close())
	}
	if failed != nil {
		return fmt.Errorf("write the records: %w", failed)
	}
	if r.Broken != nil {
		return fmt.Errorf("seed %d: %w", s.seed, r.Broken)
	}
	fmt.Fprintf(out, "# %d events, %d changes of role: all rules hold\n", r.Events, r.Transitions)
	return nil
}

func (s *simulation) runReplay(out io.Writer) error {
	f, err := os.Open(s.replay)
	if err != nil {
		return fmt.Errorf("read the record: %w", err)
	}
	defer f.Close()
	differ, err := sim.Replay(s.replay, f, out)
	if err != nil {
		return err
	}
	if differ > 0 {
		return fmt.Errorf("%s: %d facts had other effects than the file says", s.replay, differ)
	}
	return nil
}
