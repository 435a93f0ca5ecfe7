package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/xcarp/xcarp/internal/netns"
)

// Node is one host of the lab.
type Node struct {
	Name string
	NS   *netns.NS
	Dir  string // its files: config, run-dir, state-dir, log

	lab     *Net
	h       *netlink.Handle
	thread  chan func() // runs in the namespace, on a thread that lives as long as the node
	daemons []*daemon   // in the order of their start
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

// wipe does to the node's kernel what a power cycle does: the connection table
// and the shared addresses are gone, and so are programs and pins.
func (n *Node) wipe(ctx context.Context) error {
	errs := []error{n.h.ConntrackTableFlush(netlink.ConntrackTable)}
	for _, a := range [][2]string{{"eth0", SharedWAN}, {"eth0", SharedWAN6}, {"eth1", SharedLAN}, {"eth1", SharedLAN6}} {
		for _, bits := range []string{"/24", "/32", "/64", "/128"} {
			// Absent if the daemon cleaned up or the system does without.
			_, _ = n.NS.Run(ctx, "ip", "addr", "del", a[1]+bits, "dev", a[0])
		}
	}
	errs = append(errs, os.RemoveAll(n.PinDir()))
	return errors.Join(errs...)
}

func (n *Node) close() error {
	n.stop(2*time.Second, true)
	close(n.thread)
	n.h.Close()
	return n.NS.Close()
}
