package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/daemon"
)

func showCommand(o *options) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "show [GROUP]",
		Short: "Show groups, timers, leases and the state of the sync",
		Args:  words(0, 1),
		RunE: func(cmd *cobra.Command, a []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			for {
				if err := show(cmd.Context(), cmd.OutOrStdout(), o, a, asJSON); err != nil || !watch {
					return err
				}
				select {
				case <-time.After(time.Second):
				case <-cmd.Context().Done():
					return nil
				}
			}
		},
	}
	o.outputFlag(cmd)
	cmd.Flags().BoolVar(&watch, "watch", false, "again every second")
	return cmd
}

func show(ctx context.Context, w io.Writer, o *options, want []string, asJSON bool) error {
	s, err := daemon.GetStatus(ctx, o.paths.Run)
	if err != nil {
		return err
	}
	if len(want) == 1 {
		s.Groups = slices.DeleteFunc(s.Groups, func(g daemon.GroupStatus) bool { return g.Name != want[0] && g.Group != want[0] })
		if len(s.Groups) == 0 {
			return fmt.Errorf("no group %q: `xcarp show` lists them", want[0])
		}
	}
	if asJSON {
		return json.NewEncoder(w).Encode(s)
	}
	_, err = io.WriteString(w, render(s, time.Now()))
	return err
}

// render draws the status for a person: one block per group, derived timers
// included, so that nobody has to do the arithmetic at night.
func render(s *daemon.Status, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "node %s   xcarp %s   up %s   config %s\n", s.Node, s.Version, round(time.Duration(s.Uptime*float64(time.Second))), s.Hash)
	if s.StaleWhy != nil {
		fmt.Fprintf(&b, "config STALE for %s: %s\n", round(now.Sub(s.StaleWhy.Since)), stale(s))
	}
	for _, g := range s.Groups {
		fmt.Fprintf(&b, "\n%s: %s for %s (%s)\n", g.Name, g.State, round(now.Sub(g.Since)), g.Reason)
		fmt.Fprintf(&b, "  vhid %d on %s, vMAC %s, mode %s, XDP %s, ARP/ND answered by %s\n", g.VHID, g.Carpdev, g.VMAC, g.Mode, g.XDPMode, g.Answer)
		fmt.Fprintf(&b, "  addresses   %s%s\n", strings.Join(g.Addresses, " "), sharing(&g))
		fmt.Fprintf(&b, "  timers      advbase %d s, advskew %d: advert every %.4g s, master-down after %.4g s, preempt %s\n",
			g.AdvBase, g.AdvSkew, g.IntervalMS/1e3, g.MasterDownMS/1e3, onOff(g.Preempt))
		fmt.Fprintf(&b, "  lease       %.4g s left, term %d\n", g.LeaseMS/1e3, g.Term)
		fmt.Fprintf(&b, "  demotion    %d%s\n", g.Demotion, byOwner(g.Demotions))
		if len(g.Waits) > 0 {
			fmt.Fprintf(&b, "  waits for   %s\n", strings.Join(g.Waits, "; "))
		}
		fmt.Fprintf(&b, "  adverts     %d sent, %d received, %d send errors; masters heard: %s\n", g.Sent, g.Received, g.SendErrors, orNone(g.MastersSeen))
		if g.SilentFamily != "" {
			fmt.Fprintf(&b, "  ALARM       no %s adverts from that master: look at multicast snooping and filters on the way\n", g.SilentFamily)
		}
		fmt.Fprintf(&b, "  carpdev     %s\n", hearing(&g))
		for _, p := range g.Pulses {
			fmt.Fprintf(&b, "  pulses      %s %s, %s\n", p.Peer, p.Says, watching(&p))
		}
		fmt.Fprintf(&b, "  auth        %s, trailer %s; alarms: %s\n", g.Auth, onOff(g.Trailer), counts(g.Alarms))
		fmt.Fprintf(&b, "  drops       %s\n", counts(g.Drops))
		if g.Hint != "" {
			fmt.Fprintf(&b, "  hint        %s\n", g.Hint)
		}
	}
	renderTracks(&b, s, now)
	if len(s.Sync) > 0 {
		b.WriteString("\nsync:\n")
	}
	for _, p := range s.Sync {
		fmt.Fprintf(&b, "  %s: %s, %s, %d flows, lag %.3g ms, %d pending, %d gaps, resyncs: %s\n",
			p.Peer, word(p.Up, "up", "DOWN"), word(p.InSync, "in sync", "NOT IN SYNC"), p.Flows, p.LagMS, p.Pending, p.Gaps, counts(p.Resyncs))
		if len(p.Errors) > 0 {
			fmt.Fprintf(&b, "    entries refused by the kernel: %s\n", counts(p.Errors))
		}
	}
	if s.Table != nil {
		fmt.Fprintf(&b, "conntrack: %d of %d entries\n", s.Table.Entries, s.Table.Max)
	}
	return b.String()
}

// sharing says how the addresses are shared with other vhids.
func sharing(g *daemon.GroupStatus) string {
	switch g.Balance {
	case "":
		return ""
	case "arp":
		return fmt.Sprintf(", shared with other vhids: balance arp by %s", g.BalanceBy)
	}
	return ", shared with other vhids: balance " + g.Balance
}

// watching says how a peer is asked.
func watching(p *daemon.PulseStatus) string {
	s := fmt.Sprintf("%s when it was last asked; silent after %.3g ms, a slow answer takes %.2g ms", p.State, p.LimitMS, p.RTTMS)
	if p.SlowedMS > 0 {
		s += fmt.Sprintf("; asked every %.3g ms only, while a flood makes sending slow", p.SlowedMS)
	}
	if !p.Sync {
		s += "; SILENT on the sync device"
	}
	if p.Wrong > 0 {
		s += fmt.Sprintf("; replaced by mistake: %d", p.Wrong)
	}
	return s
}

// stale says why the configuration that runs is not the one on disk, and what to
// do about it.
func stale(s *daemon.Status) string {
	if s.StaleWhy.Why == "restart" {
		return s.Config + " differs in more than groups: xcarp restart applies it"
	}
	why := s.Config + " could not be applied"
	if s.StaleWhy.Why == "refused" {
		why = "what is on disk was refused"
	}
	for i, p := range s.StaleWhy.Problems {
		if i == 3 {
			return why + fmt.Sprintf("\n  and %d more: xcarp check %s", len(s.StaleWhy.Problems)-i, s.Config)
		}
		why += "\n  " + p
	}
	return why
}

// hearing says what is heard on the carpdev from anybody at all.
func hearing(g *daemon.GroupStatus) string {
	s := map[string]string{"hears": "others are heard", "deaf": "DEAF: neighbours that are asked do not answer",
		"unknown": "silent, and nobody is known who would answer"}[g.Ears]
	if g.Split {
		s += "; SPLIT: the master is silent here and lives by the sync link"
	}
	return s
}

func round(d time.Duration) time.Duration {
	if d > time.Minute {
		return d.Round(time.Second)
	}
	return d.Round(time.Millisecond)
}

func onOff(b bool) string { return word(b, "on", "off") }

func word(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func orNone(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, ", ")
}

func counts(m map[string]uint64) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
		}
	}
	return orNone(parts)
}

func byOwner(m map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}
