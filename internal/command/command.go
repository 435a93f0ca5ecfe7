package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrBusy means that the run before has been killed and has not ended: a process
// in an uninterruptible sleep ends when its device answers.
var ErrBusy = errors.New("the run before does not end, though it was killed")

const (
	path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

	// outputMax is how much of what a program prints is kept, in bytes.
	outputMax = 4096

	// lineMax is how much of its last line goes into an error.
	lineMax = 200

	// killTime is how long a killed program may take to end.
	killTime = time.Second
)

// Spec is what to run, and as whom.
type Spec struct {
	Argv     []string // the first is an absolute path
	UID, GID uint32
	Groups   []uint32 // supplementary
}

// Runner runs one program, never twice at the same time. Its methods are for one
// goroutine.
type Runner struct {
	spec Spec
	busy chan struct{} // nil, or closed when a killed run has ended
}

// NewRunner returns a Runner. Nothing runs yet.
func NewRunner(s Spec) *Runner { return &Runner{spec: s} }

// Run runs the program until it ends, or kills its process group when ctx is
// done. It gets PATH, LANG and env for its environment, nothing of the daemon's own;
// that may hold secrets. The error is nil if the exit status was 0; else it
// holds the last line that the program printed. It returns within a second of the
// end of ctx.
func (r *Runner) Run(ctx context.Context, env ...string) error {
	if r.busy != nil {
		select {
		case <-r.busy:
			r.busy = nil
		default:
			return ErrBusy
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	var out output
	cmd := exec.Command(r.spec.Argv[0], r.spec.Argv[1:]...)
	cmd.Env = append([]string{path, "LANG=C.UTF-8"}, env...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 100 * time.Millisecond // for those that left the group and keep the pipe
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if int(r.spec.UID) != unix.Geteuid() || int(r.spec.GID) != unix.Getegid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: r.spec.UID, Gid: r.spec.GID, Groups: r.spec.Groups}
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", r.spec.Argv[0], errors.Unwrap(err))
	}
	pid := cmd.Process.Pid
	exposeToOOM(pid)
	exited := make(chan struct{})
	go func() {
		awaitExit(pid)
		close(exited)
	}()
	expired := false
	select {
	case <-exited:
	case <-ctx.Done():
		expired = true
	}
	// The leader is not reaped yet, so its number is not another's.
	_ = unix.Kill(-pid, unix.SIGKILL)
	var waited error
	ended := make(chan struct{})
	go func() {
		waited = cmd.Wait()
		close(ended)
	}()
	late := time.NewTimer(killTime)
	defer late.Stop()
	select {
	case <-ended:
	case <-late.C:
		r.busy = ended
		return fmt.Errorf("killed after %v, and still there", time.Since(begun).Round(time.Millisecond))
	}
	if expired {
		why := "killed"
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			why = "timeout: killed"
		}
		return fmt.Errorf("%s after %v%s", why, time.Since(begun).Round(time.Millisecond), out.last())
	}
	var exit *exec.ExitError
	switch {
	case waited == nil, errors.Is(waited, exec.ErrWaitDelay):
		return nil
	case errors.As(waited, &exit):
		return fmt.Errorf("%s%s", exit.ProcessState, out.last())
	}
	return fmt.Errorf("wait for %s: %w", r.spec.Argv[0], waited)
}

// exposeToOOM takes the daemon's protection from the OOM killer away from a process: a
// program that eats the memory is to be killed first.
func exposeToOOM(pid int) {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("0"), 0) // or it has ended
}

// awaitExit returns when the process has ended, and leaves it to be reaped.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// output keeps the end of what a program prints.
type output struct{ b []byte }

func (o *output) Write(p []byte) (int, error) {
	o.b = append(o.b, p[max(0, len(p)-outputMax):]...)
	if over := len(o.b) - outputMax; over > 0 {
		o.b = append(o.b[:0], o.b[over:]...)
	}
	return len(p), nil
}

// last is the last line that says something, ready to be appended to an error.
func (o *output) last() string {
	lines := strings.Split(strings.TrimSpace(string(o.b)), "\n")
	s := strings.ToValidUTF8(lines[len(lines)-1], "?")
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s))
	if s == "" {
		return ""
	}
	if len(s) > lineMax {
		s = strings.ToValidUTF8(s[:lineMax], "") + "…"
	}
	return ": " + s
}
