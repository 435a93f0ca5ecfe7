package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/xcarp/xcarp/internal/bsd"
)

// A Draft is a group that lines have begun and that lacks something: it takes no
// part in anything yet.
type Draft struct {
	Name    string
	Known   map[string]string // key → value, without the password
	Missing []string          // words of ifconfig that would complete it

	Addresses []string // as they were given, with their prefix lengths
}

// edit lays the lines over the tree of the text. Groups that are not complete
// become drafts.
func (r *reader) edit(c *Config, top *node, l *Lines) *node {
	out := *top
	out.entries = slices.Clone(top.entries)
	set := func(key string, at bsd.Span, value *node) {
		k := lineNode(at)
		k.text = key
		for i, e := range out.entries {
			if e.key.text == key {
				out.entries[i] = entry{k, value}
				return
			}
		}
		out.entries = append(out.entries, entry{k, value})
	}
	for _, s := range l.sysctls {
		v := lineNode(s.At)
		v.text = strconv.Itoa(s.Value)
		switch s.Name {
		case "allow":
			c.Idle = s.Value == 0
		case "preempt":
			v.text = strconv.FormatBool(s.Value == 1)
			set("preempt", s.At, v)
		case "log":
			m, k := lineNode(s.At), lineNode(s.At)
			k.text, v.text, m.kind = "level", logLevel(s.Value), mapping
			m.entries = []entry{{k, v}}
			set("log", s.At, m)
		case "dscp", "ifdown_demotion_factor", "senderr_demotion_factor":
			set(s.Name, s.At, v)
		}
	}
	hasKey := slices.ContainsFunc(out.entries, func(e entry) bool { return e.key.text == "key_file" })
	if p := l.Group(SyncName); p != nil && syncs(p) && !hasKey {
		if path := filepath.Join(filepath.Dir(r.path), "xcarp.key"); exists(path) {
			v := lineNode(p.At)
			v.text = path
			set("key_file", p.At, v)
			hasKey = true
		}
	}
	at := slices.IndexFunc(out.entries, func(e entry) bool { return e.key.text == "groups" })
	switch {
	case at < 0:
		if !slices.ContainsFunc(l.groups, func(g *bsd.Line) bool { return g.Name != SyncName }) {
			return &out
		}
		out.entries = append(out.entries, entry{&node{text: "groups", line: 1, column: 1, width: 1}, &node{kind: mapping, line: 1, column: 1, width: 1}})
		at = len(out.entries) - 1
	case out.entries[at].value.kind == nothing:
		out.entries[at].value = &node{kind: mapping, line: 1, column: 1, width: 1}
	case out.entries[at].value.kind != mapping:
		return &out // and the reader says what it is
	}
	groups := *out.entries[at].value
	groups.entries = slices.Clone(groups.entries)
	for _, g := range l.groups {
		if g.Name != SyncName {
			r.editGroup(c, &groups, g, hasKey)
		}
	}
	out.entries[at].value = &groups
	return &out
}

// editGroup lays one line over the group of its name.
func (r *reader) editGroup(c *Config, groups *node, l *bsd.Line, hasKey bool) {
	at := slices.IndexFunc(groups.entries, func(e entry) bool { return e.key.text == l.Name })
	base := lineNode(l.At)
	base.kind = mapping
	key := lineNode(l.At)
	key.text = l.Name
	if at >= 0 && !l.Create && !l.Destroy {
		key, base = groups.entries[at].key, groups.entries[at].value
		if base.kind == scalar {
			if base = r.bsdGroup(key, base); base == nil { // that has been said
				groups.entries = slices.Delete(groups.entries, at, at+1)
				r.gone[l.Name] = true
				return
			}
		}
		if base.kind != mapping {
			return // and the reader says what is wrong with it
		}
	}
	if at >= 0 {
		groups.entries = slices.Delete(groups.entries, at, at+1)
		r.gone[l.Name] = true
	}
	if l.Destroy {
		return
	}
	m := r.lineMapping(l, base, lineNode)
	if d := draft(l.Name, m, hasKey); len(d.Missing) > 0 {
		c.Drafts = append(c.Drafts, d)
		r.gone[l.Name] = true
		return
	}
	delete(r.gone, l.Name)
	groups.entries = append(groups.entries, entry{key, m})
}

// draft says what a group has and what it lacks.
func draft(name string, m *node, hasKey bool) Draft {
	d := Draft{Name: name, Known: map[string]string{}}
	has := map[string]bool{}
	for _, e := range m.entries {
		if e.key.text == "addresses" {
			for _, a := range e.value.items {
				d.Addresses = append(d.Addresses, a.text)
			}
		}
		has[e.key.text] = e.value.kind != list || len(e.value.items) > 0
		if e.value.kind == scalar && e.key.text != "pass" {
			d.Known[e.key.text] = e.value.text
		}
	}
	if !has["vhid"] && !has["carpnodes"] {
		d.Missing = append(d.Missing, "vhid")
	}
	if !has["carpdev"] {
		d.Missing = append(d.Missing, "carpdev")
	}
	if !has["addresses"] {
		d.Missing = append(d.Missing, "an address")
	}
	if !has["pass"] && !has["pass_file"] && !hasKey {
		d.Missing = append(d.Missing, "pass")
	}
	return d
}

// lineNode is a place in a line.
func lineNode(s bsd.Span) *node {
	return &node{line: 1, column: s.Column, width: max(1, s.Width), from: s.From}
}

// logLevel is what net.inet.carp.log says: OpenBSD counts as syslog does, with 2
// for changes of state, FreeBSD has 1 for those and 2 for refused adverts, too.
func logLevel(n int) string {
	switch {
	case n == 0:
		return "warn"
	case n <= 2:
		return "info"
	}
	return "debug"
}

// syncs reports whether a line of pfsync0 asks for state sync.
func syncs(l *bsd.Line) bool {
	up, says := l.Get("up")
	dev, _ := l.Get("syncdev")
	return dev.Value != "" && (!says || up.Value == "true")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// lineSync reads the line of pfsync0. The nodes of such a pair are called by their
// addresses, for a line has no names.
func (r *reader) lineSync(c *Config, l *bsd.Line) {
	for _, s := range l.Settings {
		switch s.Key {
		case "syncdev", "syncpeer", "up":
		case "defer":
			if s.Value == "true" {
				r.fail(lineNode(s.Span), "defer is not supported by this version", "leave it out")
			}
		default:
			r.fail(lineNode(s.Span), s.Keyword+" is not a setting of pfsync0", "write syncdev em1 syncpeer 10.1.1.2 up")
		}
	}
	for _, a := range append(slices.Clone(l.Add), l.Remove...) {
		r.fail(lineNode(a.Span), "an address for pfsync0", "give it to the syncdev: ip addr add")
	}
	if l.Destroy || !syncs(l) {
		return
	}
	dev, _ := l.Get("syncdev")
	if c.Sync != nil {
		r.fail(lineNode(dev.Span), "state sync is set up in "+r.path, "change sync there")
		return
	}
	if r.keyFile == nil {
		r.fail(lineNode(dev.Span), "state sync needs a key",
			"run (umask 077; xcarp keygen > "+filepath.Join(filepath.Dir(r.path), "xcarp.key")+"), copy the file to the other node, and say this again")
		return
	}
	peer, _ := l.Get("syncpeer")
	a, err := netip.ParseAddr(peer.Value)
	if err != nil {
		r.fail(lineNode(dev.Span), "pfsync0 has no syncpeer", "xcarp syncs with one node that it knows: add syncpeer and its address on "+dev.Value)
		return
	}
	r.places["sync"], r.places["sync/dev"] = lineNode(dev.Span), lineNode(dev.Span)
	r.places["sync/local"], r.places["sync/peers/"+a.String()] = lineNode(dev.Span), lineNode(peer.Span)
	c.Sync = &Sync{Dev: dev.Value, Port: 4112, Hold: 10 * time.Minute, ByAddress: true,
		Peers: map[string]netip.Addr{a.String(): a}}
}
