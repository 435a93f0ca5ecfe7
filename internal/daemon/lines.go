package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/bsd"
	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/spell"
)

// RunLines is the file with the lines in force, which a restart of the daemon
// takes up again and a reboot forgets.
func (p Paths) RunLines() string { return filepath.Join(p.Run, linesName) }

// SavedLines is the file with the lines that hold from the start.
func (p Paths) SavedLines() string { return filepath.Join(p.State, linesName) }

const linesName = "lines"

// A LineRequest is one line of ifconfig or sysctl.
type LineRequest struct {
	Line string `json:"line"`
	Save bool   `json:"save"` // it shall hold after a reboot, too
}

// A LineReply says what became of it.
type LineReply struct {
	Notes   []string `json:"notes"`         // worth knowing
	Hash    string   `json:"config_hash"`   // of the configuration that runs then
	Restart bool     `json:"restart"`       // the daemon starts over in place to follow
	Was     string   `json:"was,omitempty"` // of a sysctl: the value before
	Is      string   `json:"is,omitempty"`  // and now; of -g alone the demotion
}

// refuse makes a Problem at a word.
func refuse(at bsd.Span, fix, format string, arg ...any) error {
	return config.LineProblem(&bsd.Error{Span: at, Message: fmt.Sprintf(format, arg...), Fix: fix}, at.From)
}

// carpName is what the BSDs call their carp interfaces. Such a group comes into
// being when it is first named, as with their ifconfig.
var carpName = regexp.MustCompile(`^carp[0-9]{1,5}$`)

// ifconfig does what a line of ifconfig says, or nothing. The caller holds d.change.
func (d *Daemon) ifconfig(req LineRequest) (LineReply, error) {
	from := &bsd.Source{Name: "ifconfig", Text: req.Line}
	l, err := bsd.ParseIfconfig(req.Line)
	if err != nil {
		return LineReply{}, config.LineProblem(err, from)
	}
	l.From(from)
	var notes []string
	for _, n := range l.Notes {
		notes = append(notes, n.Message+": "+n.Fix)
	}
	if l.Class != "" {
		return d.interfaceGroup(l, req)
	}
	now := d.now.Load()
	if l, err = onCarpdev(now, l); err != nil {
		return LineReply{}, err
	}
	lines := now.Source().Lines.Clone()
	exists := now.Group(l.Name) != nil || slices.ContainsFunc(now.Drafts, func(o config.Draft) bool { return o.Name == l.Name })
	if l.Name == config.SyncName {
		exists = true // it needs no create, and takes one
		if l.Create {
			l.Create = false
		}
	}
	switch {
	case l.Create && exists:
		return LineReply{}, refuse(l.At, "leave create out, or destroy it first", "%s exists already", l.Name)
	case !exists && (l.Destroy || !l.Create && !carpName.MatchString(l.Name)):
		return LineReply{}, refuse(l.At, unknownGroup(now, l.Name, !l.Destroy), "no group %q", l.Name)
	}
	l.Create = l.Create || !exists && !l.Destroy
	if err := possible(now, l); err != nil {
		return LineReply{}, err
	}
	if !l.Queries() {
		if l.Destroy && !now.InFile(l.Name) {
			lines.Forget(l.Name)
		} else {
			lines.Ifconfig(l)
		}
	}
	reply, err := d.follow(lines, func(saved *config.Lines) {
		saved.KeepGroup(lines, l.Name)
	}, req.Save)
	if err != nil {
		return reply, err
	}
	reply.Notes = append(append(notes, reply.Notes...), d.elsewhere(now, l, req.Save)...)
	for _, draft := range d.now.Load().Drafts {
		if draft.Name == l.Name && len(l.Settings)+len(l.Add)+len(l.Remove) > 0 {
			reply.Notes = append(reply.Notes, fmt.Sprintf("%s stays in INIT: it lacks %s", draft.Name, strings.Join(draft.Missing, ", ")))
		}
	}
	return reply, nil
}

// possible refuses what a line would do without any effect.
func possible(cfg *config.Config, l *bsd.Line) error {
	if l.Name == config.SyncName && !l.Queries() && cfg.Sync != nil && !cfg.Sync.ByAddress {
		return refuse(l.At, "change sync there, and restart the daemon", "state sync is set up in %s", cfg.Path)
	}
	var has []string
	if g := cfg.Group(l.Name); g != nil {
		for _, p := range g.Addresses {
			has = append(has, p.String())
		}
	}
	for _, draft := range cfg.Drafts {
		if draft.Name == l.Name {
			has = draft.Addresses
		}
	}
	for _, a := range l.Remove {
		there := slices.ContainsFunc(has, func(s string) bool {
			p, err := netip.ParsePrefix(s)
			return err == nil && p.Addr() == a.Addr
		})
		switch {
		case there:
		case len(has) == 0:
			return refuse(a.Span, "xcarp ifconfig "+l.Name+" shows what it is", "%s has no addresses", l.Name)
		default:
			return refuse(a.Span, "it has "+strings.Join(has, ", "), "%s has no address %s", l.Name, a.Addr)
		}
	}
	return nil
}

// elsewhere says of a group that came or went what the configuration and the saved
// lines say of it still.
func (d *Daemon) elsewhere(before *config.Config, l *bsd.Line, save bool) (notes []string) {
	if !l.Destroy && !l.Create || l.Name == config.SyncName {
		return nil
	}
	if before.InFile(l.Name) {
		until := "until the next boot"
		if save {
			until = "from now on"
		}
		if l.Create {
			return []string{fmt.Sprintf("%s is in %s, too, which this one replaces %s: take it out there", l.Name, before.Path, until)}
		}
		return []string{fmt.Sprintf("%s is in %s, which this line overrules %s: take it out there", l.Name, before.Path, until)}
	}
	if saved, err := config.ReadLines(d.paths.SavedLines()); l.Destroy && err == nil && saved.Group(l.Name) != nil {
		return []string{fmt.Sprintf("%s is in %s and comes back at the next boot: say it again with --save", l.Name, d.paths.SavedLines())}
	}
	return nil
}

// unknownGroup is what to do about a name that is no group's.
func unknownGroup(cfg *config.Config, name string, create bool) string {
	var names []string
	for i := range cfg.Groups {
		names = append(names, cfg.Groups[i].Name)
	}
	for _, draft := range cfg.Drafts {
		names = append(names, draft.Name)
	}
	if like := spell.Nearest(name, names); like != "" {
		return fmt.Sprintf("did you mean %q?", like)
	}
	if create {
		return "xcarp ifconfig " + name + " create makes one"
	}
	if len(names) == 0 {
		return "there are no groups"
	}
	return "there are " + strings.Join(names, ", ")
}

// onCarpdev understands a line of FreeBSD, which names the interface itself: the
// group is the one with that vhid there, or a new one.
func onCarpdev(cfg *config.Config, l *bsd.Line) (*bsd.Line, error) {
	vhid, ok := l.Get("vhid")
	if !ok || cfg.Group(l.Name) != nil || carpName.MatchString(l.Name) || l.Create {
		return l, nil
	}
	if _, has := l.Get("carpdev"); has {
		return l, nil
	}
	dev := l.Name
	sys, err := config.Facts()
	if err != nil {
		return nil, fmt.Errorf("look at this machine: %w", err)
	}
	if !slices.ContainsFunc(sys.Interfaces, func(i config.Interface) bool { return i.Name == dev }) {
		return l, nil
	}
	l.Name, l.Create = dev+"-vhid"+vhid.Value, true
	for i := range cfg.Groups {
		if g := &cfg.Groups[i]; g.Carpdev == dev && strconv.Itoa(int(g.VHID)) == vhid.Value {
			l.Name, l.Create = g.Name, false
		}
	}
	for _, draft := range cfg.Drafts {
		l.Create = l.Create && draft.Name != l.Name
	}
	l.Set(bsd.Setting{Key: "carpdev", Value: dev, Keyword: "carpdev", Span: l.At})
	return l, nil
}

// interfaceGroup does what -g asks for: a demotion of all groups, which are the
// members of the interface group carp.
func (d *Daemon) interfaceGroup(l *bsd.Line, req LineRequest) (LineReply, error) {
	n, ok := l.Get("carpdemote")
	switch {
	case l.Class != "carp":
		return LineReply{}, refuse(l.At, "write -g carp, which are all groups", "no interface group %q", l.Class)
	case l.Queries() && !req.Save:
		return LineReply{Is: strconv.Itoa(d.operatorDemotion())}, nil
	case !ok:
		return LineReply{}, refuse(l.At, "write -g carp carpdemote 50, or -carpdemote 50", "nothing that an interface group can do")
	}
	for _, s := range l.Settings {
		if s.Key != "carpdemote" {
			return LineReply{}, refuse(s.Span, "give it to a group: ifconfig carp1 …", "%s is not for an interface group", s.Keyword)
		}
	}
	by, err := strconv.Atoi(n.Value)
	if err != nil {
		panic(fmt.Sprintf("bsd: carpdemote %q", n.Value)) // the parser has made it
	}
	return d.demote(by, n.Span, req.Save)
}

// demote adds to the operator's demotion, as FreeBSD's net.inet.carp.demotion and
// OpenBSD's carpdemote do.
func (d *Daemon) demote(by int, at bsd.Span, save bool) (LineReply, error) {
	was := d.operatorDemotion()
	is := was + by
	switch {
	case save:
		return LineReply{}, refuse(at, "leave --save out", "a demotion is not kept over a reboot")
	case is < 0:
		return LineReply{}, refuse(at, fmt.Sprintf("take at most %d away", was), "demoted by %d, which cannot become %d", was, is)
	case is > 255:
		return LineReply{}, refuse(at, fmt.Sprintf("add at most %d", 255-was), "demoted by %d, which cannot become %d", was, is)
	}
	lines := d.now.Load().Source().Lines.Clone()
	lines.Sysctl(bsd.Sysctl{Name: "demotion", Value: is, Write: true, At: at})
	reply, err := d.follow(lines, nil, false)
	if err != nil {
		return reply, err
	}
	for _, m := range d.members() {
		m.group.Demote(ownerOperator, is)
	}
	d.log.Info("demoted by the operator", zap.Int("from", was), zap.Int("to", is))
	reply.Was, reply.Is = strconv.Itoa(was), strconv.Itoa(is)
	return reply, nil
}

// sysctl sets a value of carp(4).
func (d *Daemon) sysctl(req LineRequest) (LineReply, error) {
	from := &bsd.Source{Name: "sysctl", Text: req.Line}
	s, err := bsd.ParseSysctl(req.Line)
	if err != nil {
		return LineReply{}, config.LineProblem(err, from)
	}
	s.At.From = from
	was := d.sysctlValues()[s.Name]
	if !s.Write {
		return LineReply{Was: was, Is: was}, nil
	}
	switch {
	case s.Name == "demotion":
		return d.demote(s.Value, s.At, req.Save)
	case s.Name == "arpbalance" && strconv.Itoa(s.Value) == was:
		return LineReply{Was: was, Is: was}, nil
	case s.Name == "arpbalance":
		return LineReply{}, refuse(s.At, map[int]string{0: "xcarp ifconfig carp1 -carpnodes balancing none vhid 1",
			1: "xcarp ifconfig carp1 balancing arp carpnodes 1:0,2:100"}[s.Value], "arpbalance is set for each group here")
	}
	lines := d.now.Load().Source().Lines.Clone()
	lines.Sysctl(s)
	reply, err := d.follow(lines, func(saved *config.Lines) { saved.KeepSysctl(lines, s.Name) }, req.Save)
	if err != nil {
		return reply, err
	}
	reply.Was, reply.Is = was, strconv.Itoa(s.Value)
	if s.Name == "preempt" {
		for i := range d.now.Load().Groups {
			if g := &d.now.Load().Groups[i]; g.Preempt != (s.Value == 1) {
				reply.Notes = append(reply.Notes, "group "+g.Name+" has a preempt of its own")
			}
		}
	}
	return reply, nil
}

// sysctlValues are the values of carp(4) now, without their prefix.
func (d *Daemon) sysctlValues() map[string]string {
	cfg := d.now.Load()
	number := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	v := map[string]int{
		"allow":      number(!cfg.Idle),
		"arpbalance": number(slices.ContainsFunc(cfg.Groups, func(g config.Group) bool { return g.Balance == config.BalanceARP })),
		"preempt":    number(cfg.Preempt),
		"log":        map[string]int{"debug": 7, "info": 2}[cfg.Log.Level],
		"demotion":   d.operatorDemotion(),
		"dscp":       int(cfg.DSCP),

		"ifdown_demotion_factor":  cfg.IfDown,
		"senderr_demotion_factor": cfg.SendErr,
	}
	for name := range v {
		if n, ok := cfg.Source().Lines.Value(name); ok && name != "demotion" && name != "arpbalance" {
			v[name] = n
		}
	}
	// As on FreeBSD the demotion is all there is, whoever it came from.
	for _, m := range d.members() {
		by := d.operatorDemotion()
		for owner, n := range m.group.Status().DemotedBy {
			if owner != ownerOperator {
				by += n
			}
		}
		v["demotion"] = max(v["demotion"], by)
	}
	out := map[string]string{}
	for name, n := range v {
		out[name] = strconv.Itoa(n)
	}
	return out
}

// follow makes the node what the file says with these lines over it, and keeps the
// lines. keep puts what was changed among the saved ones.
func (d *Daemon) follow(lines *config.Lines, keep func(saved *config.Lines), save bool) (LineReply, error) {
	before := d.now.Load()
	next, err := before.With(lines)
	if err != nil {
		return LineReply{}, err
	}
	warnings, err := d.checked(next)
	if err != nil {
		return LineReply{}, err
	}
	reply := LineReply{Notes: []string{}, Hash: next.Hash}
	for _, w := range warnings {
		reply.Notes = append(reply.Notes, w.Message+": "+w.Fix)
	}
	var saved *config.Lines
	if save { // what cannot be saved is not done either
		if saved, err = config.ReadLines(d.paths.SavedLines()); err != nil {
			return LineReply{}, err
		}
		keep(saved)
	}
	if !onlyGroups(before, next) {
		if err := startable(next); err != nil {
			return LineReply{}, fmt.Errorf("the daemon has to start over in place for that, and the configuration on disk is wrong: %w", err)
		}
		reply.Restart = true
	} else if err := d.apply(next); err != nil {
		return LineReply{}, err
	}
	if err := d.keepLines(lines); err != nil {
		if reply.Restart { // what starts over would read the lines of before
			return LineReply{}, fmt.Errorf("not done, since the daemon has to start over for that, which would forget it: %w", err)
		}
		d.setLevel(next)
		return LineReply{}, fmt.Errorf("done, but a restart of the daemon will forget it: %w", err)
	}
	if save {
		if err := saved.Write(d.paths.SavedLines()); err != nil {
			if reply.Restart {
				return LineReply{}, errors.Join(fmt.Errorf("not done, since it cannot be saved: %w", err), d.keepLines(before.Source().Lines))
			}
			d.setLevel(next)
			return LineReply{}, fmt.Errorf("done, but not saved: %w", err)
		}
	}
	d.setLevel(next)
	return reply, nil
}

// keepLines writes the lines in force to where a restart of the daemon finds them.
func (d *Daemon) keepLines(lines *config.Lines) error {
	if _, err := os.Lstat(d.paths.SavedLines()); err == nil {
		return lines.Hold(d.paths.RunLines()) // or the saved ones would hold after a restart
	}
	return lines.Write(d.paths.RunLines())
}

// Ifconfig asks the daemon of the run-dir to do what a line of ifconfig says.
func Ifconfig(ctx context.Context, runDir string, req LineRequest) (LineReply, error) {
	return postLine(ctx, runDir, "/v1/ifconfig", req)
}

// Sysctl asks the daemon of the run-dir to read (NAME) or set (NAME=VALUE) a value.
func Sysctl(ctx context.Context, runDir string, req LineRequest) (LineReply, error) {
	return postLine(ctx, runDir, "/v1/sysctl", req)
}
