package loader

import (
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
	private, err := privateMounts()
	if err != nil {
		return "", err
	}
	if !private {
		if err := mountBPFFS(dir); err != nil {
			return "", err
		}
		return dir, nil
	}
	outside := "/proc/1/root" + dir
	if !onBPFFS(outside) {
		if err := inMountsOf1(func() error { return mountBPFFS(dir) }); err != nil {
			return "", err
		}
	}
	return outside, nil
}

// findRoot is pinRoot for readers: it mounts nothing. "" means that there is none.
func findRoot(dir string) (string, error) {
	if dir == "" || !filepath.IsAbs(dir) {
		return "", fmt.Errorf("pin directory %q is not an absolute path", dir)
	}
	for _, path := range []string{filepath.Clean(dir), "/proc/1/root" + filepath.Clean(dir)} {
		if onBPFFS(path) {
			return path, nil
		}
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

// privateMounts reports whether our mount namespace is not that of process 1.
func privateMounts() (bool, error) {
	own, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		return false, fmt.Errorf("read own mount namespace: %w", err)
	}
	first, err := os.Readlink("/proc/1/ns/mnt")
	if err != nil {
		return false, fmt.Errorf("read mount namespace of process 1: %w", err)
	}
	return own != first, nil
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

// inMountsOf1 runs f on a thread in the mount namespace of process 1. The thread
// ends with f, so that nothing else ever runs there.
func inMountsOf1(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- func() error {
			ns, err := os.Open("/proc/1/ns/mnt")
			if err != nil {
				return fmt.Errorf("open mount namespace of process 1: %w", err)
			}
			defer ns.Close()
			// A thread that shares its working directory may not change
			// its mount namespace.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare working directory: %w", err)
			}
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("enter mount namespace of process 1: %w", err)
			}
			return f()
		}()
	}()
	return <-done
}
