package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Track is something outside the election that this node must have to be a good
// master. While it has not, its groups are demoted.
type Track struct {
	Name  string
	Check TrackCheck
	What  string // as an operator names it: "ping 203.0.113.254"

	Dev     string         // of Link, Ping, ARP, TCP and Route; else empty
	Route   netip.Prefix   // of Route, masked
	Addr    netip.AddrPort // of Ping and ARP (port 0) and TCP
	Process string         // of Process
	Path    string         // of PIDFile and File
	Content FileContent    // of File
	Command []string       // of Command; the first is an absolute path
	User    string         // of Command

	Every   time.Duration // between the beginnings of two checks
	Timeout time.Duration // of one check
	Rise    int           // checks in a row that must succeed
	Fall    int           // checks in a row that must fail
	Demote  int           // 1 to 255
	Groups  []string      // sorted; all that it demotes, whole bundles
}

// TrackCheck says how a track is checked. The words are the keys of the file.
type TrackCheck string

// The checks.
const (
	TrackLink    TrackCheck = "link"     // an interface is up and has carrier
	TrackRoute   TrackCheck = "route"    // a prefix is in the main table, by a link that is up
	TrackPing    TrackCheck = "ping"     // an address answers ICMP or ICMPv6 echo
	TrackARP     TrackCheck = "arp"      // a neighbour answers ARP
	TrackTCP     TrackCheck = "tcp"      // a TCP connection is accepted
	TrackProcess TrackCheck = "process"  // a process of the name runs
	TrackPIDFile TrackCheck = "pid_file" // the process whose number is in a file runs
	TrackFile    TrackCheck = "file"     // see FileContent
	TrackCommand TrackCheck = "command"  // a program exits with status 0
)

// FileContent says when a file counts as good.
type FileContent string

// The contents of a file.
const (
	FileExists FileContent = "exists"
	FileAbsent FileContent = "absent"
	FileNumber FileContent = "number" // 0 is good, 1 to 255 demotes by that much
)

// trackChecks is in the order in which they are listed to an operator.
var trackChecks = []string{
	string(TrackLink), string(TrackRoute), string(TrackPing), string(TrackARP), string(TrackTCP),
	string(TrackProcess), string(TrackPIDFile), string(TrackFile), string(TrackCommand),
}

const (
	// ifdownFactor is net.inet.carp.ifdown_demotion_factor of the BSDs.
	ifdownFactor = 240

	// nobody runs commands that need no rights.
	nobody = "nobody"
)

const trackExample = "track: {upstream: {ping: 203.0.113.254}}"

// tracks reads the section of that name.
func (r *reader) tracks(c *Config, e entry) {
	if !r.want(e, mapping, trackExample) {
		return
	}
	for _, t := range r.mapping(e.value) {
		if r.name("track", t.key) {
			c.Tracks = append(c.Tracks, r.track(c, t))
		}
	}
	slices.SortFunc(c.Tracks, func(a, b Track) int { return strings.Compare(a.Name, b.Name) })
}

func (r *reader) track(c *Config, e entry) Track {
	t := Track{Name: e.key.text, Demote: ifdownFactor, Groups: groupNames(c)}
	if e.value.kind != mapping {
		r.failf(e.value, "write "+trackExample, "track %q must be a mapping, not %s", t.Name, e.value.what())
		return t
	}
	place := "track/" + t.Name
	r.places[place] = e.key
	keys := r.section(e.value, trackSection)
	var check entry
	for _, word := range trackChecks {
		k, ok := keys[word]
		switch {
		case !ok:
		case t.Check != "":
			r.failf(k.key, "keep one of them, and make a second track of the other", "track %q has both %s and %s", t.Name, t.Check, word)
		default:
			t.Check, check = TrackCheck(word), k
			r.places[place+"/check"] = k.value
		}
	}
	if t.Check == "" {
		if !slices.ContainsFunc(trackChecks, func(w string) bool { return misspelt(e.value, trackSection, w) }) {
			r.failf(e.key, "add one of "+strings.Join(trackChecks, ", "), "track %q does not say what to check", t.Name)
		}
		return t
	}
	for word, of := range map[string][]TrackCheck{
		"dev":     {TrackRoute, TrackPing, TrackARP, TrackTCP},
		"content": {TrackFile},
		"user":    {TrackCommand},
	} {
		if k, ok := keys[word]; ok && !slices.Contains(of, t.Check) {
			r.failf(k.key, "remove it", "%s has no meaning for %s", word, t.Check)
			delete(keys, word)
		}
	}
	if k, ok := keys["dev"]; ok {
		t.Dev = r.device(k)
		r.places[place+"/dev"] = k.value
	}
	r.trackCheck(&t, check, keys)
	if t.What == "" {
		t.What = string(t.Check) + " " + check.value.text
	}
	r.trackTimes(&t, keys)
	if k, ok := keys["demote"]; ok {
		if n, ok := r.number(k, 1, 255, ""); ok {
			t.Demote = int(n)
		}
	}
	if k, ok := keys["groups"]; ok {
		t.Groups = c.together(r.someGroups(c, k))
	}
	return t
}

// together adds the groups that are in a bundle with the given ones: they move
// with them or not at all. Sorted.
func (c *Config) together(names []string) []string {
	all := slices.Clone(names)
	for _, b := range c.Bundles {
		if slices.ContainsFunc(b, func(n string) bool { return slices.Contains(names, n) }) {
			all = append(all, b...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// trackCheck reads what is checked.
func (r *reader) trackCheck(t *Track, k entry, keys map[string]entry) {
	switch t.Check {
	case TrackLink:
		t.Dev = r.device(k)
		r.places["track/"+t.Name+"/dev"] = k.value
	case TrackRoute:
		t.Route = r.route(k)
	case TrackPing, TrackARP:
		t.Addr = r.target(k, t.Dev)
		if t.Check == TrackPing {
			return
		}
		switch {
		case t.Addr.IsValid() && !t.Addr.Addr().Is4():
			r.failf(k.value, "use ping for IPv6", "arp cannot be %s", k.value.what())
		case keys["dev"].key == nil:
			r.failf(k.key, "add dev: and the interface to the neighbour", "track %q has no dev", t.Name)
		}
	case TrackTCP:
		t.Addr = r.endpoint(k)
	case TrackProcess:
		if r.want(k, scalar, "process: bird") {
			t.Process = k.value.text
			if t.Process == "" || strings.ContainsAny(t.Process, "/\x00 \t\n") {
				r.failf(k.value, "write its name, without folder and arguments", "process cannot be %s", k.value.what())
			}
		}
	case TrackPIDFile, TrackFile:
		t.Path = r.absolute(k)
		if t.Check == TrackPIDFile {
			return
		}
		t.Content = FileExists
		if k, ok := keys["content"]; ok {
			t.Content = FileContent(r.word(k, string(FileExists), string(FileAbsent), string(FileNumber)))
		}
	case TrackCommand:
		t.Command = r.argv(k)
		t.What = strings.Join(append([]string{"command"}, t.Command...), " ")
		t.User = nobody
		r.places["track/"+t.Name+"/user"] = k.value
		if k, ok := keys["user"]; ok {
			t.User = r.userName(k, "track/"+t.Name)
		}
	}
}

// trackTimes reads how often to check, and how many results decide. Facts that the
// kernel tells decide at once; answers from elsewhere get lost.
func (r *reader) trackTimes(t *Track, keys map[string]entry) {
	t.Every, t.Rise, t.Fall = time.Second, 1, 1
	switch t.Check {
	case TrackPing, TrackARP, TrackTCP, TrackCommand:
		t.Rise, t.Fall = 2, 3
	case TrackRoute:
		t.Every = 5 * time.Second // events tell sooner
	}
	if k, ok := keys["every"]; ok {
		if d, ok := r.duration(k, 10*time.Millisecond, time.Hour); ok {
			t.Every = d
		}
	}
	t.Timeout = min(max(t.Every, 50*time.Millisecond), 5*time.Second)
	if k, ok := keys["timeout"]; ok {
		if d, ok := r.duration(k, 10*time.Millisecond, time.Minute); ok {
			t.Timeout = d
		}
	}
	for word, n := range map[string]*int{"rise": &t.Rise, "fall": &t.Fall} {
		if k, ok := keys[word]; ok {
			if v, ok := r.number(k, 1, 100, ""); ok {
				*n = int(v)
			}
		}
	}
}

// route reads a prefix as a routing table has it.
func (r *reader) route(e entry) netip.Prefix {
	const example = "0.0.0.0/0, ::/0 or 10.0.0.0/8"
	if !r.want(e, scalar, example) {
		return netip.Prefix{}
	}
	return r.prefix(e.key.text, e.value, example)
}

func (r *reader) prefix(name string, v *node, example string) netip.Prefix {
	if v.kind == scalar && v.text == "default" {
		r.failf(v, "write 0.0.0.0/0 or ::/0", "%s cannot be %s: of which family?", name, v.what())
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(v.text)
	if v.kind != scalar || err != nil || p.Addr().Is4In6() {
		r.failf(v, "write a prefix such as "+example, "%s cannot be %s", name, v.what())
		return netip.Prefix{}
	}
	if p != p.Masked() {
		r.failf(v, "write "+p.Masked().String(), "%s %s has bits beyond its length", name, p)
		return netip.Prefix{}
	}
	return p
}

// target reads the address of a host.
func (r *reader) target(e entry, dev string) netip.AddrPort {
	if !r.want(e, scalar, "an address, such as 203.0.113.254") {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddr(e.value.text)
	switch {
	case err != nil:
		r.failf(e.value, "write an address, such as 203.0.113.254; names are not looked up", "%s cannot be %s", e.key.text, e.value.what())
	case a.Zone() != "":
		r.failf(e.value, "write dev: "+a.Zone(), "%s %s has a zone", e.key.text, a)
	case a.Is4In6(), a.IsUnspecified(), a.IsMulticast(), a.Is4() && a.As4()[0] >= 240:
		r.failf(e.value, "write the address of a host", "%s cannot be %s", e.key.text, a)
	case a.Is6() && a.IsLinkLocalUnicast() && dev == "":
		r.failf(e.value, "add dev: and the interface", "%s %s is a link-local address of an unknown link", e.key.text, a)
	default:
		return netip.AddrPortFrom(a, 0)
	}
	return netip.AddrPort{}
}

// endpoint reads an address and a port.
func (r *reader) endpoint(e entry) netip.AddrPort {
	if !r.want(e, scalar, "an address and a port, such as 203.0.113.254:179") {
		return netip.AddrPort{}
	}
	p, err := netip.ParseAddrPort(e.value.text)
	if err != nil || p.Port() == 0 || p.Addr().Zone() != "" || p.Addr().Is4In6() || p.Addr().IsUnspecified() || p.Addr().IsMulticast() {
		r.failf(e.value, "write an address and a port, such as 203.0.113.254:179 or \"[2001:db8::1]:179\"; names are not looked up",
			"%s cannot be %s", e.key.text, e.value.what())
		return netip.AddrPort{}
	}
	return p
}

// absolute reads the name of a file that does not depend on where we are.
func (r *reader) absolute(e entry) string {
	if !r.want(e, scalar, "the name of a file, such as /run/bird.pid") {
		return ""
	}
	if s := e.value.text; filepath.IsAbs(s) && !strings.ContainsRune(s, 0) {
		return s
	}
	r.failf(e.value, "write the whole path, from /", "%s cannot be %s", e.key.text, e.value.what())
	return ""
}

// argv reads a program and its arguments.
func (r *reader) argv(e entry) []string {
	const example = "[/usr/local/sbin/check, argument]"
	if e.value.kind == scalar {
		r.failf(e.value, "write "+example, "%s must be a list: there is no shell that would take %s apart", e.key.text, e.value.what())
		return nil
	}
	if !r.want(e, list, example) {
		return nil
	}
	if len(e.value.items) == 0 {
		r.failf(e.value, "write "+example, "%s is empty", e.key.text)
		return nil
	}
	var argv []string
	for i, n := range e.value.items {
		switch {
		case n.kind != scalar || strings.ContainsRune(n.text, 0):
			r.failf(n, "write "+example, "%s must be a list of words, not of %s", e.key.text, n.what())
			return nil
		case i == 0 && !filepath.IsAbs(n.text):
			r.failf(n, "write the whole path, from /", "%s cannot be %s", e.key.text, n.what())
			return nil
		}
		argv = append(argv, n.text)
	}
	return argv
}

// userName reads a user, by name or number. Whether there is one is for Check.
func (r *reader) userName(e entry, place string) string {
	if !r.want(e, scalar, "the name of a user, such as nobody") {
		return nobody
	}
	s := e.value.text
	if _, err := strconv.ParseUint(s, 10, 31); err != nil && !namePattern.MatchString(strings.TrimPrefix(s, "_")) {
		r.failf(e.value, "write the name of a user, such as nobody", "user cannot be %s", e.value.what())
		return nobody
	}
	r.places[place+"/user"] = e.value
	return s
}

// someGroups reads a list of groups; sorted.
func (r *reader) someGroups(c *Config, e entry) []string {
	if !r.want(e, list, "[wan, lan]") {
		return nil
	}
	known := groupNames(c)
	var names []string
	for _, n := range e.value.items {
		switch {
		case r.gone[n.text]: // a line has taken it away, for now
		case n.kind != scalar:
			r.failf(n, "write [wan, lan]", "groups must be a list of groups, not of %s", n.what())
		case slices.Contains(names, n.text):
			r.failf(n, "keep it once", "group %q a second time", n.text)
		case slices.Contains(known, n.text):
			names = append(names, n.text)
		case len(known) > 0: // else that is the problem
			r.fail(n, fmt.Sprintf("groups names an unknown group %q", n.text), meant(n.text, known, "known are "))
		}
	}
	if len(e.value.items) == 0 {
		r.failf(e.value, "name some, or remove the key for all", "groups is empty")
	}
	slices.Sort(names)
	return names
}

func groupNames(c *Config) []string {
	var names []string
	for i := range c.Groups {
		names = append(names, c.Groups[i].Name)
	}
	return names
}
