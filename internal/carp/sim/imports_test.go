package sim

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestPure holds that nothing but the seed decides: no clock, no other source of
// chance, nothing of the machine.
func TestPure(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources: %v", err)
	}
	allowed := []string{"encoding/binary", "errors", "fmt", "io", "bufio", "maps", "math", "math/big", "math/rand/v2",
		"net/netip", "slices", "strconv", "strings", "sync", "sync/atomic", "time", "github.com/xcarp/xcarp/internal/carp"}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			if path, _ := strconv.Unquote(i.Path.Value); !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", name, path)
			}
		}
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"time.Now(", "time.Since(", "time.Sleep(", "rand.Int", "rand.Uint", "rand.N(", "rand.Float", "rand.Perm("} {
			if strings.Contains(string(src), word) {
				t.Errorf("%s calls %s…", name, word)
			}
		}
	}
}
