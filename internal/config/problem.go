package config

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Problem is one thing that is wrong, where, and what to do about it.
type Problem struct {
	File         string
	Line, Column int    // from 1, in characters; 0 if the problem has no place in the text
	Message      string // what is wrong
	Fix          string // what to do; may be empty
	Caret        string // excerpt of the line with a mark under the place, several lines, may be empty
	Warning      bool   // worth knowing, but no reason to refuse
}

// Error returns the one line: file:line:column: what: what to do.
func (p Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		switch {
		case p.Line > 0:
			fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
		case p.Column > 0:
			fmt.Fprintf(&b, ": column %d", p.Column)
		}
		b.WriteString(": ")
	}
	if p.Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(p.Message)
	if p.Fix != "" {
		b.WriteString(": " + p.Fix)
	}
	return b.String()
}

// Problems takes the error of Load apart, in the order of the text.
func Problems(err error) []*Problem {
	if err == nil {
		return nil
	}
	var p *Problem
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Problem
		for _, e := range joined.Unwrap() {
			all = append(all, Problems(e)...)
		}
		return all
	}
	if errors.As(err, &p) {
		return []*Problem{p}
	}
	return []*Problem{{Message: err.Error()}}
}

// sortProblems puts them in the order of the text.
func sortProblems(problems []*Problem) {
	slices.SortStableFunc(problems, func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// join makes one error of the problems, or nil, in the order of the text.
func join(problems []*Problem) error {
	sortProblems(problems)
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// caret renders the line with a mark of the given width (in characters) under
// the column, and with passwords masked.
func caret(text string, line, column, width int) string {
	lines := strings.Split(text, "\n")
	if line < 1 || line > len(lines) {
		return ""
	}
	if line > 1 && secretBelow.MatchString(lines[line-2]) {
		return "" // a password on a line of its own
	}
	src := []rune(strings.TrimRight(strings.ToValidUTF8(lines[line-1], "\uFFFD"), "\r"))
	before := min(max(column-1, 0), len(src))
	width = max(1, min(width, len(src)-before))

	masked, at := mask(string(src), before)
	pad := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, string([]rune(masked)[:at]))
	masked, at = excerpt(masked, at)
	width = max(1, min(width, utf8.RuneCountInString(masked)-at))
	n := fmt.Sprint(line)
	return fmt.Sprintf("%s | %s\n%s | %s%s",
		n, printable(masked), strings.Repeat(" ", len(n)), pad, strings.Repeat("^", width))
}

// excerptLen is how much of a line a caret shows, in characters.
const excerptLen = 160

// excerpt cuts a long line around a position.
func excerpt(line string, at int) (string, int) {
	src := []rune(line)
	if len(src) <= excerptLen {
		return line, at
	}
	from := max(0, min(at-excerptLen/2, len(src)-excerptLen))
	cut := slices.Clone(src[from : from+excerptLen])
	if from > 0 {
		cut[0] = '…'
	}
	if from+excerptLen < len(src) {
		cut[len(cut)-1] = '…'
	}
	return string(cut), at - from
}

// printable keeps control characters of a broken file away from the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && (r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0) {
			return '\uFFFD'
		}
		return r
	}, s)
}

const masked = "******"

var (
	keyPattern  = regexp.MustCompile(`["']?([A-Za-z_-]+)["']?[ \t]*:[ \t]*`)
	bsdPass     = regexp.MustCompile(`\b(?:pass?[a-z]*|key)[ \t]+(\\?"(?:[^"\\]|\\[^"])*\\?"|'[^']*'|\S+)`)
	secretBelow = regexp.MustCompile(`(?i)\bpass[a-z]*["']?[ \t]*:[ \t]*([|>][-+0-9]*)?[ \t]*(#.*)?\r?$`)
)

// mask hides the values of keys that look like a password, and moves the
// position at, counted in characters, along with the text.
func mask(line string, at int) (string, int) {
	type span struct{ from, to int } // bytes
	var spans []span
	for _, m := range keyPattern.FindAllStringSubmatchIndex(line, -1) {
		if !secretish(line[m[2]:m[3]]) || m[1] == len(line) {
			continue
		}
		spans = append(spans, span{m[1], m[1] + valueLen(line[m[1]:], strings.Contains(line[:m[0]], "{"))})
	}
	for _, m := range bsdPass.FindAllStringSubmatchIndex(line, -1) {
		spans = append(spans, span{m[2], m[3]})
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })

	var b strings.Builder
	pos, shift := 0, 0
	for _, s := range spans {
		if s.to <= pos || s.to == s.from {
			continue
		}
		from := max(s.from, pos)
		b.WriteString(line[pos:from])
		start := utf8.RuneCountInString(line[:from])
		n := utf8.RuneCountInString(line[from:s.to])
		switch {
		case at >= start+n:
			shift += len(masked) - n
		case at > start:
			shift -= at - start
		}
		b.WriteString(masked)
		pos = s.to
	}
	b.WriteString(line[pos:])
	out := b.String()
	return out, min(max(at+shift, 0), utf8.RuneCountInString(out))
}

// valueLen returns how many bytes of s the value takes that s begins with. In
// doubt it is too many: an unquoted value outside of braces takes the line.
func valueLen(s string, inBraces bool) int {
	if q := s[0]; q == '"' || q == '\'' {
		for i := 1; i < len(s); i++ {
			if s[i] == '\\' && q == '"' {
				i++
			} else if s[i] == q {
				if q == '\'' && i+1 < len(s) && s[i+1] == q {
					i++
					continue
				}
				return i + 1
			}
		}
		return len(s)
	}
	if i := strings.IndexAny(s, ",}"); inBraces && i >= 0 {
		return i
	}
	return len(s)
}

// secretish reports whether a key names a password, perhaps misspelt.
func secretish(key string) bool {
	key = strings.ToLower(key)
	switch key {
	case "pass_file", "key_file", "hmac", "bundle", "addresses":
		return false
	}
	return strings.Contains(key, "pass") || strings.Contains(key, "secret") || key == "key" ||
		distance(key, "pass") <= 1 || distance(key, "password") <= 3
}
