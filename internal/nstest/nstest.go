// Package nstest builds small networks of namespaces for tests.
package nstest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/xcarp/xcarp/internal/netns"
)

// RequireRoot skips the test without root. With XCARP_TEST_ROOT=1, as in CI,
// that skip is a failure.
func RequireRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() == 0 {
		return
	}
	Skip(tb, "needs root")
}

// RequireProgram skips the test, or fails it in CI, when a program is missing.
func RequireProgram(tb testing.TB, name string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Skip(tb, "needs the program "+name)
	}
	return path
}

// Skip skips the test for want of something that CI must have.
func Skip(tb testing.TB, why string) {
	tb.Helper()
	if os.Getenv("XCARP_TEST_ROOT") == "1" {
		tb.Fatalf("%s, and XCARP_TEST_ROOT=1 forbids to skip", why)
	}
	tb.Skip(why)
}

var serial atomic.Uint32

// NS is a namespace that fails the test by itself.
type NS struct {
	*netns.NS
	tb testing.TB
}

// New makes a namespace that ends with the test. hint is part of its name.
func New(tb testing.TB, hint string) *NS {
	tb.Helper()
	RequireRoot(tb)
	n, err := netns.New(fmt.Sprintf("xt%d-%d-%s", os.Getpid(), serial.Add(1), hint))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := n.Close(); err != nil {
			tb.Error(err)
		}
	})
	return &NS{NS: n, tb: tb}
}

// Must runs f on a thread inside the namespace and fails the test on an error.
func (n *NS) Must(f func() error) {
	n.tb.Helper()
	if err := n.Do(f); err != nil {
		n.tb.Fatalf("in %s: %v", n.Name, err)
	}
}

// Exec runs a program inside the namespace, fails the test if it fails, and
// returns what it printed. A program that is missing is as in RequireProgram.
func (n *NS) Exec(name string, arg ...string) string {
	n.tb.Helper()
	RequireProgram(n.tb, name)
	ctx, cancel := context.WithTimeout(n.tb.Context(), 30*time.Second)
	defer cancel()
	out, err := n.Run(ctx, name, arg...)
	if err != nil {
		n.tb.Fatal(err)
	}
	return string(out)
}

// Sysctl writes a value below /proc/sys; key has slashes.
func (n *NS) Sysctl(key, value string) {
	n.tb.Helper()
	if err := n.WriteSysctl(key, value); err != nil {
		n.tb.Fatal(err)
	}
}

// Veth joins a and b by a veth pair with the given interface names, both up,
// and waits until both ends have carrier.
func Veth(tb testing.TB, a *NS, aName string, b *NS, bName string) {
	tb.Helper()
	a.Must(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: aName},
			PeerName:      bName,
			PeerNamespace: netlink.NsFd(b.Fd()),
		})
	})
	for _, end := range []struct {
		ns   *NS
		name string
	}{{a, aName}, {b, bName}} {
		end.ns.Must(func() error {
			l, err := netlink.LinkByName(end.name)
			if err != nil {
				return err
			}
			return netlink.LinkSetUp(l)
		})
	}
	a.WaitUp(aName)
	b.WaitUp(bName)
}

// Bridge makes a bridge in n, up, without multicast snooping.
func (n *NS) Bridge(name string) {
	n.tb.Helper()
	n.Must(func() error {
		off := false
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}, MulticastSnooping: &off}
		if err := netlink.LinkAdd(br); err != nil {
			return err
		}
		return netlink.LinkSetUp(br)
	})
}

// Plug joins host to a bridge in n: host gets the interface name, the bridge
// the port hostname-name. It returns the port's name.
func (n *NS) Plug(bridge string, host *NS, name string) string {
	n.tb.Helper()
	port := fmt.Sprintf("p%d", serial.Add(1))
	Veth(n.tb, n, port, host, name)
	n.Must(func() error {
		br, err := netlink.LinkByName(bridge)
		if err != nil {
			return err
		}
		p, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(p, br)
	})
	return port
}

// Addr adds an address, without duplicate address detection.
func (n *NS) Addr(dev, cidr string) {
	n.tb.Helper()
	n.Must(func() error {
		l, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(cidr)
		if err != nil {
			return err
		}
		a.Flags |= 0x02 // IFA_F_NODAD
		return netlink.AddrAdd(l, a)
	})
}

// WaitUp waits until the interface is operationally up. A frame sent earlier
// can be lost.
func (n *NS) WaitUp(dev string) {
	n.tb.Helper()
	Eventually(n.tb, 10*time.Second, dev+" up in "+n.Name, func() bool {
		var up bool
		n.Must(func() error {
			l, err := netlink.LinkByName(dev)
			if err == nil {
				up = l.Attrs().OperState == netlink.OperUp
			}
			return err
		})
		return up
	})
}

// Eventually polls until ok holds and fails the test after the limit. Use it
// only where there is no event to wait for.
func Eventually(tb testing.TB, limit time.Duration, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
