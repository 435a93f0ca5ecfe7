// Package netns makes network namespaces and runs code and programs in them.
//
// A namespace is named as `ip netns` names it (a file under /run/netns), so
// everything made here can be looked at with iproute2 while it exists.
package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// NS is one named network namespace.
type NS struct {
	Name string
	fd   netns.NsHandle
}

// New makes the namespace and brings its loopback up. It fails if one of that
// name exists.
func New(name string) (*NS, error) {
	ns := &NS{Name: name}
	err := onThread(func() error {
		var err error
		if ns.fd, err = netns.NewNamed(name); err != nil {
			return fmt.Errorf("make network namespace %q: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = ns.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bring up loopback in %q: %w", name, err), ns.Close())
	}
	return ns, nil
}

// Open opens an existing namespace by name. Close of an opened namespace
// deletes the name, too: call Release to let go of it only.
func Open(name string) (*NS, error) {
	fd, err := netns.GetFromName(name)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %q: %w", name, err)
	}
	return &NS{Name: name, fd: fd}, nil
}

// Fd returns the descriptor of the namespace, as netlink.LinkSetNsFd wants it.
func (n *NS) Fd() int { return int(n.fd) }

// Release closes the descriptor and leaves the name.
func (n *NS) Release() error { return n.fd.Close() }

// Close deletes the name and lets go of the namespace. The kernel ends it, with
// its interfaces, when the last process and socket in it are gone.
func (n *NS) Close() error {
	return errors.Join(n.fd.Close(), netns.DeleteNamed(n.Name))
}

// Do runs f on a thread inside the namespace. Sockets opened by f stay in the
// namespace wherever they are used later; goroutines started by f do not.
func (n *NS) Do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.fd); err != nil {
			return fmt.Errorf("enter network namespace %q: %w", n.Name, err)
		}
		return f()
	})
}

// Start starts the command inside the namespace. Mounts are those of the
// caller, unlike under `ip netns exec`, which hides /sys/fs/bpf.
func (n *NS) Start(cmd *exec.Cmd) error {
	return n.Do(cmd.Start)
}

// Run runs a program inside the namespace and returns what it printed.
func (n *NS) Run(ctx context.Context, name string, arg ...string) ([]byte, error) {
	var out []byte
	err := n.Do(func() error {
		var err error
		out, err = exec.CommandContext(ctx, name, arg...).CombinedOutput()
		return err
	})
	if err != nil {
		return out, fmt.Errorf("%s %q in %s: %w: %s", name, arg, n.Name, err, out)
	}
	return out, nil
}

// WriteSysctl writes a value below /proc/sys as seen inside the namespace; key
// has slashes: net/ipv4/ip_forward.
func (n *NS) WriteSysctl(key, value string) error {
	return n.Do(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0o644) })
}

// onThread runs f on a thread of its own that ends with it, so that a changed
// namespace never leaks into another goroutine.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}
