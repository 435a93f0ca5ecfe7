package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"

	"github.com/xcarp/xcarp/internal/netns"
)

// dirPrefix begins the name of a lab's directory below the directory for
// temporary files; the maker's pid follows.
const dirPrefix = "xcarp-lab-"

// leftover finds the maker's pid in the names that a lab gives.
var leftover = regexp.MustCompile(`^(?:` + nsPrefix + `|` + dirPrefix + `)(\d+)-`)

// Sweep removes namespaces, pins and directories of labs whose maker is dead,
// and returns the names of what it removed. Daemons need no sweeping: they die
// with their maker.
func Sweep() ([]string, error) {
	var removed []string
	var errs []error
	for _, place := range []struct {
		glob   string
		remove func(path string) error
	}{
		{"/run/netns/" + nsPrefix + "*", func(path string) error {
			ns, err := netns.Open(filepath.Base(path))
			if err != nil {
				return os.Remove(path) // a name without a namespace
			}
			return ns.Close()
		}},
		{filepath.Join(pinRoot, pinPrefix+"*"), os.RemoveAll},
		{filepath.Join(os.TempDir(), dirPrefix+"*"), os.RemoveAll},
	} {
		paths, err := filepath.Glob(place.glob)
		errs = append(errs, err)
		for _, path := range paths {
			if !orphan(filepath.Base(path)) {
				continue
			}
			if err := place.remove(path); err != nil {
				errs = append(errs, fmt.Errorf("remove what an earlier run left, %s: %w", path, err))
				continue
			}
			removed = append(removed, path)
		}
	}
	return removed, errors.Join(errs...)
}

// orphan reports whether the name is one that a lab gives and its maker is dead.
func orphan(name string) bool {
	m := leftover.FindStringSubmatch(name)
	if m == nil {
		return false
	}
	pid, err := strconv.Atoi(m[1])
	if err != nil || pid <= 0 {
		return false
	}
	return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
