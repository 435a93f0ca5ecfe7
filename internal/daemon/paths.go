package daemon

import (
	"fmt"
	"os"
	"path/filepath"
)

// Check refuses directories that must not be one: what a reboot forgets and what
// outlives it have files of the same names.
func (p Paths) Check() error {
	same := filepath.Clean(p.Run) == filepath.Clean(p.State)
	if run, err := os.Stat(p.Run); err == nil && !same {
		state, err := os.Stat(p.State)
		same = err == nil && os.SameFile(run, state)
	}
	if same {
		return fmt.Errorf("run-dir and state-dir are both %s: a reboot has to empty one and keep the other: give --run-dir or --state-dir", p.Run)
	}
	return nil
}
