package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// daemon is a program that the node runs.
type daemon struct {
	cmd  *exec.Cmd
	aide string        // its name, if it only serves the daemons that faults are made of
	done chan struct{} // closed when it has ended
}

func (d *daemon) ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// LogFile is where the output of the node's daemons goes.
func (n *Node) LogFile() string { return filepath.Join(n.Dir, "daemon.log") }

// Start starts the node's daemons, as an init system would: in the namespace,
// with their output in the log. They die with the lab, however that ends.
func (n *Node) Start(cmds ...*exec.Cmd) error {
	if n.running() {
		return fmt.Errorf("start the daemon of %s: one is running", n.Name)
	}
	n.daemons = slices.DeleteFunc(n.daemons, func(d *daemon) bool { return d.aide == "" })
	for _, cmd := range cmds {
		if err := n.launch(cmd, "", n.LogFile()); err != nil {
			return err
		}
	}
	return nil
}

// StartAide starts a program that the daemons need, unless one of that name is
// running. Faults of the daemon leave it alone, but for poweroff.
func (n *Node) StartAide(name string, cmd *exec.Cmd) error {
	for i, d := range n.daemons {
		if d.aide == name {
			if !d.ended() {
				return nil
			}
			n.daemons = slices.Delete(n.daemons, i, i+1)
			break
		}
	}
	return n.launch(cmd, name, filepath.Join(n.Dir, name+".log"))
}

func (n *Node) launch(cmd *exec.Cmd, aide, logFile string) error {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open a log of %s: %w", n.Name, err)
	}
	defer log.Close()
	cmd.Dir = n.Dir
	cmd.Stdout, cmd.Stderr = log, log
	// The signal comes when the starting *thread* ends, hence n.thread. A group
	// of its own, because Ctrl-C is for the lab only.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	n.thread <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return fmt.Errorf("start %s of %s: %w", filepath.Base(cmd.Path), n.Name, err)
	}
	d := &daemon{cmd: cmd, aide: aide, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(d.done)
	}()
	n.daemons = append(n.daemons, d)
	return nil
}

// running reports whether the node has daemons and none of them has ended.
func (n *Node) running() bool {
	found := false
	for _, d := range n.daemons {
		if d.aide != "" {
			continue
		}
		if d.ended() {
			return false
		}
		found = true
	}
	return found
}

// pids are the processes that a signal concerns. A daemon is told to stop by its
// first process alone; to a kill or a stop belong those that it made. all says
// that its aides are concerned, too.
func (n *Node) pids(sig syscall.Signal, all bool) ([]int, error) {
	var pids []int
	for _, d := range n.daemons {
		if !d.ended() && (all || d.aide == "") {
			pids = append(pids, d.cmd.Process.Pid)
		}
	}
	if len(pids) == 0 {
		return nil, fmt.Errorf("signal the daemon of %s: it is not running", n.Name)
	}
	if sig == syscall.SIGTERM {
		return pids, nil
	}
	return withChildren(pids)
}

// withChildren adds the processes that were made by those given.
func withChildren(pids []int) ([]int, error) {
	children := map[int][]int{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		// pid (name) state ppid, and the name may hold anything
		fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if err != nil || len(fields) < 2 {
			continue
		}
		if ppid, err := strconv.Atoi(string(fields[1])); err == nil {
			children[ppid] = append(children[ppid], pid)
		}
	}
	for i := 0; i < len(pids); i++ { // grows
		pids = append(pids, children[pids[i]]...)
	}
	return pids, nil
}

// kill sends a signal to processes; those that have ended do not mind.
func kill(pids []int, sig syscall.Signal) error {
	var errs []error
	for _, p := range pids {
		if err := syscall.Kill(p, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("signal process %d: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// Signal sends a signal to the node's daemons.
func (n *Node) Signal(sig syscall.Signal) error {
	pids, err := n.pids(sig, false)
	if err != nil {
		return err
	}
	return kill(pids, sig)
}

// Stop ends the node's daemons: SIGTERM, and SIGKILL after the limit.
func (n *Node) Stop(limit time.Duration) { n.stop(limit, false) }

func (n *Node) stop(limit time.Duration, all bool) {
	pids, err := n.pids(syscall.SIGKILL, all)
	if err != nil {
		return // nothing runs
	}
	_ = kill(pids, syscall.SIGCONT) // a stopped one could not hear us
	if first, err := n.pids(syscall.SIGTERM, all); err == nil && limit > 0 {
		_ = kill(first, syscall.SIGTERM)
	}
	over := time.After(limit)
	for _, d := range n.daemons {
		if !all && d.aide != "" {
			continue
		}
		select {
		case <-d.done:
		case <-over:
			_ = kill(pids, syscall.SIGKILL)
			over = nil // it comes once
			<-d.done
		}
	}
}

// ended waits for the end of the daemons.
func (n *Node) ended(ctx context.Context, limit time.Duration) error {
	over := time.After(limit)
	for _, d := range n.daemons {
		if d.aide != "" {
			continue
		}
		select {
		case <-d.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-over:
			return fmt.Errorf("the daemon of %s did not end within %v", n.Name, limit)
		}
	}
	return nil
}
