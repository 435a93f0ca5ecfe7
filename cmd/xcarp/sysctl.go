package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/bsd"
	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/daemon"
)

func sysctlCommand(o *options) *cobra.Command {
	var write, all, bare, save bool
	cmd := &cobra.Command{
		Use:   "sysctl [-w] [net.inet.carp.NAME[=VALUE]…]",
		Short: "Show and change the net.inet.carp.* of the BSDs",
		Long: `Show and change the net.inet.carp.* of the BSDs, while the daemon runs:

	allow                    0: no group takes part (INIT), after a goodbye of the masters
	preempt                  1: take over from a worse master
	log                      0 warnings, 1 or 2 changes of state, 3 to 7 everything
	demotion                 what is written is added, as on FreeBSD: 50, then -50
	ifdown_demotion_factor, senderr_demotion_factor, dscp
	arpbalance               1 if a group has balancing arp, which is set for each group

Without a value it prints, without a name everything. A change holds until the next
boot; with --save for good.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, names []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			for i, n := range names {
				if n == "=" || i > 0 && strings.HasPrefix(n, "=") || strings.HasSuffix(n, "=") {
					return usageError{errors.New("a blank beside =: write NAME=VALUE as one word")}
				}
			}
			if len(names) == 0 || len(names) == 1 && strings.TrimSuffix(names[0], ".") == strings.TrimSuffix(bsd.SysctlPrefix, ".") {
				names = nil
				for _, n := range bsd.Sysctls() {
					names = append(names, bsd.SysctlPrefix+n)
				}
			}
			values := map[string]string{}
			for _, n := range names { // first all, so that a mistake in one changes nothing
				s, err := bsd.ParseSysctl(n)
				if err == nil && write && !s.Write {
					return usageError{fmt.Errorf("%s has no value: write %s=VALUE, or leave -w out", n, n)}
				}
				if err != nil {
					return config.LineProblem(err, &bsd.Source{Name: "sysctl", Text: n})
				}
			}
			for _, n := range names {
				s, _ := bsd.ParseSysctl(n)
				reply, err := daemon.Sysctl(cmd.Context(), o.paths.Run, daemon.LineRequest{Line: n, Save: save && s.Write})
				if err == nil {
					err = replied(cmd, o, reply)
				}
				if err != nil {
					return err
				}
				name := bsd.SysctlPrefix + s.Name
				values[name] = reply.Is
				switch {
				case asJSON:
				case bare:
					fmt.Fprintln(cmd.OutOrStdout(), reply.Is)
				case s.Write:
					fmt.Fprintf(cmd.OutOrStdout(), "%s: %s -> %s\n", name, reply.Was, reply.Is)
				default:
					fmt.Fprintf(cmd.OutOrStdout(), "%s=%s\n", name, reply.Is)
				}
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(values)
			}
			return nil
		},
	}
	o.outputFlag(cmd)
	f := cmd.Flags()
	f.BoolVarP(&write, "write", "w", false, "the names come with values (they may without it, too)")
	f.BoolVarP(&all, "all", "a", false, "all names; the default")
	f.BoolVarP(&bare, "values", "n", false, "print values without names")
	f.BoolVar(&save, "save", false, "keep it over a reboot")
	return cmd
}
