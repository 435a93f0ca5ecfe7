package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/bench"
	"github.com/xcarp/xcarp/internal/lab"
)

// flap is what the flags of `xcarp-lab bench flap` say.
type flap struct {
	contest
	length time.Duration
	cases  []string
	quick  bool
}

func flapCommand() *cobra.Command {
	var f flap
	c := &cobra.Command{
		Use:   "flap",
		Short: "Count false failovers on a busy machine and under a flood of packets",
		Long: `Builds the two routers of the demo, burdens the machine or the path, makes no fault,
and counts how often a group became master all the same.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), os.Stdout, os.Stderr) },
	}
	fl := c.Flags()
	f.contest.flags(fl)
	fl.DurationVar(&f.length, "for", time.Minute, "how long each burden is borne")
	fl.StringSliceVar(&f.cases, "cases", nil, "idle, hogs2, hogs8 (busy loops), flood (packets through the pair) (default: all)")
	fl.BoolVar(&f.quick, "quick", false, "five seconds each, xcarp alone unless --systems says more")
	return c
}

func (f *flap) run(ctx context.Context, out, progress io.Writer) error {
	if f.quick {
		f.length = 5 * time.Second
		if len(f.systems) == 0 {
			f.systems = []string{"xcarp"}
		}
	}
	burdens, err := f.check()
	if err != nil {
		return err
	}
	systems, absent, err := f.choose()
	if err != nil {
		return err
	}
	show := newProgress(progress)
	all := []bench.Flap{}
	for _, b := range burdens {
		for _, sys := range systems {
			show.step("%s, %s, %v", b, sys.Label(), f.length)
			res, err := lab.MeasureFlap(ctx, sys, b, f.length)
			if ctx.Err() != nil {
				show.end()
				return context.Cause(ctx)
			}
			if err != nil {
				res.Error = err.Error() // the others are measured all the same
			}
			all = append(all, res)
		}
	}
	show.end()
	if f.output == "json" {
		err = json.NewEncoder(out).Encode(struct {
			Rows   []bench.Flap `json:"rows"`
			Absent []string     `json:"absent"`
		}{all, append([]string{}, absent...)})
	} else {
		_, err = io.WriteString(out, bench.FlapText(all))
		for _, a := range absent {
			fmt.Fprintf(out, "not measured: %s\n", a)
		}
	}
	if err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}

// check finds mistakes in the flags before anything is built.
func (f *flap) check() (burdens []lab.Burden, err error) {
	if err := f.contest.check(); err != nil {
		return nil, err
	}
	if f.length <= 0 {
		return nil, usageError{fmt.Errorf("%v is no time", f.length)}
	}
	if len(f.cases) == 0 {
		return lab.Burdens, nil
	}
	for _, c := range f.cases {
		b, err := lab.ParseBurden(c)
		if err != nil {
			return nil, usageError{err}
		}
		burdens = append(burdens, b)
	}
	return burdens, nil
}
