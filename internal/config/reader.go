package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xcarp/xcarp/internal/bsd"
)

// source is a text and the places in it that later checks want to name.
type source struct {
	path   string
	text   string
	places map[string]*node // "sync/dev", "groups/wan/carpdev", "groups/wan/10.0.0.1/24"
}

// problem makes a Problem at a node; n may be nil if there is no place.
func (s *source) problem(n *node, message, fix string) *Problem {
	if n != nil && n.from != nil {
		return sourceProblem(n.from, bsd.Span{Column: n.column, Width: n.width}, message, fix)
	}
	p := &Problem{File: s.path, Message: oneLine(message), Fix: oneLine(fix)}
	if n != nil {
		p.Line, p.Column = n.line, n.column
		p.Caret = caret(s.text, n.line, n.column, n.width)
	}
	return p
}

// at makes a Problem at one of the places, or at none.
func (s *source) at(place, message, fix string) *Problem {
	return s.problem(s.places[place], message, fix)
}

// oneLine keeps the promise of one line where a text has quoted newlines.
func oneLine(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return s
	}
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

// reader walks the tree, fills a Config and collects all problems.
type reader struct {
	*source
	env      func(string) string
	hostname string
	problems []*Problem
	warnings []*Problem

	lines *Lines          // to be laid over the text
	gone  map[string]bool // groups that the lines have taken away

	nodes   []string // names in sync.nodes; nil without sync
	keyFile *node
	secrets []secretFile // to be read when all else is known
	inline  *node        // the first password in the text itself
	named   []string     // the groups of the text, without the lines

	known map[string][]byte // secrets that were read already, by path

	startupDelay, preemptDelay time.Duration // the defaults of the groups
}

// secretFile is a file to read, and where to put what it holds.
type secretFile struct {
	key   string // key_file or pass_file
	group string // whose password; empty: the key
	path  string
	at    *node
}

func (r *reader) fail(n *node, message, fix string) {
	r.problems = append(r.problems, r.problem(n, message, fix))
}

func (r *reader) failf(n *node, fix, format string, arg ...any) {
	r.fail(n, fmt.Sprintf(format, arg...), fix)
}

func (r *reader) warn(n *node, message, fix string) {
	p := r.problem(n, message, fix)
	p.Warning = true
	r.warnings = append(r.warnings, p)
}

// section reads the keys of a mapping. It reports unknown and repeated ones, and
// returns the first of each known key that has a value.
func (r *reader) section(n *node, s *section) map[string]entry {
	found := map[string]entry{}
	for _, e := range r.mapping(n) {
		known := false
		for _, k := range s.keys {
			known = known || k == e.key.text
		}
		switch {
		case !known:
			message, fix := s.unknown(e.key.text)
			r.fail(e.key, message, fix)
		case e.value.kind == nothing:
			r.failf(e.key, "give it one or remove the key", "%s has no value", e.key.text)
		default:
			found[e.key.text] = e
		}
	}
	return found
}

// mapping returns the entries of a mapping without repeated keys, which it reports.
func (r *reader) mapping(n *node) []entry {
	seen := map[string]*node{}
	var entries []entry
	for _, e := range n.entries {
		if first := seen[e.key.text]; first != nil {
			r.failf(e.key, fmt.Sprintf("the first is in line %d", first.line), "%q a second time", e.key.text)
			continue
		}
		seen[e.key.text] = e.key
		entries = append(entries, e)
	}
	return entries
}

// want reports whether the node is of the kind, and complains if not.
func (r *reader) want(e entry, k kind, example string) bool {
	if e.value.kind == k {
		return true
	}
	what := [...]string{scalar: "one value", mapping: "a mapping", list: "a list"}[k]
	r.failf(e.value, "write "+example, "%s must be %s, not %s", e.key.text, what, e.value.what())
	return false
}

// number reads a decimal number of the range.
func (r *reader) number(e entry, low, high uint64, unit string) (uint64, bool) {
	return r.numberOf(e.key.text, e.value, low, high, unit)
}

func (r *reader) numberOf(name string, v *node, low, high uint64, unit string) (uint64, bool) {
	fix := fmt.Sprintf("write a number from %d to %d%s", low, high, unit)
	if v.kind != scalar || v.quoted {
		r.failf(v, fix, "%s must be a number, not %s", name, v.what())
		return 0, false
	}
	n, err := strconv.ParseUint(v.text, 10, 64)
	if err != nil || v.text != strconv.FormatUint(n, 10) {
		r.failf(v, fix, "%s must be a number, not %s", name, v.what())
		return 0, false
	}
	if n < low || n > high {
		r.failf(v, fix, "%s %d is out of range", name, n)
		return 0, false
	}
	return n, true
}

// truth reads true or false.
func (r *reader) truth(e entry) bool {
	if e.value.kind == scalar && !e.value.quoted {
		switch e.value.text {
		case "true":
			return true
		case "false":
			return false
		}
	}
	r.failf(e.value, "write true or false", "%s must be true or false, not %s", e.key.text, e.value.what())
	return false
}

// word reads one of a few words; the first is the default.
func (r *reader) word(e entry, words ...string) string {
	if e.value.kind == scalar {
		for _, w := range words {
			if e.value.text == w {
				return w
			}
		}
	}
	fix := "write " + strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
	if e.value.kind == scalar {
		if like := nearest(e.value.text, words); like != "" {
			fix = fmt.Sprintf("did you mean %q?", like)
		}
	}
	r.failf(e.value, fix, "%s cannot be %s", e.key.text, e.value.what())
	return words[0]
}

// duration reads a time with its unit, as time.ParseDuration takes it.
func (r *reader) duration(e entry, low, high time.Duration) (time.Duration, bool) {
	if !r.want(e, scalar, "a time with its unit, such as 600s or 10m") {
		return 0, false
	}
	d, err := time.ParseDuration(e.value.text)
	if err != nil {
		fix := "write a time with its unit, such as 600s or 10m"
		if _, err := strconv.ParseUint(e.value.text, 10, 32); err == nil {
			fix = fmt.Sprintf("write the unit, too: %ss", e.value.text)
		}
		r.failf(e.value, fix, "%s must be a time, not %s", e.key.text, e.value.what())
		return 0, false
	}
	if d < low || d > high {
		r.failf(e.value, fmt.Sprintf("write a time from %v to %v", low, high), "%s %v is out of range", e.key.text, d)
		return 0, false
	}
	return d, true
}

var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	variable    = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)
)

// name checks the name of a node or a group, which also become parts of metrics,
// of file names and of command lines.
func (r *reader) name(what string, n *node) bool {
	if n.kind == scalar && namePattern.MatchString(n.text) {
		return true
	}
	r.failf(n, "use up to 63 letters, digits, dots, dashes and underscores, the first a letter or digit",
		"%s cannot be the name of a %s", n.what(), what)
	return false
}

// device reads the name of an interface, within the limits of the kernel's
// dev_valid_name.
func (r *reader) device(e entry) string {
	if !r.want(e, scalar, "the name of an interface, such as eth0") {
		return ""
	}
	s := e.value.text
	if s == "" || len(s) > 15 || s == "." || s == ".." || strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c == '/' || c == ':' || c == 0x7f
	}) {
		r.failf(e.value, "write one such as eth0, at most 15 bytes", "%s cannot be the name of an interface", e.value.what())
		return ""
	}
	return s
}

// file reads the name of a file. ${NAME} is replaced from the environment; a
// relative name starts at the folder of the configuration.
func (r *reader) file(e entry) (string, bool) {
	if !r.want(e, scalar, "the name of a file") {
		return "", false
	}
	ok := true
	s := variable.ReplaceAllStringFunc(e.value.text, func(m string) string {
		name := m[2 : len(m)-1]
		v := r.env(name)
		if v == "" && ok {
			fix := "set it, or write the path out"
			if name == "CREDENTIALS_DIRECTORY" {
				fix = "systemd sets it for a unit with LoadCredential=; elsewhere write the path out"
			}
			r.failf(e.value, fix, "%s names ${%s}, which is not in the environment", e.key.text, name)
			ok = false
		}
		return v
	})
	if ok && strings.Contains(e.value.text, "${") && variable.FindString(e.value.text) == "" {
		r.failf(e.value, "write ${NAME}", "%s has a ${ that names no variable", e.key.text)
		return "", false
	}
	if ok && (s == "" || strings.ContainsRune(s, 0)) {
		r.failf(e.value, "write the name of a file", "%s cannot be %s", e.key.text, e.value.what())
		return "", false
	}
	return s, ok
}

// skews reads `advskew: 100` or `advskew: {fw-a: 0, fw-b: 100}` for our node.
func (r *reader) skews(e entry, self string) uint8 {
	if e.value.kind != mapping {
		n, _ := r.number(e, 0, 254, ", or {node: number}")
		return uint8(n)
	}
	var own uint8
	found := false
	for _, s := range r.mapping(e.value) {
		if r.nodes != nil && !slices.Contains(r.nodes, s.key.text) {
			r.failf(s.key, meant(s.key.text, r.nodes, "known are "), "advskew for %q, which is not in sync.nodes", s.key.text)
			continue
		}
		if !r.name("node", s.key) {
			continue
		}
		n, ok := r.numberOf("advskew", s.value, 0, 254, "")
		if ok && s.key.text == self {
			own = uint8(n)
		}
		found = found || s.key.text == self
	}
	if !found && self != "" && r.nodes == nil {
		r.warn(e.key, fmt.Sprintf("advskew has no entry for this node, %q", self), "it gets 0")
	}
	return own
}

// listen checks host:port.
func (r *reader) listen(e entry) string {
	if !r.want(e, scalar, "an address and a port, such as 127.0.0.1:9112") {
		return ""
	}
	s := e.value.text
	host, port, ok := cutLast(s, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	if ok && err == nil && n > 0 && port == strconv.FormatUint(n, 10) {
		if host == "" || host == "localhost" {
			return s
		}
		inner := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
		if a, err := netip.ParseAddr(inner); err == nil && a.Is6() == (inner != host) {
			return s
		}
	}
	r.failf(e.value, "write an address and a port, such as 127.0.0.1:9112 or [::1]:9112", "%s cannot be %s", e.key.text, e.value.what())
	return ""
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// meant is the fix for a name that is not among the known ones.
func meant(name string, known []string, otherwise string) string {
	if like := nearest(name, known); like != "" {
		return fmt.Sprintf("did you mean %q?", like)
	}
	return otherwise + strings.Join(known, ", ")
}

// misspelt reports whether the mapping has the key or one that was meant to be
// it, so that its absence has been reported already.
func misspelt(n *node, s *section, key string) bool {
	return slices.ContainsFunc(n.entries, func(e entry) bool {
		return e.key.text == key || !slices.Contains(s.keys, e.key.text) && s.like(e.key.text) == key
	})
}
