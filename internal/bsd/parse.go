package bsd

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/xcarp/xcarp/internal/spell"
)

// ParseIfconfig reads the arguments of ifconfig(8): the name of an interface, or -g
// and that of an interface group, and what is wanted of it. The line may begin with
// the word ifconfig.
func ParseIfconfig(line string) (*Line, error) {
	p, err := newParser(line)
	if err != nil {
		return nil, err
	}
	p.accept("ifconfig")
	switch w, ok := p.next(); {
	case !ok:
		return nil, p.missing("a line without an interface", "write ifconfig carp1 and what it shall be")
	case w.text == "-g":
		class, ok := p.next()
		if !ok {
			return nil, p.missing("-g without an interface group", "write -g carp carpdemote 50")
		}
		p.line.Class, p.line.At = class.text, class.Span
	default:
		if !validDevice(w.text) {
			return nil, fail(w, fmt.Sprintf("%q cannot be the name of an interface", w.text), "write one such as carp1")
		}
		if k, _, ok := find(w.text); ok {
			return nil, fail(w, fmt.Sprintf("%s where the name of an interface belongs", k.word), "write ifconfig carp1 "+k.word+" …")
		}
		p.line.Name, p.line.At = w.text, w.Span
	}
	return p.parse()
}

// ParseGroup reads the line of one group, as in hostname.carp1 or rc.conf. It may
// begin with `ifconfig carp1`, which then must name the group.
func ParseGroup(group, line string) (*Line, error) {
	p, err := newParser(line)
	if err != nil {
		return nil, err
	}
	if p.accept("ifconfig") {
		w, ok := p.next()
		if !ok {
			return nil, p.missing("ifconfig without an interface", "leave the word out")
		}
		if w.text != group {
			return nil, fail(w, fmt.Sprintf("the line of %s names %s", group, w.text), "leave `ifconfig "+w.text+"` out")
		}
	}
	p.line.Name = group
	l, err := p.parse()
	if err == nil && l.Destroy {
		return nil, &Error{Span{Column: 1, Width: 1}, "destroy in the line of a group", "remove the group instead"}
	}
	return l, err
}

type parser struct {
	words []word
	at    int
	end   Span // behind the last word
	line  *Line
}

func newParser(line string) (*parser, error) {
	words, err := split(line)
	if err != nil {
		return nil, err
	}
	return &parser{words: words, end: Span{Column: len([]rune(line)) + 1, Width: 1}, line: &Line{}}, nil
}

func fail(w word, message, fix string) error { return &Error{w.Span, message, fix} }

func (p *parser) missing(message, fix string) error { return &Error{p.end, message, fix} }

func (p *parser) next() (word, bool) {
	if p.at == len(p.words) {
		return word{}, false
	}
	p.at++
	return p.words[p.at-1], true
}

func (p *parser) peek() (word, bool) {
	if p.at == len(p.words) {
		return word{}, false
	}
	return p.words[p.at], true
}

func (p *parser) accept(text string) bool {
	w, ok := p.peek()
	if ok && w.text == text {
		p.at++
		return true
	}
	return false
}

func (p *parser) parse() (*Line, error) {
	last := -1 // position in Add of the address before
	for {
		w, ok := p.next()
		if !ok {
			break
		}
		a, isAddr, err := parseAddress(w)
		switch {
		case err != nil:
			return nil, err
		case isAddr:
			if a, err = p.mask(a); err != nil {
				return nil, err
			}
			last = p.add(a)
			continue
		}
		switch w.text {
		case "create", "plumb":
			p.line.Create = true
		case "destroy", "unplumb":
			p.line.Destroy = true
		case "netmask", "prefixlen":
			return nil, fail(w, w.text+" without an address before it", "write 10.0.0.1 "+w.text+" and the mask")
		case "-alias", "delete", "remove":
			if err := p.remove(w, last); err != nil {
				return nil, err
			}
			last = -1
		default:
			if err := p.keyword(w); err != nil {
				return nil, err
			}
		}
	}
	for _, a := range p.line.Add {
		if a.Bits() < 0 {
			return nil, noMask(a)
		}
	}
	if p.line.Destroy && (p.line.Create || len(p.line.Settings)+len(p.line.Add)+len(p.line.Remove) > 0) {
		return nil, &Error{p.words[len(p.words)-1].Span, "destroy beside other words", "give it alone"}
	}
	return p.line, nil
}

// add takes an address into the line and returns its position.
func (p *parser) add(a Address) int {
	p.line.Add = append(without(p.line.Add, a.Addr), a)
	return len(p.line.Add) - 1
}

// remove reads what stands behind -alias: an address, or else the one before it
// is meant.
func (p *parser) remove(w word, last int) error {
	if next, ok := p.peek(); ok {
		if a, isAddr, err := parseAddress(next); err != nil {
			return err
		} else if isAddr {
			p.at++
			if a, err = p.mask(a); err != nil {
				return err
			}
			p.line.Remove = append(without(p.line.Remove, a.Addr), a)
			return nil
		}
	}
	if last < 0 {
		return fail(w, w.text+" without an address", "write "+w.text+" 10.0.0.1")
	}
	a := p.line.Add[last]
	p.line.Add = slices.Delete(p.line.Add, last, last+1)
	p.line.Remove = append(without(p.line.Remove, a.Addr), a)
	return nil
}

// keyword reads a word that is no address, and its value.
func (p *parser) keyword(w word) error {
	k, away, ok := find(w.text)
	if !ok {
		return p.unknown(w)
	}
	s := Setting{Key: k.key, Keyword: w.text, Span: w.Span}
	switch {
	case away:
		p.line.Set(s)
		return nil
	case k.kind == nothing:
		return nil
	case k.kind == onOff:
		s.Value = k.value
		if s.Value == "" {
			s.Value = "true"
		}
		p.line.Set(s)
		return nil
	}
	v, ok := p.next()
	if k.kind == count {
		if _, err := strconv.Atoi(v.text); !ok || err != nil {
			if ok {
				p.at--
			}
			v = word{"1", w.Span}
		}
		k.low, k.high = 1, 255
	} else if !ok || p.isKeyword(v) && k.kind != text {
		return fail(w, w.text+" has no value", "write "+w.text+" "+k.sample())
	}
	s.Span = v.Span
	value, what, fix := k.read(v.text)
	if what != "" {
		return fail(v, what, fix)
	}
	if k.kind == ignored {
		p.line.Notes = append(p.line.Notes, &Error{w.Span, w.text + " has no meaning here", "it is ignored"})
		return nil
	}
	if k.kind == count {
		value = k.value + value
	}
	s.Value = value
	p.line.Set(s)
	return nil
}

func (p *parser) isKeyword(w word) bool {
	_, _, ok := find(w.text)
	return ok || slices.Contains(acting, w.text)
}

// unknown says what a word could have been. A word behind a password may be a part
// of it, and is not shown.
func (p *parser) unknown(w word) error {
	like := spell.Nearest(w.text, known())
	if n := p.at - 3; n >= 0 && like == "" {
		if k, _, ok := find(p.words[n].text); ok && k.key == "pass" {
			return fail(w, "the word behind the password is no keyword", "put a password with blanks in it into quotes")
		}
	}
	fix := "known are vhid, advbase, advskew, pass, carpdev, carppeer, carpnodes, balancing, addresses, up and down"
	if like != "" {
		fix = fmt.Sprintf("did you mean %q?", like)
	} else if looksLikeAddress(w.text) {
		return fail(w, fmt.Sprintf("%q is not an address", w.text), "write one such as 10.0.0.1 netmask 255.255.255.0")
	}
	return fail(w, fmt.Sprintf("unknown word %q", w.text), fix)
}

func looksLikeAddress(s string) bool {
	return strings.Count(s, ".") >= 2 || strings.Count(s, ":") >= 2 || strings.Contains(s, "/")
}

func (k keyword) sample() string {
	switch {
	case k.example != "":
		return k.example
	case k.kind == oneOf:
		return strings.Join(k.words[:len(k.words)-1], ", ") + " or " + k.words[len(k.words)-1]
	}
	return fmt.Sprintf("and a number from %d to %d", k.low, k.high)
}

// read turns the word behind a keyword into a value. what is empty if it is one.
func (k keyword) read(s string) (value, what, fix string) {
	switch k.kind {
	case number, count:
		return k.readNumber(s)
	case device:
		if !validDevice(s) {
			return "", fmt.Sprintf("%s cannot be %q", k.word, s), "write the name of an interface, such as " + k.example
		}
	case text:
		if s == "" {
			return "", k.word + " is empty", "write " + k.word + " " + k.example
		}
	case address:
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return "", fmt.Sprintf("%s cannot be %q", k.word, s), "write an address, such as " + k.example
		}
		return a.String(), "", ""
	case oneOf:
		if !slices.Contains(k.words, s) {
			fix = "write " + k.sample()
			if like := spell.Nearest(s, k.words); like != "" {
				fix = fmt.Sprintf("did you mean %q?", like)
			}
			return "", fmt.Sprintf("%s cannot be %q", k.word, s), fix
		}
	case nodes:
		return k.readNodes(s)
	}
	return s, "", ""
}

func (k keyword) readNumber(s string) (value, what, fix string) {
	fix = fmt.Sprintf("write a number from %d to %d", k.low, k.high)
	n, err := strconv.Atoi(s)
	if err != nil {
		return "", fmt.Sprintf("%s must be a number, not %q", k.word, s), fix
	}
	if n < k.low || n > k.high {
		return "", fmt.Sprintf("%s %d is out of range", k.word, n), fix
	}
	return strconv.Itoa(n), "", ""
}

// readNodes reads vhid:advskew,vhid:advskew; at most 32, as OpenBSD.
func (k keyword) readNodes(s string) (value, what, fix string) {
	fix = "write vhid:advskew for each node, such as " + k.example
	var all []string
	seen := map[int]bool{}
	for part := range strings.SplitSeq(s, ",") {
		v, a, ok := strings.Cut(part, ":")
		vhid, err1 := strconv.Atoi(v)
		skew, err2 := strconv.Atoi(a)
		switch {
		case !ok || err1 != nil || err2 != nil:
			return "", fmt.Sprintf("carpnodes cannot be %q", s), fix
		case vhid < 1 || vhid > 255 || skew < 0 || skew > 254:
			return "", fmt.Sprintf("carpnodes %d:%d is out of range", vhid, skew), "a vhid is 1 to 255, an advskew 0 to 254"
		case seen[vhid]:
			return "", fmt.Sprintf("carpnodes names vhid %d twice", vhid), fix
		}
		seen[vhid] = true
		all = append(all, fmt.Sprintf("%d:%d", vhid, skew))
	}
	if len(all) > 32 {
		return "", fmt.Sprintf("carpnodes names %d nodes", len(all)), "at most 32 are possible"
	}
	return strings.Join(all, ","), "", ""
}

// validDevice holds a name against the kernel's dev_valid_name.
func validDevice(s string) bool {
	return s != "" && len(s) <= 15 && s != "." && s != ".." && s[0] != '-' && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c == '/' || c == ':' || c == 0x7f
	})
}
