package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/xcarp/xcarp/internal/netns"
)

// Node is one host of the lab.
type Node struct {
	Name string
	NS   *netns.NS
	Dir  string // its files: config, run-dir, state-dir, log

	lab    *Net
	h      *netlink.Handle
	thread chan func() // runs in the namespace, on a thread that lives as long as the node
	daemon *daemon
}

// daemon is a program that the node runs.
type daemon struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func newNode(lab *Net, name string) (*Node, error) {
	ns, h, err := openNS(nsPrefix + lab.ID + "-" + name)
	if err != nil {
		return nil, err
	}
	n := &Node{Name: name, NS: ns, Dir: filepath.Join(lab.Dir, name), lab: lab, h: h, thread: make(chan func())}
	go func() {
		_ = ns.Do(func() error {
			for f := range n.thread {
				f()
			}
			return nil
		})
	}()
	if err := os.Mkdir(n.Dir, 0o700); err != nil {
		return n, fmt.Errorf("make the directory of %s: %w", name, err)
	}
	return n, nil
}

// LogFile is where the output of the node's daemon goes.
func (n *Node) LogFile() string { return filepath.Join(n.Dir, "daemon.log") }

// Start starts the node's daemon, as an init system would: in the namespace,
// with its output in the log. The daemon dies with the lab, however that ends.
func (n *Node) Start(cmd *exec.Cmd) error {
	if n.running() {
		return fmt.Errorf("start the daemon of %s: one is running", n.Name)
	}
	log, err := os.OpenFile(n.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", n.Name, err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	// The signal comes when the starting *thread* ends, hence n.thread. A group
	// of its own, because Ctrl-C is for the lab only.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	n.thread <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return fmt.Errorf("start the daemon of %s: %w", n.Name, err)
	}
	d := &daemon{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(d.done)
	}()
	n.daemon = d
	return nil
}

// running reports whether the node's daemon has not ended.
func (n *Node) running() bool {
	if n.daemon == nil {
		return false
	}
	select {
	case <-n.daemon.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal to the node's daemon.
func (n *Node) Signal(sig syscall.Signal) error {
	if !n.running() {
		return fmt.Errorf("signal the daemon of %s: it is not running", n.Name)
	}
	if err := n.daemon.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal the daemon of %s: %w", n.Name, err)
	}
	return nil
}

// Stop ends the node's daemon: SIGTERM, and SIGKILL after the limit.
func (n *Node) Stop(limit time.Duration) {
	if !n.running() {
		return
	}
	p := n.daemon.cmd.Process
	_ = p.Signal(syscall.SIGCONT) // a stopped one could not hear us
	_ = p.Signal(syscall.SIGTERM)
	select {
	case <-n.daemon.done:
	case <-time.After(limit):
		_ = p.Kill()
		<-n.daemon.done
	}
}

// wipe does to the node's kernel what a power cycle does: the connection table
// and the shared addresses are gone, and so are programs and pins.
func (n *Node) wipe(ctx context.Context) error {
	errs := []error{n.h.ConntrackTableFlush(netlink.ConntrackTable)}
	for _, a := range [][2]string{
		{"eth0", SharedWAN + "/24"}, {"eth0", "2001:db8:1::1/64"}, {"eth1", SharedLAN + "/24"}, {"eth1", "fd00:1::1/64"},
	} {
		// Absent if the daemon cleaned up or the system does without.
		_, _ = n.NS.Run(ctx, "ip", "addr", "del", a[1], "dev", a[0])
	}
	errs = append(errs, os.RemoveAll(n.PinDir()))
	return errors.Join(errs...)
}

func (n *Node) close() error {
	n.Stop(2 * time.Second)
	close(n.thread)
	n.h.Close()
	return n.NS.Close()
}
