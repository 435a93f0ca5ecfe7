package lab

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// frrDir is where Debian and FRR's own packages put the daemons.
const frrDir = "/usr/lib/frr/"

// FRR returns FRR's vrrpd at 10 ms.
func FRR() System {
	return System{
		Name: "frr", Profile: "10ms",
		Check:   needs([2]string{frrDir + "vrrpd", "frr"}, [2]string{frrDir + "zebra", "frr"}, [2]string{"vtysh", "frr"}),
		Prepare: frrPrepare,
		Start:   frrStart,
		Status:  holds,
		Version: func() string { return firstLine(frrDir+"vrrpd", "--version") },
		Masters: func(log []byte) int { return bytes.Count(log, []byte("-> Master")) },
		Files:   []string{"vrrpd.conf"},
		// 3 intervals and (256 − priority)/256 of one, RFC 5798.
		MasterDown: 36 * time.Millisecond,
		Handover:   func(ctx context.Context, r *Node) error { return frrShutdown(ctx, r, "") },
		Takeback:   func(ctx context.Context, r *Node) error { return frrShutdown(ctx, r, "no ") },
		Restart:    stopAndStart(frrStart),
	}
}

// frrPrepare makes the macvlan devices as the documentation of vrrpd has them.
func frrPrepare(ctx context.Context, n *Net) error {
	for _, r := range n.Routers() {
		if err := settingOf(r).write("vrrpd.conf"); err != nil {
			return err
		}
		for _, dev := range []string{"eth0", "eth1"} {
			// Else the carrier's interface answers for the address of a macvlan that
			// is down, too: a backup with its own MAC.
			if err := r.NS.WriteSysctl("net/ipv4/conf/"+dev+"/arp_ignore", "1"); err != nil {
				return fmt.Errorf("keep %s of %s from answering for others: %w", dev, r.Name, err)
			}
		}
		for _, d := range []struct {
			name, dev, mac, addr string
		}{
			{"vrrp4-1", "eth0", "00:00:5e:00:01:01", SharedWAN + "/24"},
			{"vrrp6-1", "eth0", "00:00:5e:00:02:01", SharedWAN6 + "/64"},
			{"vrrp4-2", "eth1", "00:00:5e:00:01:02", SharedLAN + "/24"},
			{"vrrp6-2", "eth1", "00:00:5e:00:02:02", SharedLAN6 + "/64"},
		} {
			for _, args := range []string{
				"link add " + d.name + " link " + d.dev + " type macvlan mode bridge",
				"link set dev " + d.name + " addrgenmode random",
				"link set dev " + d.name + " address " + d.mac,
				"addr add " + d.addr + " dev " + d.name,
				"link set dev " + d.name + " up",
			} {
				if _, err := r.NS.Run(ctx, "ip", strings.Fields(args)...); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func frrStart(_ context.Context, r *Node) error {
	file := func(name string) string { return filepath.Join(r.Dir, name) }
	common := []string{"-z", file("zserv.api"), "--vty_socket", r.Dir, "-u", "root", "-g", "frrvty", "-P", "0", "--log", "stdout", "--log-level", "info"}
	zebra := append([]string{"-i", file("zebra.pid"), "-f", file("zebra.conf")}, common...)
	if err := r.StartAide("zebra", exec.Command(frrDir+"zebra", zebra...)); err != nil {
		return err
	}
	vrrpd := append([]string{"-i", file("vrrpd.pid"), "-f", file("vrrpd.conf")}, common...)
	return r.Start(exec.Command(frrDir+"vrrpd", vrrpd...))
}

// frrShutdown takes both virtual routers out of service, or into it again.
func frrShutdown(ctx context.Context, r *Node, no string) error {
	_, err := r.NS.Run(ctx, "vtysh", "--vty_socket", r.Dir, "-c", "configure terminal",
		"-c", "interface eth0", "-c", no+"vrrp 1 shutdown", "-c", "exit",
		"-c", "interface eth1", "-c", no+"vrrp 2 shutdown")
	if err != nil {
		return fmt.Errorf("tell vrrpd of %s: %w", r.Name, err)
	}
	return nil
}
