package bsd

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Line is what one ifconfig line wants.
type Line struct {
	Name  string // of the interface: carp1, pfsync0, em0; empty if none was named
	Class string // the interface group of -g; Name is empty then
	At    Span   // of Name or Class

	Create, Destroy bool

	Settings []Setting // the last of each key, in the order of keys in keywords
	Add      []Address // the last of each address
	Remove   []Address // may lack a mask

	Notes []*Error // what was accepted, and is worth knowing
}

// Setting is a keyword with its value. Keys are those of OpenBSD's ifconfig(8)
// where it has one; Value is in one form: decimal numbers, addresses as netip
// prints them, true or false for a switch. An empty Value takes a setting away.
type Setting struct {
	Key, Value string
	Span              // of the value, or of the keyword of a switch
	Keyword    string // as it was written
}

// Address is a shared address. Without a mask Bits of Prefix is -1.
type Address struct {
	netip.Prefix
	Addr netip.Addr // of Prefix, also without a mask
	Span
}

// Get returns the setting of that key.
func (l *Line) Get(key string) (Setting, bool) {
	for _, s := range l.Settings {
		if s.Key == key {
			return s, true
		}
	}
	return Setting{}, false
}

// Queries reports whether the line wants nothing but to be shown something.
func (l *Line) Queries() bool {
	return !l.Create && !l.Destroy && len(l.Settings)+len(l.Add)+len(l.Remove) == 0
}

// Set sets one key, and takes the place of an earlier setting of it.
func (l *Line) Set(s Setting) {
	i := slices.IndexFunc(l.Settings, func(o Setting) bool { return o.Key == s.Key })
	if i >= 0 {
		l.Settings[i] = s
		return
	}
	l.Settings = append(l.Settings, s)
	slices.SortStableFunc(l.Settings, func(a, b Setting) int { return cmp.Compare(order(a.Key), order(b.Key)) })
}

// order is where a key stands in a line that String makes.
func order(key string) int {
	return slices.IndexFunc(keywords, func(k keyword) bool { return k.key == key })
}

// From says where the line and everything in it came from.
func (l *Line) From(s *Source) {
	l.At.From = s
	for i := range l.Settings {
		l.Settings[i].Span.From = s
	}
	for i := range l.Add {
		l.Add[i].Span.From = s
	}
	for i := range l.Remove {
		l.Remove[i].Span.From = s
	}
}

// Then returns what both lines want that were given one after the other, as one.
// As on the BSDs an address brings the interface up.
func (l *Line) Then(next *Line) *Line {
	if next.Create || next.Destroy {
		return next.clone()
	}
	both := l.clone()
	both.Destroy = false
	both.Notes = slices.Clone(next.Notes)
	_, says := next.Get("up")
	if len(next.Add) > 0 && !says {
		both.Settings = slices.DeleteFunc(both.Settings, func(s Setting) bool { return s.Key == "up" })
	}
	for _, s := range next.Settings {
		switch { // a vhid and a list of vhids replace each other
		case s.Value == "":
		case s.Key == "vhid":
			both.Settings = slices.DeleteFunc(both.Settings, func(s Setting) bool { return s.Key == "carpnodes" })
		case s.Key == "carpnodes":
			both.Settings = slices.DeleteFunc(both.Settings, func(s Setting) bool { return s.Key == "vhid" })
		}
		both.Set(s)
	}
	for _, a := range next.Remove {
		both.Add = without(both.Add, a.Addr)
		both.Remove = append(without(both.Remove, a.Addr), a)
	}
	for _, a := range next.Add {
		both.Remove = without(both.Remove, a.Addr)
		both.Add = append(without(both.Add, a.Addr), a)
	}
	return both
}

func without(all []Address, gone netip.Addr) []Address {
	return slices.DeleteFunc(all, func(a Address) bool { return a.Addr == gone })
}

func (l *Line) clone() *Line {
	c := *l
	c.Settings = slices.Clone(l.Settings)
	c.Add, c.Remove = slices.Clone(l.Add), slices.Clone(l.Remove)
	return &c
}

// String returns a line that wants the same, in one order, for ParseIfconfig.
func (l *Line) String() string {
	var w []string
	add := func(s ...string) { w = append(w, s...) }
	switch {
	case l.Class != "":
		add("-g", l.Class)
	case l.Name != "":
		add(l.Name)
	}
	if l.Destroy {
		add("destroy")
	}
	if l.Create {
		add("create")
	}
	for _, s := range l.Settings {
		k := keywords[order(s.Key)]
		switch {
		case k.kind == onOff && s.Value == "true":
			add(k.word)
		case k.kind == onOff:
			add(k.off)
		case s.Value == "":
			add("-" + k.word)
		default:
			add(k.word, s.Value)
		}
	}
	for _, a := range l.Add {
		add(a.Prefix.String())
	}
	text := Join(w)
	for _, a := range l.Remove { // a line of their own: -alias is for all addresses of a line
		text += " -alias " + a.Addr.String()
	}
	return strings.TrimPrefix(text, " ")
}
