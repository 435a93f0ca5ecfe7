package test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// A host is a machine on the LAN or WAN that runs nothing of ours.
type host struct{ *nstest.NS }

func vMAC(vhid int) string { return fmt.Sprintf("00:00:5e:00:01:%02x", vhid) }

// neighbour makes the host resolve the address and returns what it learnt.
func (h host) neighbour(tb testing.TB, addr string) string {
	tb.Helper()
	h.Exec("ip", "neigh", "flush", "dev", "eth0")
	var mac string
	nstest.Eventually(tb, 10*time.Second, h.Name+" resolves "+addr, func() bool {
		_, _ = h.Run(tb.Context(), "ping", "-c1", "-W1", addr)
		h.Must(func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			neighs, err := netlink.NeighList(l.Attrs().Index, netlink.FAMILY_ALL)
			if err != nil {
				return err
			}
			for _, n := range neighs {
				if n.IP.String() == addr && len(n.HardwareAddr) == 6 {
					mac = strings.ToLower(n.HardwareAddr.String())
				}
			}
			return nil
		})
		return mac != ""
	})
	return mac
}

// udp returns a function that sends a datagram, always on the same flow.
func (h host) udp(tb testing.TB, to string) func() {
	tb.Helper()
	var c net.Conn
	h.Must(func() (err error) { c, err = net.Dial("udp", to); return err })
	tb.Cleanup(func() { c.Close() })
	return func() {
		if _, err := c.Write([]byte("busy")); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			tb.Fatal(err)
		}
	}
}

// foreignXDP puts a program that is not ours onto an interface of the node.
func foreignXDP(tb testing.TB, n *node, dev string) {
	tb.Helper()
	n.ns.Must(func() error {
		i, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name:         "foreign",
			Type:         ebpf.XDP,
			License:      "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2 /* XDP_PASS */), asm.Return()},
		})
		if err != nil {
			return err
		}
		l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: i.Index})
		if err != nil {
			return err
		}
		tb.Cleanup(func() { l.Close(); prog.Close() })
		return nil
	})
}
