package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/bsd"
	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/daemon"
)

func ifconfigCommand(o *options) *cobra.Command {
	var save bool
	cmd := &cobra.Command{
		Use:   "ifconfig [NAME [WORD…]] [--save]",
		Short: "Show and change groups in the words of ifconfig(8) of the BSDs",
		Long: `Show and change groups in the words of ifconfig(8) of the BSDs, while the daemon runs:

	xcarp ifconfig carp1 create
	xcarp ifconfig carp1 vhid 1 pass password carpdev eth0 advskew 100 10.0.0.1 netmask 255.255.255.0
	xcarp ifconfig carp1 [down|up|destroy|advskew 50|-alias 10.0.0.1]
	xcarp ifconfig eth0 vhid 1 pass password 10.0.0.1/24 alias
	xcarp ifconfig -g carp [carpdemote 50]
	xcarp ifconfig pfsync0 syncdev eth2 syncpeer 10.1.1.2 up

Without words it prints the group, without a name all of them. A change passes the
checks of xcarp check first; a group whose settings change goes on in its role. It
holds until the next boot; with --save what it names is kept for good.`,
		DisableFlagParsing: true, // words of ifconfig begin with a dash, too
		RunE: func(cmd *cobra.Command, a []string) error {
			words, err := ownFlags(cmd, a)
			if err != nil {
				return err
			}
			if words == nil {
				return cmd.Help()
			}
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			return ifconfig(cmd, o, words, save, asJSON)
		},
	}
	o.outputFlag(cmd)
	cmd.Flags().BoolVar(&save, "save", false, "keep it over a reboot")
	return cmd
}

// ownFlags takes our flags, which have two dashes (and -o, -h), out of the
// arguments and sets them. Nil words mean that help was asked for.
func ownFlags(cmd *cobra.Command, args []string) (words []string, err error) {
	cmd.DisableFlagParsing = false
	defer func() { cmd.DisableFlagParsing = true }()
	words = []string{}
	var ours []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		// A password may look like anything.
		if i > 0 && (args[i-1] == "pass" || args[i-1] == "key") && len(words) > 0 {
			words = append(words, a)
			continue
		}
		switch {
		case a == "-h" || a == "--help":
			return nil, nil
		case a != "-o" && !strings.HasPrefix(a, "-o=") && !strings.HasPrefix(a, "--"):
			words = append(words, a)
			continue
		}
		ours = append(ours, a)
		name, _, has := strings.Cut(strings.TrimLeft(a, "-"), "=")
		f := cmd.Flag(name)
		if a == "-o" {
			f = cmd.Flag("output")
		}
		if f != nil && f.NoOptDefVal == "" && !has && i+1 < len(args) {
			i++
			ours = append(ours, args[i])
		}
	}
	if err := cmd.ParseFlags(ours); err != nil {
		return nil, usageError{err}
	}
	return words, nil
}

func ifconfig(cmd *cobra.Command, o *options, words []string, save, asJSON bool) error {
	ctx, w := cmd.Context(), cmd.OutOrStdout()
	if len(words) > 0 && (words[0] == "-a" || words[0] == "-A") {
		words = words[1:]
	}
	if len(words) == 0 {
		return printInterfaces(ctx, w, o, "", asJSON)
	}
	line := bsd.Join(words)
	l, err := bsd.ParseIfconfig(line)
	if err != nil {
		return config.LineProblem(err, &bsd.Source{Name: "ifconfig", Text: line})
	}
	if l.Queries() && !save && l.Class == "" {
		return printInterfaces(ctx, w, o, l.Name, asJSON)
	}
	reply, err := daemon.Ifconfig(ctx, o.paths.Run, daemon.LineRequest{Line: line, Save: save})
	if err != nil {
		return err
	}
	if s, ok := l.Get("pass"); ok && s.Value != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "xcarp: warning: a password on a command line can be seen by every user and stays in the shell's history: "+
			"use pass_file in the configuration, or key_file between xcarp nodes")
	}
	if err := replied(cmd, o, reply); err != nil {
		return err
	}
	switch {
	case asJSON:
		return json.NewEncoder(w).Encode(reply)
	case l.Class != "" && l.Queries(): // as printgroupattribs in ifconfig.c of OpenBSD
		_, err = fmt.Fprintf(w, "%s: carp demote count %s\n", l.Class, reply.Is)
	}
	return err
}

// replied prints what the daemon had to say of a line, and waits for a daemon that
// starts over.
func replied(cmd *cobra.Command, o *options, reply daemon.LineReply) error {
	for _, n := range reply.Notes {
		fmt.Fprintln(cmd.ErrOrStderr(), "xcarp: warning: "+n)
	}
	if !reply.Restart {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Second)
	defer cancel()
	for {
		if s, err := daemon.GetStatus(ctx, o.paths.Run); err == nil && s.Hash == reply.Hash {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return errors.New("the daemon started over to follow, and has not come back within 10 s: see its log")
		}
	}
}

// printInterfaces prints one interface, or all of them, as ifconfig(8) of OpenBSD
// does.
func printInterfaces(ctx context.Context, w io.Writer, o *options, name string, asJSON bool) error {
	s, err := daemon.GetStatus(ctx, o.paths.Run)
	if err != nil {
		return err
	}
	if name != "" && name != config.SyncName {
		s.Groups = slices.DeleteFunc(s.Groups, func(g daemon.GroupStatus) bool { return g.Name != name && g.Group != name })
		if len(s.Groups) == 0 {
			return fmt.Errorf("no group %q: xcarp ifconfig lists them", name)
		}
		s.SyncDev = ""
	} else if name == config.SyncName {
		s.Groups = nil
		if s.SyncDev == "" {
			return errors.New("pfsync0: no state sync: write xcarp ifconfig pfsync0 syncdev eth2 syncpeer 10.1.1.2 up")
		}
	}
	if asJSON {
		return json.NewEncoder(w).Encode(s)
	}
	var b strings.Builder
	for _, vhids := range interfaces(s.Groups) {
		drawInterface(&b, vhids)
	}
	if s.SyncDev != "" {
		drawSync(&b, s)
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// interfaces joins vhids that share their addresses to what is one interface on the
// BSDs, in their order.
func interfaces(groups []daemon.GroupStatus) (all [][]*daemon.GroupStatus) {
	for i := range groups {
		g := &groups[i]
		if n := len(all) - 1; g.Group != "" && n >= 0 && all[n][0].Group == g.Group {
			all[n] = append(all[n], g)
			continue
		}
		all = append(all, []*daemon.GroupStatus{g})
	}
	for _, vhids := range all {
		slices.SortFunc(vhids, func(a, b *daemon.GroupStatus) int { return int(a.VHID) - int(b.VHID) })
	}
	return all
}

// flags are those that a carp interface of OpenBSD shows: running while it takes
// part in the election.
func flags(g *daemon.GroupStatus) string {
	switch {
	case g.Down:
		return "8802<BROADCAST,SIMPLEX,MULTICAST>"
	case g.State == "INIT":
		return "8803<UP,BROADCAST,SIMPLEX,MULTICAST>"
	}
	return "8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST>"
}

// drawInterface draws a group as in_status, carp_status and their like in
// ifconfig.c of OpenBSD.
func drawInterface(b *strings.Builder, vhids []*daemon.GroupStatus) {
	g, name := vhids[0], vhids[0].Name
	if g.Group != "" {
		name = g.Group
	}
	mtu := g.MTU
	if mtu == 0 {
		mtu = 1500
	}
	fmt.Fprintf(b, "%s: flags=%s mtu %d\n", name, flags(g), mtu)
	fmt.Fprintf(b, "\tlladdr %s\n", g.VMAC)
	dev := g.Carpdev
	if dev == "" {
		dev = "none"
	}
	if g.Group == "" {
		fmt.Fprintf(b, "\tcarp: %s carpdev %s vhid %d advbase %d advskew %d\n", g.State, dev, g.VHID, g.AdvBase, g.AdvSkew)
	} else {
		fmt.Fprintf(b, "\tcarp: carpdev %s advbase %d balancing %s\n", dev, g.AdvBase, g.Balance)
		for _, v := range vhids {
			fmt.Fprintf(b, "\t\tstate %s vhid %d advskew %d\n", v.State, v.VHID, v.AdvSkew)
		}
	}
	fmt.Fprintf(b, "\tgroups: carp\n")
	fmt.Fprintf(b, "\tstatus: %s\n", link(vhids))
	for _, a := range g.Addresses {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			continue
		}
		if p.Addr().Is6() {
			fmt.Fprintf(b, "\tinet6 %s prefixlen %d\n", p.Addr(), p.Bits())
			continue
		}
		mask := ^uint32(0) << (32 - p.Bits())
		fmt.Fprintf(b, "\tinet %s netmask 0x%08x", p.Addr(), mask)
		if p.Bits() < 31 {
			a := p.Addr().As4()
			n := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3]) | ^mask
			fmt.Fprintf(b, " broadcast %s", netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}))
		}
		b.WriteString("\n")
	}
}

// link is the state of a carp interface's link, which is up while it is MASTER of
// anything.
func link(vhids []*daemon.GroupStatus) string {
	best := "invalid"
	for _, v := range vhids {
		switch v.State {
		case "MASTER":
			return "master"
		case "BACKUP", "DRAIN":
			best = "backup"
		}
	}
	return best
}

// drawSync draws the sync link as pfsync(4).
func drawSync(b *strings.Builder, s *daemon.Status) {
	fmt.Fprintf(b, "%s: flags=41<UP,RUNNING> mtu 1500\n", config.SyncName)
	for _, p := range s.Sync {
		fmt.Fprintf(b, "\tpfsync: syncdev: %s syncpeer: %s defer: off\n", s.SyncDev, p.Addr)
	}
	fmt.Fprintf(b, "\tgroups: carp pfsync\n")
}
