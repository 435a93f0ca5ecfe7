//go:build linux

// Command init is the first process of a matrix guest: it mounts the pseudo file
// systems, loads the packed modules in order, runs every packed test binary,
// prints one marker that the host looks for, and powers off.
//
// The guest holds nothing else: no shell, no libc, no programs. Tests find
// XCARP_TEST_GUEST=1 in their environment and not XCARP_TEST_ROOT, so a test that
// needs an external program skips, and the host lists it.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// limit bounds one test binary; the host bounds the whole guest.
const limit = "540s"

func main() {
	mounts()
	modules("/modules.list")
	n, rc := tests("/tests.list")
	fmt.Printf("MATRIX-RESULT rc=%d packages=%d\n", rc, n)
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("init: power off:", err)
	}
	select {} // the first process must not return: the kernel would panic
}

func mounts() {
	for _, m := range []struct{ fstype, target string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"bpf", "/sys/fs/bpf"},
		{"tracefs", "/sys/kernel/tracing"},
		{"tmpfs", "/tmp"},
		{"tmpfs", "/run"}, // named network namespaces
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			fmt.Println("init:", err)
		}
		if err := unix.Mount(m.fstype, m.target, m.fstype, 0, ""); err != nil {
			fmt.Printf("init: mount %s: %v\n", m.target, err)
		}
	}
	// Kernel chatter would cut into the lines of the tests; errors still show.
	if err := os.WriteFile("/proc/sys/kernel/printk", []byte("4 4 1 4"), 0); err != nil {
		fmt.Println("init:", err)
	}
}

func modules(list string) {
	lines, err := read(list)
	if err != nil {
		fmt.Println("init:", err)
		return
	}
	for _, path := range lines {
		if err := insert(path); err != nil && !errors.Is(err, unix.EEXIST) {
			fmt.Printf("init: load %s: %v\n", path, err)
		}
	}
	fmt.Printf("init: %d modules\n", len(lines))
}

func insert(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// tests runs what the list names, "name TAB pattern" a line, and returns how many
// binaries ran and the first exit status that was not 0.
func tests(list string) (n, rc int) {
	lines, err := read(list)
	if err != nil {
		fmt.Println("init:", err)
		return 0, 1
	}
	for _, line := range lines {
		name, pattern, _ := strings.Cut(line, "\t")
		code := run(name, pattern)
		fmt.Printf("MATRIX-PACKAGE %s rc=%d\n", name, code)
		n++
		if rc == 0 {
			rc = code
		}
	}
	return n, rc
}

func run(name, pattern string) int {
	dir := filepath.Join("/tests", name)
	choice := "-test.run=" + pattern
	if skip, ok := strings.CutPrefix(pattern, "-"); ok {
		choice = "-test.skip=" + skip
	}
	cmd := exec.Command(filepath.Join(dir, "test"), "-test.v", "-test.timeout="+limit, choice)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	cmd.Env = []string{"HOME=/tmp", "TMPDIR=/tmp", "PATH=/bin", "XCARP_TEST_GUEST=1"}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Printf("init: run %s: %v\n", name, err)
		return 1
	}
	return 0
}

func read(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		lines = append(lines, s.Text())
	}
	return lines, s.Err()
}
