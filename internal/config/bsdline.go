package config

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/xcarp/xcarp/internal/bsd"
)

// bsdGroup makes a group's mapping of a BSD line in the text, or reports what is
// wrong with it. Every node of it has its place within the string.
func (r *reader) bsdGroup(name, value *node) *node {
	l, err := bsd.ParseGroup(name.text, value.text)
	var be *bsd.Error
	if errors.As(err, &be) {
		r.fail(r.inside(value, be.Span), "group "+strconv.Quote(name.text)+": "+be.Message, be.Fix)
		return nil
	}
	for _, n := range l.Notes {
		r.warn(r.inside(value, n.Span), n.Message, n.Fix)
	}
	before := len(r.problems)
	m := r.lineMapping(l, &node{kind: mapping, line: value.line, column: value.column, width: value.width},
		func(s bsd.Span) *node { return r.inside(value, s) })
	if len(r.problems) > before {
		return nil
	}
	return m
}

// inside returns the place of a word of a string: within it, if the text has the
// string as it is, else that of the whole.
func (r *reader) inside(value *node, s bsd.Span) *node {
	n := &node{line: value.line, column: value.column, width: value.width}
	lines := strings.Split(r.text, "\n")
	if value.line < 1 || value.line > len(lines) {
		return n
	}
	src := []rune(lines[value.line-1])
	at := value.column - 1
	if value.quoted {
		at++
	}
	if at < 0 || at > len(src) || !strings.HasPrefix(string(src[at:]), value.text) {
		return n
	}
	n.column, n.width = at+s.Column, s.Width
	return n
}

// lineMapping lays what a line wants over a group's mapping. It is the one place
// where words of the BSDs become keys of ours; whether a key means anything is
// for the reader of groups to say.
func (r *reader) lineMapping(l *bsd.Line, base *node, place func(bsd.Span) *node) *node {
	out := &node{kind: mapping, line: base.line, column: base.column, width: base.width, from: base.from}
	out.entries = append(out.entries, base.entries...)
	put := func(key string, at, value *node) {
		k := *at
		k.kind, k.text = scalar, key
		for i, e := range out.entries {
			if e.key.text == key {
				out.entries[i] = entry{&k, value}
				return
			}
		}
		out.entries = append(out.entries, entry{&k, value})
	}
	drop := func(keys ...string) {
		var kept []entry
		for _, e := range out.entries {
			gone := false
			for _, k := range keys {
				gone = gone || e.key.text == k
			}
			if !gone {
				kept = append(kept, e)
			}
		}
		out.entries = kept
	}
	for _, s := range l.Settings {
		at := place(s.Span)
		value := *at
		value.kind, value.text = scalar, s.Value
		key := s.Key
		if k, ok := bsdKeys[s.Key]; ok {
			key = k
		}
		switch {
		case s.Key == "carppeer" || s.Key == "peer6":
			if is6 := strings.Contains(s.Value, ":"); s.Key == "peer6" && s.Value != "" && !is6 {
				r.fail(at, "peer6 is an IPv6 address, not "+s.Value, "write peer "+s.Value)
				continue
			}
			if items := peerList(out, s.Key, value); len(items) > 0 {
				put("carppeer", at, &node{kind: list, line: at.line, column: at.column, width: at.width, from: at.from, items: items})
			} else {
				drop("carppeer")
			}
		case s.Value == "", s.Key == "balancing" && s.Value == "none":
			drop(key)
		case s.Key == "pass":
			drop("pass_file")
			put(key, at, &value)
		case s.Key == "up":
			if s.Value == "true" {
				drop(key)
				continue
			}
			value.text = "true"
			put(key, at, &value)
		case s.Key == "vhid":
			drop("carpnodes")
			put(key, at, &value)
		case s.Key == "carpnodes":
			drop("vhid", "advskew") // each has its own there
			put(key, at, nodesMapping(s.Value, at))
		case s.Key == "carpver" && s.Value == "2":
		case s.Key == "carpver":
			r.fail(at, "carpver 3 is VRRP", "leave it out: xcarp speaks CARP, version 2")
		case s.Key == "state":
			r.fail(at, "state cannot be set", "a better advskew or a demotion moves a group")
		case s.Key == "carpdemote" || s.Key == "syncdev" || s.Key == "syncpeer" || s.Key == "defer":
			r.fail(at, s.Keyword+" is not a setting of a group", "it belongs to ifconfig -g carp, or to pfsync0")
		default:
			put(key, at, &value)
		}
	}
	if len(l.Add)+len(l.Remove) > 0 {
		if _, says := l.Get("up"); !says && len(l.Add) > 0 {
			drop("down")
		}
		addressList(out, l, place)
	}
	return out
}

// peerList lays a peer over those that a group has, which may have one of each
// family. carppeer and peer without an address take all away, and what says so of
// each node gives way.
func peerList(group *node, key string, value node) []*node {
	is6 := func(n *node) bool { return strings.Contains(n.text, ":") }
	var items []*node
	for _, e := range group.entries {
		switch {
		case e.key.text != "carppeer":
		case e.value.kind == list:
			items = slices.Clone(e.value.items)
		case e.value.kind == scalar:
			items = []*node{e.value}
		}
	}
	gone := is6(&value) || key == "peer6"
	items = slices.DeleteFunc(items, func(n *node) bool {
		return key == "carppeer" && value.text == "" || is6(n) == gone
	})
	if value.text != "" {
		items = append(items, &value)
	}
	return items
}

// bsdKeys are our names for what the BSDs call otherwise.
var bsdKeys = map[string]string{"balancing": "balance", "up": "down"}

// nodesMapping makes {1: 0, 2: 100} of 1:0,2:100.
func nodesMapping(value string, at *node) *node {
	m := *at
	m.kind = mapping
	for part := range strings.SplitSeq(value, ",") {
		vhid, skew, _ := strings.Cut(part, ":")
		k, v := *at, *at
		k.kind, k.text = scalar, vhid
		v.kind, v.text = scalar, skew
		m.entries = append(m.entries, entry{&k, &v})
	}
	return &m
}

// addressList adds the line's addresses to those of the mapping, and takes away
// what it removes.
func addressList(group *node, l *bsd.Line, place func(bsd.Span) *node) {
	var old *entry
	for i := range group.entries {
		if group.entries[i].key.text == "addresses" {
			old = &group.entries[i]
		}
	}
	named := map[netip.Addr]bool{}
	for _, a := range l.Remove {
		named[a.Addr] = true
	}
	for _, a := range l.Add {
		named[a.Addr] = true
	}
	items := &node{kind: list, line: group.line, column: group.column, width: group.width, from: group.from}
	if old != nil {
		*items = *old.value
		items.items = nil
		for _, n := range old.value.items {
			ip, _, _ := strings.Cut(n.text, "/")
			if a, err := netip.ParseAddr(ip); err != nil || !named[a] {
				items.items = append(items.items, n)
			}
		}
	}
	for _, a := range l.Add {
		n := *place(a.Span)
		n.kind, n.text = scalar, a.Prefix.String()
		items.items = append(items.items, &n)
	}
	switch {
	case old != nil:
		old.value = items
	case len(items.items) > 0:
		k := *items.items[0]
		k.text = "addresses"
		group.entries = append(group.entries, entry{&k, items})
	}
}
