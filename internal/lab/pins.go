package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// pinRoot is the BPF file system.
const pinRoot = "/sys/fs/bpf"

// pinPrefix begins the name of a node's pin directory; lab id and node follow.
const pinPrefix = "xcarp-lab-"

// PinDir is where the daemon of a node pins its programs and maps.
func (n *Node) PinDir() string { return filepath.Join(pinRoot, pinPrefix+n.lab.ID+"-"+n.Name) }

// removePins removes the pin directories of a lab, and with the pins the
// programs from interfaces that still exist.
func removePins(id string) error {
	dirs, err := filepath.Glob(filepath.Join(pinRoot, pinPrefix+id+"-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range dirs {
		errs = append(errs, os.RemoveAll(d))
	}
	return errors.Join(errs...)
}

// mountBPF mounts the BPF file system where it should be, as an init system does
// at boot; containers and small machines often lack it.
func (n *Net) mountBPF() error {
	var st unix.Statfs_t
	if err := unix.Statfs(pinRoot, &st); err == nil && st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", pinRoot, "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount -t bpf bpf %s: %w", pinRoot, err)
	}
	n.mounted = true
	return nil
}

// unmountBPF undoes mountBPF, unless somebody else has come to use it.
func (n *Net) unmountBPF() error {
	if !n.mounted {
		return nil
	}
	entries, err := os.ReadDir(pinRoot)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".debug") { // maps.debug, progs.debug: the kernel's own
			return nil
		}
	}
	if err := unix.Unmount(pinRoot, 0); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("unmount %s: %w", pinRoot, err)
	}
	n.mounted = false
	return nil
}
