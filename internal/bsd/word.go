package bsd

import (
	"fmt"
	"strings"
	"unicode"
)

// Source is where a text came from.
type Source struct {
	Name string // a file, or a command
	Line int    // from 1; 0 where the source has none
	Text string // the whole line
}

// Span is the place of a word: a column from 1 and a width, both in characters.
type Span struct {
	Column, Width int
	From          *Source // nil unless the line was read from somewhere
}

// Error is one thing that is wrong with a line.
type Error struct {
	Span
	Message string // what is wrong
	Fix     string // what to do
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("column %d: %s: %s", e.Column, e.Message, e.Fix)
}

// word is a part of a line between blanks, without its quotes.
type word struct {
	text string
	Span
}

// split cuts a line into words as a shell would, without expansions: "…" with \"
// and \\ in it, '…', and \ before any character outside of quotes.
func split(line string) ([]word, error) {
	var words []word
	var w strings.Builder
	in, quote, start := false, rune(0), 0
	runes := []rune(line)
	for i := 0; i <= len(runes); i++ {
		var c rune
		if i < len(runes) {
			c = runes[i]
		}
		end := i == len(runes)
		switch {
		case end && quote != 0:
			return nil, &Error{Span{Column: start + 1, Width: 1}, "a quote that does not end", fmt.Sprintf("add the second %c", quote)}
		case end || quote == 0 && unicode.IsSpace(c):
			if in {
				words = append(words, word{w.String(), Span{Column: start + 1, Width: i - start}})
				w.Reset()
				in = false
			}
			continue
		case unicode.IsControl(c):
			return nil, &Error{Span{Column: i + 1, Width: 1}, fmt.Sprintf("a control character (%#x)", c), "remove it"}
		}
		if !in {
			in, start = true, i
		}
		switch {
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == c && quote != 0:
			quote = 0
		case c == '\\' && quote != '\'':
			if i+1 == len(runes) {
				return nil, &Error{Span{Column: i + 1, Width: 1}, `a \ at the end`, "remove it"}
			}
			if next := runes[i+1]; quote == 0 || next == '"' || next == '\\' {
				i++
				c = next
			}
			if unicode.IsControl(c) {
				return nil, &Error{Span{Column: i + 1, Width: 1}, fmt.Sprintf("a control character (%#x)", c), "remove it"}
			}
			w.WriteRune(c)
		default:
			w.WriteRune(c)
		}
	}
	return words, nil
}

// Join makes a line of the words of a command line: ParseIfconfig finds the same
// words in it.
func Join(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " ")
}

func quote(w string) string {
	if w != "" && !strings.ContainsFunc(w, func(r rune) bool {
		return unicode.IsSpace(r) || r == '"' || r == '\'' || r == '\\'
	}) {
		return w
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
}
