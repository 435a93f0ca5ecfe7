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
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/xcarp/xcarp/internal/lab"
)

// demo is what the flags of `xcarp-lab demo` say.
type demo struct {
	fault     string
	noSync    bool
	noRestart bool
	systems   string
	keep      bool
	runs      int
	rate      float64
	program   string
	output    string
	json      bool
}

func demoCommand() *cobra.Command {
	var d demo
	c := &cobra.Command{
		Use:   "demo",
		Short: "Cut the master of a pair off and draw what the client sees",
		Long: `Builds two routers, a client and a server in network namespaces, runs xcarp on the
routers, downloads through the pair, makes a fault of the master, and draws the
blackout of the path and the stall of the TCP stream. Then it heals the fault,
watches the failback and removes everything. The same is done under the peers that
are installed, each with adverts once a second. Every figure is measured.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unexpected %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return d.run(cmd.Context(), os.Stdout, os.Stderr) },
	}
	var words []string
	for _, f := range lab.Faults {
		words = append(words, string(f))
	}
	f := c.Flags()
	f.StringVar(&d.fault, "fault", string(lab.Crash), "what happens to the master: "+strings.Join(words, ", "))
	f.BoolVar(&d.noSync, "no-sync", false, "start the daemons without the sync section, and change nothing else")
	f.BoolVar(&d.noRestart, "no-restart", false, "after kill9, do not restart the daemon")
	f.StringVar(&d.systems, "systems", "", "what to measure, separated by commas: "+strings.Join(lab.SystemNames(), ", ")+
		" (default: xcarp, and keepalived+conntrackd and ucarp where installed)")
	f.BoolVar(&d.keep, "keep", false, "keep the lab until Ctrl-C")
	f.IntVar(&d.runs, "runs", 1, "how often to measure")
	f.Float64Var(&d.rate, "rate", lab.DefaultRate/1e6, "pace of the download in MB/s")
	f.StringVar(&d.program, "xcarp", "", "the xcarp program (default: beside xcarp-lab, then in PATH)")
	f.StringVarP(&d.output, "output", "o", "text", "text or json (one object a line)")
	f.BoolVar(&d.json, "json", false, "short for -o json --systems xcarp")
	return c
}

// run measures and prints.
func (d *demo) run(ctx context.Context, out, progress io.Writer) error {
	if d.json {
		d.output, d.systems = "json", "xcarp"
	}
	fault, err := d.check()
	if err != nil {
		return err
	}
	if err := requirements(); err != nil {
		return err
	}
	program, err := lab.FindXCarp(d.program)
	if err != nil {
		return err
	}
	systems, absent, err := d.choose(program)
	if err != nil {
		return err
	}
	if _, err := lab.Sweep(); err != nil {
		return err
	}
	show := newProgress(progress)
	var results []lab.Result // of the first system
	for i := range d.runs {
		if d.runs > 1 {
			show.step("run %d of %d", i+1, d.runs)
		}
		var side []lab.Result // by side
		for k, sys := range systems {
			opt := lab.Options{
				Fault: fault, Rate: d.rate * 1e6, Sync: sys.Mirrors, NoRestart: d.noRestart,
				Progress: show.step,
			}
			if d.keep && i == d.runs-1 && k == len(systems)-1 {
				opt.Hold = hold(progress, show)
			}
			res, err := lab.Measure(ctx, sys, opt)
			show.end()
			if err != nil {
				return err
			}
			side = append(side, res)
		}
		if err := d.print(out, side, absent); err != nil {
			return fmt.Errorf("print the result: %w", err)
		}
		results = append(results, side[0])
	}
	if d.runs == 1 || d.output != "text" || systems[0].Name != "xcarp" {
		return nil
	}
	text, kept := lab.Summary(results)
	if _, err := fmt.Fprintf(out, "\n%s", text); err != nil {
		return fmt.Errorf("print the summary: %w", err)
	}
	if !kept {
		return errors.New("not every run kept what the README promises: see the summary")
	}
	return nil
}

// check finds mistakes in the flags before anything is built.
func (d *demo) check() (lab.Fault, error) {
	fault, err := lab.ParseFault(d.fault)
	if err != nil {
		return "", usageError{err}
	}
	switch {
	case d.output != "text" && d.output != "json":
		return "", usageError{fmt.Errorf("output %q is unknown, there are text and json", d.output)}
	case d.runs < 1:
		return "", usageError{fmt.Errorf("%d runs are none", d.runs)}
	case d.rate <= 0:
		return "", usageError{fmt.Errorf("a rate of %g MB/s moves nothing", d.rate)}
	case d.noRestart && fault != lab.Kill9:
		return "", usageError{fmt.Errorf("--no-restart belongs to --fault %s", lab.Kill9)}
	}
	for _, s := range d.named() {
		if !slices.Contains(lab.SystemNames(), s) {
			return "", usageError{fmt.Errorf("system %q is unknown, there are %s", s, strings.Join(lab.SystemNames(), ", "))}
		}
	}
	return fault, nil
}

// named are the systems that were asked for by name.
func (d *demo) named() []string {
	if d.systems == "" {
		return nil
	}
	return strings.Split(d.systems, ",")
}

// choose finds the systems to measure. Those that were named must be there.
func (d *demo) choose(program string) (chosen []lab.System, absent []string, err error) {
	all := lab.DemoSystems(program, !d.noSync)
	for _, s := range all {
		asked := slices.Contains(d.named(), s.Name)
		if len(d.named()) == 0 {
			asked = s.Name == "xcarp" || s.Name == "keepalived+conntrackd" || s.Name == "ucarp"
		}
		if !asked {
			continue
		}
		if err := s.Check(); err != nil {
			if len(d.named()) > 0 {
				return nil, nil, fmt.Errorf("%s %w", s.Name, err)
			}
			absent = append(absent, fmt.Sprintf("%s %v", s.Name, err))
			continue
		}
		chosen = append(chosen, s)
	}
	return chosen, absent, nil
}

// requirements says what the lab needs and this machine lacks.
func requirements() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root: sudo xcarp-lab demo")
	}
	for _, p := range [][2]string{{"nft", "nftables"}, {"ip", "iproute2"}} {
		if _, err := exec.LookPath(p[0]); err != nil {
			return fmt.Errorf("needs the program %s: apt-get install %s", p[0], p[1])
		}
	}
	return nil
}

// print writes what was measured side by side. The labs are gone by now.
func (d *demo) print(w io.Writer, side []lab.Result, absent []string) error {
	if d.output == "json" {
		side[0].Peers = append(side[0].Peers, side[1:]...)
		return json.NewEncoder(w).Encode(side[0])
	}
	style := lab.Style{Unicode: unicode(), Color: color(w)}
	if _, err := fmt.Fprintf(w, "\n%s  clean up  done\n", style.Picture(side...)); err != nil {
		return err
	}
	for _, a := range absent {
		if _, err := fmt.Fprintf(w, "  not beside it  %s\n", a); err != nil {
			return err
		}
	}
	return nil
}

// unicode reports whether the locale can print what is not ASCII.
func unicode() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} { // the first that is set holds, locale(7)
		if v := os.Getenv(name); v != "" {
			v = strings.ToUpper(v)
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return false
}

// color reports whether to use colours: on a terminal, unless no-color.org asks
// for none.
func color(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && terminal(w)
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// progress shows steps and how long each took, on a terminal only.
type progress struct {
	w     io.Writer // nil: not shown
	begun time.Time // of the open step; zero: none
}

func newProgress(w io.Writer) *progress {
	if !terminal(w) {
		return &progress{}
	}
	return &progress{w: w}
}

// step ends the open step and begins another.
func (p *progress) step(format string, args ...any) {
	if p.w == nil {
		return
	}
	p.end()
	text := fmt.Sprintf(format, args...)
	fmt.Fprintf(p.w, "  %s %s ", text, strings.Repeat(".", max(3, 70-utf8.RuneCountInString(text))))
	p.begun = time.Now()
}

func (p *progress) end() {
	if p.w == nil || p.begun.IsZero() {
		return
	}
	fmt.Fprintf(p.w, "%.1f s\n", time.Since(p.begun).Seconds())
	p.begun = time.Time{}
}

// hold keeps the lab until the context ends.
func hold(w io.Writer, show *progress) func(context.Context, *lab.Net, error) {
	return func(ctx context.Context, n *lab.Net, err error) {
		show.end()
		if err != nil {
			fmt.Fprintln(w, err)
		}
		fmt.Fprintf(w, "the lab is kept; in another terminal:\n")
		for _, r := range n.Routers() {
			fmt.Fprintf(w, "  nsenter --net=/run/netns/%s    log %s, run-dir %s/run\n", r.NS.Name, r.LogFile(), r.Dir)
		}
		fmt.Fprintf(w, "  nsenter --net=/run/netns/%s\n  nsenter --net=/run/netns/%s\nCtrl-C takes it down\n", n.Client.NS.Name, n.Server.NS.Name)
		<-ctx.Done()
	}
}
