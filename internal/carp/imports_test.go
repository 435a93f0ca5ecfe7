package carp

import (
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestPure holds what doc.go promises.
func TestPure(t *testing.T) {
	forbidden := map[string]bool{"net": true, "os": true, "sync": true, "syscall": true, "log": true, "context": true}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		src, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), f.Name(), src, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range parsed.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			first, _, _ := strings.Cut(path, "/")
			if strings.Contains(first, ".") {
				t.Errorf("%s imports %s: not of the standard library", f.Name(), path)
			}
			if forbidden[path] || strings.HasPrefix(path, "log/") || strings.HasPrefix(path, "sync/") {
				t.Errorf("%s imports %s: not pure", f.Name(), path)
			}
		}
		for _, word := range []string{"time.Now", "time.After", "time.NewTimer", "time.Sleep", "time.Since"} {
			if strings.Contains(string(src), word+"(") {
				t.Errorf("%s calls %s: the time is an argument", f.Name(), word)
			}
		}
	}
}
