package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xcarp/xcarp/internal/bsd"
)

// SyncName is the interface that a line about state sync names, as on the BSDs.
const SyncName = "pfsync0"

// Lines are changes to what a configuration file says, made by lines of ifconfig
// and sysctl. What several lines say of one thing is kept as one line. The zero
// value changes nothing.
type Lines struct {
	groups  []*bsd.Line // by name, one each; pfsync0 is among them
	sysctls []bsd.Sysctl
}

// Clone returns a copy that may be changed.
func (l *Lines) Clone() *Lines {
	if l == nil {
		return &Lines{}
	}
	return &Lines{slices.Clone(l.groups), slices.Clone(l.sysctls)}
}

// Empty reports whether the lines change nothing.
func (l *Lines) Empty() bool { return l == nil || len(l.groups)+len(l.sysctls) == 0 }

// Ifconfig adds a line about one interface.
func (l *Lines) Ifconfig(line *bsd.Line) {
	i, ok := slices.BinarySearchFunc(l.groups, line.Name, func(o *bsd.Line, name string) int { return cmp.Compare(o.Name, name) })
	if ok {
		l.groups[i] = l.groups[i].Then(line)
		return
	}
	l.groups = slices.Insert(l.groups, i, line)
}

// Group returns what the lines say of an interface, or nil.
func (l *Lines) Group(name string) *bsd.Line {
	if l == nil {
		return nil
	}
	for _, g := range l.groups {
		if g.Name == name {
			return g
		}
	}
	return nil
}

// Forget drops what the lines say of an interface.
func (l *Lines) Forget(name string) {
	l.groups = slices.DeleteFunc(l.groups, func(g *bsd.Line) bool { return g.Name == name })
}

// Sysctl sets a value.
func (l *Lines) Sysctl(s bsd.Sysctl) {
	l.sysctls = append(slices.DeleteFunc(l.sysctls, func(o bsd.Sysctl) bool { return o.Name == s.Name }), s)
	slices.SortFunc(l.sysctls, func(a, b bsd.Sysctl) int { return cmp.Compare(a.Name, b.Name) })
}

// Value returns what a sysctl was set to.
func (l *Lines) Value(name string) (int, bool) {
	if l != nil {
		for _, s := range l.sysctls {
			if s.Name == name {
				return s.Value, true
			}
		}
	}
	return 0, false
}

// KeepGroup makes what l says of an interface what from says of it.
func (l *Lines) KeepGroup(from *Lines, name string) {
	l.Forget(name)
	if g := from.Group(name); g != nil {
		l.Ifconfig(g)
	}
}

// KeepSysctl makes what l says of a sysctl what from says of it.
func (l *Lines) KeepSysctl(from *Lines, name string) {
	for _, s := range from.sysctls {
		if s.Name == name {
			l.Sysctl(s)
		}
	}
}

// String returns the lines as ReadLines reads them.
func (l *Lines) String() string {
	var b strings.Builder
	for _, s := range l.sysctls {
		fmt.Fprintf(&b, "sysctl %s\n", s)
	}
	for _, g := range l.groups {
		fmt.Fprintf(&b, "ifconfig %s\n", g)
	}
	return b.String()
}

// ReadLines reads a file of lines, each one beginning with ifconfig or sysctl;
// # begins a comment line. A file that is not there holds none. It must be
// readable by its owner alone, because it may hold passwords.
func ReadLines(path string) (*Lines, error) {
	l := &Lines{}
	text, mode, err := readText(path)
	var p *Problem
	if errors.As(err, &p) && p.Message == noSuchFile {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	if mode&0o077 != 0 {
		return nil, &Problem{File: path, Message: fmt.Sprintf("has mode %04o, so others can read it", mode), Fix: "chmod 600 " + path}
	}
	n := 0
	var bad []*Problem
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		from := &bsd.Source{Name: path, Line: n, Text: line}
		if err := l.add(line, from); err != nil {
			bad = append(bad, lineProblem(err, from))
		}
	}
	if len(bad) > 0 {
		return nil, join(bad)
	}
	return l, nil
}

func (l *Lines) add(line string, from *bsd.Source) error {
	if strings.HasPrefix(line, "sysctl ") {
		s, err := bsd.ParseSysctl(line)
		if err != nil {
			return err
		}
		s.At.From = from
		l.Sysctl(s)
		return nil
	}
	g, err := bsd.ParseIfconfig(line)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "ifconfig ") || g.Name == "" {
		return &bsd.Error{Span: bsd.Span{Column: 1, Width: 1}, Message: "not a line of ifconfig or sysctl", Fix: "write ifconfig carp1 …, or sysctl net.inet.carp.X=V"}
	}
	g.From(from)
	l.Ifconfig(g)
	return nil
}

// LineProblem makes a Problem of what a BSD line was refused for.
func LineProblem(err error, from *bsd.Source) *Problem { return lineProblem(err, from) }

func lineProblem(err error, from *bsd.Source) *Problem {
	var e *bsd.Error
	if !errors.As(err, &e) {
		return &Problem{File: from.Name, Line: from.Line, Message: err.Error()}
	}
	return sourceProblem(from, e.Span, e.Message, e.Fix)
}

// sourceProblem makes a Problem at a word of a line.
func sourceProblem(from *bsd.Source, at bsd.Span, message, fix string) *Problem {
	p := &Problem{File: from.Name, Line: from.Line, Column: at.Column, Message: oneLine(message), Fix: oneLine(fix)}
	line := max(from.Line, 1)
	p.Caret = caret(strings.Repeat("\n", line-1)+from.Text, line, at.Column, at.Width)
	return p
}

// Write replaces the file in one step, readable by its owner alone. Nothing to
// write removes it.
func (l *Lines) Write(path string) error {
	if l.Empty() {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".lines-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // no longer there once it is renamed
	const head = "# Written by xcarp ifconfig and xcarp sysctl. One line for each thing.\n"
	if _, err := f.WriteString(head + l.String()); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
