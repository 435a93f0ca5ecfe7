//go:build linux

// Command node is a router in a matrix guest. The guest's init runs it as it would run a
// test binary, in a directory with the program xcarp, its configuration, and the file
// addresses: a device and one of its addresses a line.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("node:", err)
		os.Exit(1)
	}
}

func run() error {
	b, err := os.ReadFile("addresses")
	if err != nil {
		return err
	}
	for line := range strings.Lines("lo 127.0.0.1/8\n" + string(b)) {
		dev, cidr, _ := strings.Cut(strings.TrimSpace(line), " ")
		l, err := netlink.LinkByName(dev)
		if err != nil {
			return fmt.Errorf("%s: %w", dev, err)
		}
		a, err := netlink.ParseAddr(cidr)
		if err != nil {
			return err
		}
		if err := netlink.AddrReplace(l, a); err != nil {
			return fmt.Errorf("give %s %s: %w", dev, cidr, err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("%s up: %w", dev, err)
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	args := []string{"xcarp", "run", "--config", "xcarp.yaml", "--run-dir", "/run/xcarp", "--state-dir", "/tmp/xcarp", "--pin-dir", "/sys/fs/bpf/xcarp"}
	return unix.Exec("./xcarp", args, os.Environ())
}
