package daemon

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// nice is the priority of the daemon's threads: on a busy machine the election's signs
// of life must not be late, or the peer takes the daemon for hung.
const nice = -15

// precede gives all threads that priority; those that they start later have it, too.
func precede() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("list own threads: %w", err)
	}
	var errs []error
	for _, t := range tasks {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, id, nice); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("set the priority of thread %d: %w", id, err))
		}
	}
	return errors.Join(errs...)
}
