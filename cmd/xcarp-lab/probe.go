package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/bench"
	"github.com/xcarp/xcarp/internal/probe"
)

// probing is what the flags of `xcarp-lab probe` say.
type probing struct {
	length time.Duration
	udp    uint16
	answer uint16
	output string
	report string
}

func probeCommand() *cobra.Command {
	var p probing
	c := &cobra.Command{
		Use:   "probe ADDR…",
		Short: "Measure the blackouts of a real pair of routers from a client",
		Long: `Sends a probe every 0.5 ms to each address, which should lie behind the pair: ICMP echo
requests, or with --udp datagrams to an echo service, which --answer is. Prints and
draws when nothing came back: make a fault of your own meanwhile. Needs no namespaces.`,
		Example: "  xcarp-lab probe 203.0.113.100 2001:db8:1::100\n  xcarp-lab probe --answer 7            # on the far side\n  xcarp-lab probe --udp 7 --for 1m --report gaps.html 203.0.113.100",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.run(cmd.Context(), args, os.Stdout, os.Stderr)
		},
	}
	f := c.Flags()
	f.DurationVar(&p.length, "for", 10*time.Second, "how long; Ctrl-C ends it early and prints")
	f.Uint16Var(&p.udp, "udp", 0, "send datagrams to this port")
	f.Uint16Var(&p.answer, "answer", 0, "be the echo service on this port, until Ctrl-C")
	f.StringVarP(&p.output, "output", "o", "text", "text or json")
	f.StringVar(&p.report, "report", "", "also write a report to this HTML file")
	return c
}

func (p *probing) run(ctx context.Context, args []string, out, progress io.Writer) error {
	if p.answer != 0 && len(args) == 0 {
		return echo(ctx, p.answer)
	}
	to, err := p.check(args)
	if err != nil {
		return err
	}
	began := time.Now()
	now := func() time.Duration { return time.Since(began) }
	probers, err := p.start(to, now)
	defer func() {
		for _, pr := range probers {
			_ = pr.Stop() // it has been read
		}
	}()
	if err != nil {
		return err
	}
	show := newProgress(progress)
	show.step("probing %s for %v", strings.Join(args, ", "), p.length)
	select {
	case <-ctx.Done(): // that is how it is ended early
	case <-time.After(p.length):
	}
	show.end()
	const grace = 250 * time.Millisecond // a younger probe is neither answered nor lost yet
	end := now()
	time.Sleep(grace)
	var seen []bench.Sight
	for i, a := range to {
		path := 0
		pr := probers[min(i, len(probers)-1)]
		if p.udp != 0 {
			pr, path = probers[0], i
		}
		seen = append(seen, bench.NewSight(a.String(), pr.Shots(path, 0, end), end))
	}
	if p.report != "" {
		file, err := os.Create(p.report)
		if err == nil {
			err = errors.Join(bench.SightsHTML(file, began, seen), file.Close())
		}
		if err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	if p.output == "json" {
		return json.NewEncoder(out).Encode(struct {
			Began time.Time     `json:"began"`
			Rows  []bench.Sight `json:"rows"`
		}{began, seen})
	}
	_, err = io.WriteString(out, bench.SightsText(seen, unicode()))
	return err
}

// check finds mistakes in the command line.
func (p *probing) check(args []string) (to []netip.Addr, err error) {
	switch {
	case p.output != "text" && p.output != "json":
		return nil, usageError{fmt.Errorf("output %q is unknown, there are text and json", p.output)}
	case len(args) == 0:
		return nil, usageError{errors.New("takes the address of a host behind the pair")}
	case p.answer != 0:
		return nil, usageError{errors.New("--answer takes no address")}
	case p.length <= 0 || p.length > time.Hour:
		return nil, usageError{fmt.Errorf("%v is not between nothing and an hour", p.length)}
	}
	for _, a := range args {
		addr, err := netip.ParseAddr(a)
		if err != nil {
			return nil, usageError{fmt.Errorf("address %q: %w", a, err)}
		}
		to = append(to, addr)
	}
	return to, nil
}

// start opens the wires: one for all datagrams, or one for the echo requests to each.
func (p *probing) start(to []netip.Addr, now func() time.Duration) (probers []*probe.Prober, err error) {
	limit := p.length + time.Second
	if p.udp != 0 {
		var far []netip.AddrPort
		for _, a := range to {
			far = append(far, netip.AddrPortFrom(a, p.udp))
		}
		w, err := probe.NewUDP(far...)
		if err != nil {
			return nil, err
		}
		return []*probe.Prober{probe.Start(w, len(to), limit, now)}, nil
	}
	for _, a := range to {
		w, err := probe.NewICMP(a)
		if err != nil {
			return probers, err
		}
		probers = append(probers, probe.Start(w, 1, limit, now))
	}
	return probers, nil
}

// echo is the far side.
func echo(ctx context.Context, port uint16) error {
	w, err := probe.NewUDP()
	if err != nil {
		return err
	}
	if err := w.Listen(port); err != nil {
		return errors.Join(err, w.Close())
	}
	for ctx.Err() == nil {
		if _, _, ok := w.Request(); ok {
			w.Reply()
		}
	}
	return w.Close()
}
