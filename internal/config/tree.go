package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/xcarp/xcarp/internal/bsd"
)

// kind is what a node of the text is.
type kind uint8

const (
	scalar kind = iota
	mapping
	list
	nothing // "key:" with no value
)

// node is a piece of the text and the place where it stands. The text of a
// scalar is what was written: which type it must have is for the reader to say,
// so that a group may be called 1 and an address needs no quotes.
type node struct {
	kind         kind
	line, column int
	width        int // of the scalar in the text, in characters
	text         string
	quoted       bool
	from         *bsd.Source // nil: the text itself
	entries      []entry     // of a mapping, in order, with duplicates
	items        []*node     // of a list
}

type entry struct{ key, value *node }

// what names the node in an error message.
func (n *node) what() string {
	switch n.kind {
	case mapping:
		return "a mapping"
	case list:
		return "a list"
	case nothing:
		return "nothing"
	}
	text := []rune(n.text)
	if len(text) > 40 {
		text = append(text[:40:40], '…')
	}
	return fmt.Sprintf("%q", string(text))
}

// maxDepth bounds the nesting of brackets, far above what the format needs: the
// parser recurses, so that a stack could overflow, which nobody can catch, and
// takes quadratic time (2 s for 16000). maxBrackets does so where the brackets
// might be in a comment; maxMarks bounds "- - - -" in one line.
const (
	maxDepth    = 32
	maxBrackets = 1000
	maxMarks    = 1000
)

// syntax is an error in the form of the text.
type syntax struct {
	line, column int
	message, fix string
}

func (e *syntax) Error() string { return e.message }

func syntaxAt(t *token.Token, message, fix string) *syntax {
	e := &syntax{line: 1, column: 1, message: message, fix: fix}
	if t != nil && t.Position != nil {
		e.line, e.column = max(t.Position.Line, 1), max(t.Position.Column, 1)
	}
	return e
}

// syntaxFix is what to do about a text that the parser does not take.
func syntaxFix(message string) string {
	switch {
	case strings.Contains(message, "'\t'"):
		return "indent with blanks, not with tabs"
	case strings.Contains(message, "']' not found"), strings.Contains(message, "'}' not found"):
		return "close the bracket that is open here"
	}
	return "look at the indentation, brackets and quotes here and in the lines before"
}

// parse makes the tree of a text. The root is nil if the text says nothing.
func parse(text []byte) (root *node, err error) {
	if e := tooDeep(text); e != nil {
		return nil, e
	}
	defer func() { // the parser is not ours, and a running daemon must survive any text
		if r := recover(); r != nil {
			root, err = nil, &syntax{line: 1, column: 1, message: "not readable as YAML", fix: syntaxFix("")}
		}
	}()
	f, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var ye yaml.Error
		if errors.As(err, &ye) {
			message, _, _ := strings.Cut(ye.GetMessage(), "\n")
			return nil, syntaxAt(ye.GetToken(), "not YAML: "+message, syntaxFix(message))
		}
		message, _, _ := strings.Cut(err.Error(), "\n")
		return nil, syntaxAt(nil, "not YAML: "+message, syntaxFix(message))
	}
	for _, doc := range f.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		n, err := convert(doc.Body, nil)
		if err != nil {
			return nil, err
		}
		if root != nil {
			return nil, &syntax{line: n.line, column: n.column,
				message: "a second YAML document", fix: "put everything into one, without ---"}
		}
		root = n
	}
	return root, nil
}

// tooDeep looks for brackets nested deeper than maxDepth. It does not know
// quotes, so it also refuses a text with that many lonely brackets in quotes.
func tooDeep(text []byte) *syntax {
	line, column, marks := 1, 0, 0
	depth, all := 0, 0 // without and with what looks like a comment
	comment, last := false, byte('\n')
	for _, c := range text {
		column++
		up, down := 0, 0
		switch c {
		case '[', '{':
			up = 1
		case ']', '}':
			down = 1
		case '-', '?':
			if last == ' ' || last == '\n' {
				marks++
			}
		case '#':
			comment = comment || last == ' ' || last == '\t' || last == '\n'
		case '\n':
			line, column, marks, comment = line+1, 0, 0, false
		}
		last = c
		all = max(0, all+up-down)
		if !comment {
			depth = max(0, depth+up-down)
		}
		if depth > maxDepth || all > maxBrackets || marks > maxMarks {
			return &syntax{line: line, column: column, message: fmt.Sprintf("nested deeper than %d levels", maxDepth),
				fix: "a configuration needs four: is this the right file?"}
		}
	}
	return nil
}

// convert makes a node of the parser's. fallback is the place to name when the
// node has none.
func convert(a ast.Node, fallback *token.Token) (*node, error) {
	n := &node{}
	t := fallback
	if a != nil && a.GetToken() != nil {
		t = a.GetToken()
	}
	n.place(t)
	switch a := a.(type) {
	case nil:
		n.kind = nothing
	case *ast.NullNode:
		n.kind = nothing
		if t != nil && t.Value != "" && t != fallback {
			n.text = t.Value // "null" and "~" are nothing, too
		}
	case ast.MapNode:
		n.kind = mapping
		for it := a.MapRange(); it.Next(); {
			kv := it.KeyValue()
			key, err := convertKey(kv.Key)
			if err != nil {
				return nil, err
			}
			value, err := convert(kv.Value, kv.Key.GetToken())
			if err != nil {
				return nil, err
			}
			n.entries = append(n.entries, entry{key, value})
		}
		if len(n.entries) > 0 && (t == nil || t.Type != token.MappingStartType) {
			n.line, n.column = n.entries[0].key.line, n.entries[0].key.column
		}
	case *ast.SequenceNode:
		n.kind = list
		for _, v := range a.Values {
			item, err := convert(v, t)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
	case *ast.LiteralNode:
		n.text, n.quoted = a.Value.Value, true
	case *ast.AnchorNode, *ast.AliasNode:
		return nil, syntaxAt(t, "anchors and aliases (& and *) are not supported", "write the value out, or quote it")
	case *ast.TagNode:
		return nil, syntaxAt(t, "tags (!) are not supported", "leave the tag out, or quote the value")
	case *ast.CommentGroupNode:
		n.kind = nothing
	case ast.ScalarNode:
		if t == nil {
			return nil, syntaxAt(nil, "not readable as YAML", "")
		}
		n.text = t.Value
		switch t.Type {
		case token.SingleQuoteType, token.DoubleQuoteType:
			n.quoted = true
			n.width += 2
		}
	default:
		return nil, syntaxAt(t, "YAML of a kind that has no meaning here", "")
	}
	return n, nil
}

func convertKey(k ast.MapKeyNode) (*node, error) {
	switch k := k.(type) {
	case *ast.MergeKeyNode:
		return nil, syntaxAt(k.GetToken(), "merge keys (<<) are not supported", "write the keys out")
	case *ast.MappingKeyNode:
		return nil, syntaxAt(k.GetToken(), "complex keys (?) are not supported", "write key: value")
	case ast.ScalarNode:
		return convert(k, nil)
	default:
		return nil, syntaxAt(k.GetToken(), "this cannot be a key", "write key: value")
	}
}

func (n *node) place(t *token.Token) {
	n.line, n.column, n.width = 1, 1, 1
	if t == nil {
		return
	}
	if t.Position != nil {
		n.line, n.column = max(t.Position.Line, 1), max(t.Position.Column, 1)
	}
	n.width = max(1, len([]rune(t.Value)))
}
