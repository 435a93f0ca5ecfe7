package daemon

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockRunDir makes this process the only daemon of a run-dir. The lock is the
// kernel's and ends with the process, however it ends.
func lockRunDir(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the run-dir: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the run-dir's lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: another xcarp daemon uses this run-dir: stop it, or give --run-dir", path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// Running says whether a daemon holds the run-dir.
func Running(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// lockCarpdev makes this process the only daemon on a carpdev, whatever its
// run-dir. Abstract sockets belong to a network namespace, as interfaces do,
// and end with the process.
func lockCarpdev(name string, ifindex int) (io.Closer, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("@xcarp/carpdev/%d", ifindex)})
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("carpdev %s: another xcarp daemon runs on it: stop it first", name)
	}
	if err != nil {
		return nil, fmt.Errorf("lock carpdev %s: %w", name, err)
	}
	return l, nil
}
