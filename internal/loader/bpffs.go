package loader

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const bpffsPath = "/sys/fs/bpf"

// pinRoot returns the path by which this process reaches the pin directory on a
// bpffs that outlives it. It mounts one where there is none: see the package's text.
func pinRoot(dir string) (string, error) {
	if dir == "" || !filepath.IsAbs(dir) {
		return "", fmt.Errorf("pin directory %q is not an absolute path", dir)
	}
	dir = filepath.Clean(dir)
	if onBPFFS(dir) {
		return dir, nil
	}
	proc, err := outside()
	if err != nil {
		return "", err
	}
	if proc == "" {
		if err := mountBPFFS(dir); err != nil {
			return "", err
		}
		return dir, nil
	}
	path := proc + "/root" + dir
	if !onBPFFS(path) {
		if err := inMountsOf(proc, func() error { return mountBPFFS(dir) }); err != nil {
			return "", err
		}
	}
	return path, nil
}

// findRoot is pinRoot for readers: it mounts nothing. "" means that there is none.
func findRoot(dir string) (string, error) {
	if dir == "" || !filepath.IsAbs(dir) {
		return "", fmt.Errorf("pin directory %q is not an absolute path", dir)
	}
	dir = filepath.Clean(dir)
	if onBPFFS(dir) {
		return dir, nil
	}
	proc, err := outside()
	if err != nil {
		return "", err
	}
	if path := proc + "/root" + dir; proc != "" && onBPFFS(path) {
		return path, nil
	}
	return "", nil
}

// onBPFFS reports whether the path, or the nearest folder above it that exists, is
// on a bpffs.
func onBPFFS(path string) bool {
	var fs unix.Statfs_t
	err := unix.Statfs(path, &fs)
	for errors.Is(err, unix.ENOENT) && path != "/" {
		path = filepath.Dir(path)
		err = unix.Statfs(path, &fs)
	}
	return err == nil && fs.Type == unix.BPF_FS_MAGIC
}

// outside returns the folder in /proc of the process whose mounts to use instead of
// our own, "" if ours will do. That is process 1 if our mount namespace is not its
// one. A process with capabilities that we lack does not let us look; then it is the
// nearest ancestor with another mount namespace than ours, which is who ran
// `ip netns exec`.
func outside() (string, error) {
	own, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		return "", fmt.Errorf("read own mount namespace: %w", err)
	}
	first, err := os.Readlink("/proc/1/ns/mnt")
	if err == nil && own == first {
		return "", nil
	}
	if err == nil {
		return "/proc/1", nil
	}
	if !errors.Is(err, os.ErrPermission) {
		return "", fmt.Errorf("read mount namespace of process 1: %w", err)
	}
	for pid := os.Getppid(); pid > 1; pid = parent(pid) {
		proc := fmt.Sprintf("/proc/%d", pid)
		ns, err := os.Readlink(proc + "/ns/mnt")
		if err != nil {
			break
		}
		if ns != own {
			return proc, nil
		}
	}
	return "", nil
}

// parent is the process's parent, 0 if it is gone.
func parent(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name may hold anything, even a parenthesis: look from the right.
	var state string
	var ppid int
	if _, err := fmt.Sscan(string(b[bytes.LastIndexByte(b, ')')+1:]), &state, &ppid); err != nil {
		return 0
	}
	return ppid
}

// mountBPFFS mounts a bpffs for the pin directory: at the customary place if the
// directory lies there, else at the directory itself.
func mountBPFFS(dir string) error {
	if onBPFFS(dir) {
		return nil
	}
	at := dir
	if dir == bpffsPath || strings.HasPrefix(dir, bpffsPath+"/") {
		at = bpffsPath
	}
	if err := os.MkdirAll(at, 0o700); err != nil {
		return fmt.Errorf("make mount point of the bpffs: %w", err)
	}
	if err := unix.Mount("bpf", at, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs on %s: %w", at, err)
	}
	return nil
}

// inMountsOf runs f on a thread in the mount namespace of another process, given by
// its folder in /proc. The thread ends with f, so that nothing else ever runs there.
func inMountsOf(proc string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- func() error {
			ns, err := os.Open(proc + "/ns/mnt")
			if err != nil {
				return fmt.Errorf("open mount namespace of %s: %w", proc, err)
			}
			defer ns.Close()
			// A thread that shares its working directory may not change
			// its mount namespace.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare working directory: %w", err)
			}
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("enter mount namespace of %s: %w", proc, err)
			}
			return f()
		}()
	}()
	return <-done
}
