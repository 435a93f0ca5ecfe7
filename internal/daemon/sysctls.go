package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/xcarp/xcarp/internal/ct"
)

// A daemon leaves the sysctls that it set as they are: the next one needs them, and
// connections of the last one live. What they were is kept in the run-dir until
// Detach, and forgotten by a reboot as the sysctls are.
func (p Paths) sysctls() string { return filepath.Join(p.Run, "sysctls.json") }

// rememberSysctls keeps what sysctls were before they were changed. What was kept
// before is older, and right.
func (p Paths) rememberSysctls(changed map[string]string) error {
	if len(changed) == 0 {
		return nil
	}
	was := map[string]string{}
	if b, err := os.ReadFile(p.sysctls()); err == nil {
		_ = json.Unmarshal(b, &was) // a broken file is as good as none
	}
	all := maps.Clone(changed)
	maps.Copy(all, was)
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.sysctls(), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("remember sysctls for xcarp detach: %w", err)
	}
	return nil
}

// restoreSysctls puts them back, and returns those that it changed.
func (p Paths) restoreSysctls() (restored []string, err error) {
	b, err := os.ReadFile(p.sysctls())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	was := map[string]string{}
	if err == nil {
		err = json.Unmarshal(b, &was)
	}
	if err != nil {
		return nil, fmt.Errorf("sysctls as they were: %w", err)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(was)) {
		done, err := ct.RestoreSysctl(name, was[name])
		if done {
			restored = append(restored, "sysctl "+name+"=1, which is "+was[name]+" again")
		}
		errs = append(errs, err)
	}
	return restored, errors.Join(append(errs, os.Remove(p.sysctls()))...)
}
