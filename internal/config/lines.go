package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/xcarp/xcarp/internal/bsd"
	"github.com/xcarp/xcarp/internal/durable"
)

// SyncName is the interface that a line about state sync names, as on the BSDs.
const SyncName = "pfsync0"

// Lines are changes to what a configuration file says, made by lines of ifconfig
// and sysctl. What several lines say of one thing is kept as one line. The zero
// value changes nothing.
type Lines struct {
	groups  []*bsd.Line // by name, one each; pfsync0 is among them
	sysctls []bsd.Sysctl

	layout []laidOut         // the file that they were read from, so that comments stay
	read   map[string]string // thing → what the file said of it, as one line
}

// laidOut is one line of a file.
type laidOut struct {
	text  string
	thing string // what it is about; empty: a comment
}

// Clone returns a copy that may be changed. It has no comments.
func (l *Lines) Clone() *Lines {
	if l == nil {
		return &Lines{}
	}
	return &Lines{groups: slices.Clone(l.groups), sysctls: slices.Clone(l.sysctls)}
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

// things returns one line for each thing that the lines are about, and their order.
func (l *Lines) things() (lines map[string]string, order []string) {
	lines = map[string]string{}
	add := func(thing, line string) {
		lines[thing] = line
		order = append(order, thing)
	}
	for _, s := range l.sysctls {
		add("sysctl "+s.Name, fmt.Sprintf("sysctl %s\n", s))
	}
	for _, g := range l.groups {
		add("ifconfig "+g.Name, fmt.Sprintf("ifconfig %s\n", g))
	}
	return lines, order
}

// String returns the lines as ReadLines reads them.
func (l *Lines) String() string {
	var b strings.Builder
	lines, order := l.things()
	for _, thing := range order {
		b.WriteString(lines[thing])
	}
	return b.String()
}

// text returns the file that they were read from with what has changed since: its
// comments, its order, and its wording of what is the same.
func (l *Lines) text() string {
	lines, order := l.things()
	var b strings.Builder
	if len(l.layout) == 0 {
		b.WriteString(linesHead)
	}
	written := map[string]bool{}
	for _, o := range l.layout {
		line, is := lines[o.thing]
		switch {
		case o.thing == "", is && line == l.read[o.thing]:
			b.WriteString(o.text + "\n")
		case is && !written[o.thing]:
			b.WriteString(line)
		}
		written[o.thing] = true
	}
	for _, thing := range order {
		if !written[thing] {
			b.WriteString(lines[thing])
		}
	}
	return b.String()
}

// linesHead is the comment that a new file begins with.
const linesHead = "# Written by xcarp ifconfig and xcarp sysctl. One line for each thing.\n"

// remarks reports whether somebody wrote comments into the file.
func (l *Lines) remarks() bool {
	return slices.ContainsFunc(l.layout, func(o laidOut) bool {
		return o.thing == "" && o.text != "" && o.text+"\n" != linesHead
	})
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
			l.layout = append(l.layout, laidOut{text: line})
			continue
		}
		from := &bsd.Source{Name: path, Line: n, Text: line}
		thing, err := l.add(line, from)
		if err != nil {
			bad = append(bad, lineProblem(err, from))
		}
		l.layout = append(l.layout, laidOut{line, thing})
	}
	if len(bad) > 0 {
		return nil, join(bad)
	}
	l.read, _ = l.things()
	return l, nil
}

// add takes one line of a file and returns what it is about.
func (l *Lines) add(line string, from *bsd.Source) (thing string, err error) {
	if strings.HasPrefix(line, "sysctl ") {
		s, err := bsd.ParseSysctl(line)
		if err != nil {
			return "", err
		}
		s.At.From = from
		l.Sysctl(s)
		return "sysctl " + s.Name, nil
	}
	g, err := bsd.ParseIfconfig(line)
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(line, "ifconfig ") || g.Name == "" {
		return "", &bsd.Error{Span: bsd.Span{Column: 1, Width: 1}, Message: "not a line of ifconfig or sysctl", Fix: "write ifconfig carp1 …, or sysctl net.inet.carp.X=V"}
	}
	g.From(from)
	l.Ifconfig(g)
	return "ifconfig " + g.Name, nil
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

// Write replaces the file in one step, readable by its owner alone; comments of the
// file that the lines were read from stay. Nothing to write removes it.
func (l *Lines) Write(path string) error {
	if l.Empty() && !l.remarks() {
		return durable.Remove(path)
	}
	return l.Hold(path)
}

// Hold is Write, but a file without lines is one that says nothing, where no file
// leaves it to others to say something.
func (l *Lines) Hold(path string) error { return durable.Write(path, []byte(l.text())) }
