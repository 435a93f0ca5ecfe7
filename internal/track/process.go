package track

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process asks whether a process runs: one of that name, or the one whose number
// is in a file. It is held by its pidfd, which is nobody else's when the number is
// used again, and which tells when the process ends.
type Process struct {
	name, pidFile string
	proc          string // /proc
	wake          func()
	held          *os.File // the pidfd; nil: none
	pid           int
}

// ByName watches for a process of that name: the kernel's name of it, which is the
// program's, cut at 15 bytes, or the one it was called by.
func ByName(name string) *Process { return &Process{name: name, proc: "/proc"} }

// ByPIDFile watches the process whose number is in the file.
func ByPIDFile(path string) *Process { return &Process{pidFile: path, proc: "/proc"} }

// Notify implements Notifier.
func (p *Process) Notify(wake func()) { p.wake = wake }

// Check implements Probe.
func (p *Process) Check(context.Context) (Reading, error) {
	if p.pidFile != "" {
		pid, err := readPID(p.pidFile)
		if err != nil {
			p.release()
			return Reading{}, err
		}
		if p.pid == pid && p.lives() {
			return Reading{}, nil
		}
		p.release()
		if !p.hold(pid) {
			return Reading{}, fmt.Errorf("process %d of %s does not run", pid, p.pidFile)
		}
		return Reading{}, nil
	}
	if p.lives() {
		return Reading{}, nil
	}
	p.release()
	dir, err := os.Open(p.proc)
	if err != nil {
		return Reading{}, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return Reading{}, fmt.Errorf("list processes: %w", err)
	}
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err == nil && p.called(pid) && p.hold(pid) {
			if p.called(pid) { // still, now that the number cannot change hands
				return Reading{}, nil
			}
			p.release()
		}
	}
	return Reading{}, fmt.Errorf("no process %s", p.name)
}

// called reports whether the process has the name.
func (p *Process) called(pid int) bool {
	folder := filepath.Join(p.proc, strconv.Itoa(pid))
	comm, err := os.ReadFile(filepath.Join(folder, "comm"))
	if err != nil {
		return false
	}
	const commMax = 15 // TASK_COMM_LEN, less the zero
	if strings.TrimSuffix(string(comm), "\n") == p.name[:min(len(p.name), commMax)] {
		return true
	}
	cmdline, err := os.ReadFile(filepath.Join(folder, "cmdline"))
	if err != nil {
		return false
	}
	argv0, _, _ := bytes.Cut(cmdline, []byte{0})
	return filepath.Base(string(argv0)) == p.name
}

// hold takes the process, if it runs: a zombie does not.
func (p *Process) hold(pid int) bool {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return false
	}
	p.held, p.pid = os.NewFile(uintptr(fd), "pidfd"), pid
	if !p.lives() {
		p.release()
		return false
	}
	if p.wake != nil {
		go wakeAtEnd(p.held, p.wake)
	}
	return true
}

// lives reports whether the held process has not ended.
func (p *Process) lives() bool {
	if p.held == nil {
		return false
	}
	c, err := p.held.SyscallConn()
	if err != nil {
		return false
	}
	over := true
	if err := c.Control(func(fd uintptr) { over = ended(int(fd)) }); err != nil {
		return false
	}
	return !over
}

func (p *Process) release() {
	if p.held != nil {
		p.held.Close() // ends wakeAtEnd, too
		p.held, p.pid = nil, 0
	}
}

// wakeAtEnd waits for the end of the process, or until the pidfd is closed.
func wakeAtEnd(pidfd *os.File, wake func()) {
	c, err := pidfd.SyscallConn()
	if err != nil {
		return
	}
	if c.Read(func(fd uintptr) bool { return ended(int(fd)) }) == nil {
		wake()
	}
}

// ended reports whether the process of the pidfd has.
func ended(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err != nil || n > 0
	}
}

func readPID(path string) (int, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("%s does not exist", path)
	}
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(b[:min(len(b), 64)]))
	pid, err := strconv.Atoi(text)
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("%s holds %q, not the number of a process", path, text)
	}
	return pid, nil
}
