package loader

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/nstest"
)

// pinDir is a bpffs of the test's own.
func pinDir(t *testing.T) string {
	t.Helper()
	nstest.RequireRoot(t)
	dir := t.TempDir()
	if err := mountBPFFS(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "xcarp")
}

// lan is a node and a client on one veth.
type lan struct {
	node, client *nstest.NS
	dir          string
	port         *Port
}

const (
	nodeDev   = "eth0.7" // a dot, as VLAN interfaces have it
	clientDev = "eth0"
)

func newLAN(t *testing.T) *lan {
	t.Helper()
	l := &lan{dir: pinDir(t), node: nstest.New(t, "node"), client: nstest.New(t, "client")}
	for _, n := range []*nstest.NS{l.node, l.client} {
		n.Sysctl("net/ipv6/conf/default/accept_dad", "0") // else the first second has no link-local address
	}
	nstest.Veth(t, l.node, nodeDev, l.client, clientDev)
	l.node.Addr(nodeDev, own4.String()+"/24")
	l.node.Addr(nodeDev, "2001:db8::2/64")
	l.client.Addr(clientDev, client4.String()+"/24")
	l.client.Addr(clientDev, client6.String()+"/64")
	return l
}

// open opens the port, with one group, and closes it with the test.
func (l *lan) open(t *testing.T, o Options) *Port {
	t.Helper()
	o.PinDir = l.dir
	l.node.Must(func() error {
		var err error
		l.port, err = Open(nodeDev, o)
		return err
	})
	p := l.port
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.SetGroup(testVHID, []netip.Addr{shared4, shared6}); err != nil {
		t.Fatal(err)
	}
	return p
}

func (l *lan) set(t *testing.T, s carp.State, d time.Duration) {
	t.Helper()
	r := carp.Role{State: s}
	if s > carp.Backup {
		r.Until = carp.BootTime(bootNow() + d)
	}
	l.port.Role(testVHID)
	if err := l.port.SetRole(testVHID, r); err != nil {
		t.Fatal(err)
	}
}

// own makes the shared addresses local, as the daemon of a master does.
func (l *lan) own() {
	l.node.Addr(nodeDev, shared4.String()+"/32")
	l.node.Addr(nodeDev, shared6.String()+"/128")
}

// resolve has the client's stack ask for the address, once, and returns the MAC that
// it learned within the limit, "" for none.
func (l *lan) resolve(t *testing.T, a netip.Addr, limit time.Duration) string {
	t.Helper()
	var mac string
	l.client.Must(func() error {
		dev, err := netlink.LinkByName(clientDev)
		if err != nil {
			return err
		}
		index, family := dev.Attrs().Index, netlink.FAMILY_V4
		if a.Is6() {
			family = netlink.FAMILY_V6
		}
		// Forget it, then NTF_USE: the kernel asks.
		_ = netlink.NeighDel(&netlink.Neigh{LinkIndex: index, Family: family, IP: a.AsSlice()})
		err = netlink.NeighSet(&netlink.Neigh{LinkIndex: index, Family: family, IP: a.AsSlice(), Flags: netlink.NTF_USE})
		if err != nil {
			return err
		}
		for start := time.Now(); time.Since(start) < limit; time.Sleep(time.Millisecond) {
			neighs, err := netlink.NeighList(index, family)
			if err != nil {
				return err
			}
			for _, n := range neighs {
				if n.IP.Equal(a.AsSlice()) && n.State&(netlink.NUD_REACHABLE|netlink.NUD_STALE|netlink.NUD_DELAY|netlink.NUD_PROBE) != 0 {
					mac = n.HardwareAddr.String()
					return nil
				}
			}
		}
		return nil
	})
	return mac
}

func (l *lan) ping(ctx *testing.T, n *nstest.NS, arg ...string) error {
	out, err := n.Run(ctx.Context(), "ping", append([]string{"-n", "-c", "3", "-i", "0.05", "-W", "2"}, arg...)...)
	if err == nil && !strings.Contains(string(out), " 3 received") {
		err = fmt.Errorf("%s", out)
	}
	return err
}

// serves checks what a master's dataplane has to do.
func (l *lan) serves(t *testing.T) {
	t.Helper()
	vm := vmac(testVHID).String()
	for _, a := range []netip.Addr{shared4, shared6} {
		// An answer that got stuck takes a quarter of a second, or the
		// second question. The best of three forgives a busy machine.
		best := time.Hour
		for range 3 {
			start := time.Now()
			if mac := l.resolve(t, a, 3*time.Second); mac != vm {
				t.Errorf("client learned %q for %s, want %s", mac, a, vm)
			}
			best = min(best, time.Since(start))
		}
		if best > 200*time.Millisecond {
			t.Errorf("%s resolved in %v at best", a, best)
		}
		t.Logf("%s resolved in %v", a, best)
	}
	l.own()
	if err := l.ping(t, l.client, shared4.String()); err != nil {
		t.Error(err)
	}
	if err := l.ping(t, l.client, "-6", shared6.String()); err != nil {
		t.Error(err)
	}
}

// silent checks that nothing answers: 100 each of ARP, NS and echo.
func (l *lan) silent(t *testing.T) {
	t.Helper()
	vm := vmac(testVHID)
	var frames [][]byte
	l.client.Must(func() error {
		dev, err := netlink.LinkByName(clientDev)
		if err != nil {
			return err
		}
		mac := dev.Attrs().HardwareAddr
		echo := cat([]byte{8, 0, 0, 0, 0, 1, 0, 1}, make([]byte, 8))
		sum := checksum(echo)
		echo[2], echo[3] = byte(sum>>8), byte(sum)
		frames = [][]byte{
			arp(broadcast, mac, 1, mac, client4, noMAC, shared4),
			ethernet(solicitedNode(shared6), mac, 0x86dd, icmp6(client6, solicitedNodeAddr(shared6), 255, ns(shared6, sourceLLA(mac)))),
			ethernet(vm, mac, 0x0800, ipv4(client4, shared4, 1, 64, echo)),
			ethernet(l.port.HardwareAddr(), mac, 0x0800, ipv4(client4, shared4, 1, 64, echo)),
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK, int(uint16(unix.ETH_P_ALL)<<8|uint16(unix.ETH_P_ALL)>>8))
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		to := &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: dev.Attrs().Index}
		if err := unix.Bind(fd, to); err != nil {
			return err
		}
		answers := 0
		drain := func() {
			buf := make([]byte, 2048)
			for {
				n, from, err := unix.Recvfrom(fd, buf, 0)
				if err != nil {
					return
				}
				if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING {
					continue
				}
				// From the virtual MAC, or speaking for a shared address?
				if string(buf[6:12]) == string(vm) || strings.Contains(string(buf[14:n]), string(shared4.AsSlice())) ||
					strings.Contains(string(buf[14:n]), string(shared6.AsSlice())) {
					answers++
					t.Logf("answer: %x", buf[:n])
				}
			}
		}
		for range 100 {
			for _, f := range frames {
				if err := unix.Sendto(fd, f, 0, to); err != nil {
					return err
				}
			}
			drain()
		}
		time.Sleep(400 * time.Millisecond) // what would be late is an answer, too: no event to wait for
		drain()
		if answers != 0 {
			t.Errorf("%d answers, want 0", answers)
		}
		return nil
	})
}

func requirePrograms(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		nstest.RequireProgram(t, name)
	}
}

// modes are the ways to be attached, and what each must report.
var modes = []struct {
	name   string
	o      Options
	pass   bool // an XDP program at the far end
	mode   Mode
	answer string
}{
	{"native", Options{}, true, Native, "xdp"},
	{"native without a program at the far end", Options{}, false, Native, "tc"},
	{"generic", Options{Mode: Generic}, false, Generic, "xdp"},
	{"tc", Options{Mode: TC}, false, TC, "tc"},
	{"native and clsact", Options{clsact: true}, true, Native, "xdp"},
	{"tc by clsact", Options{Mode: TC, clsact: true}, false, TC, "tc"},
}

func TestRolesOnTheWire(t *testing.T) {
	requirePrograms(t, "ip", "ping")
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			l := newLAN(t)
			if m.pass {
				l.client.Must(func() error { return AttachPass(clientDev) })
			}
			p := l.open(t, m.o)
			if p.Mode() != m.mode || p.Answer() != m.answer {
				t.Fatalf("mode %s, answer %s; want %s, %s", p.Mode(), p.Answer(), m.mode, m.answer)
			}
			l.set(t, carp.Backup, 0)
			l.silent(t)

			l.set(t, carp.Master, time.Minute)
			l.serves(t)

			// What the router's own stack says about the shared address.
			l.client.Exec("ip", "neigh", "flush", "dev", clientDev)
			l.node.Exec("ip", "neigh", "flush", "dev", nodeDev)
			if err := l.ping(t, l.node, "-I", shared4.String(), client4.String()); err != nil {
				t.Error(err)
			}
			if err := l.ping(t, l.node, "-6", "-I", shared6.String(), client6.String()); err != nil {
				t.Error(err)
			}
			neigh := l.client.Exec("ip", "neigh", "show", "dev", clientDev)
			for line := range strings.Lines(neigh) {
				if (strings.HasPrefix(line, shared4.String()+" ") || strings.HasPrefix(line, shared6.String()+" ")) &&
					!strings.Contains(line, vmac(testVHID).String()) {
					t.Errorf("client learned %s", line)
				}
			}
			if n := strings.Count(neigh, vmac(testVHID).String()); n != 2 {
				t.Errorf("client's neighbours:\n%swant the virtual MAC twice", neigh)
			}

			// The lease ends, and nobody tells the kernel; the addresses stay.
			l.set(t, carp.Master, 150*time.Millisecond)
			nstest.Eventually(t, 5*time.Second, "the lease ends", func() bool { return p.Role(testVHID).State != carp.Master })
			l.silent(t)
		})
	}
}

func TestReopenAdoptsRoleAndLink(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			l := newLAN(t)
			p := l.open(t, m.o)
			l.set(t, carp.Master, time.Minute)
			want := p.Role(testVHID)
			ids := l.links(t)
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			pinned, err := Pinned(l.dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(pinned) != 1 || pinned[0].Ifname != nodeDev || pinned[0].Roles[testVHID] != want {
				t.Fatalf("pinned: %+v, want %s with role %+v", pinned, nodeDev, want)
			}
			if mac := l.resolve(t, shared4, 3*time.Second); mac != vmac(testVHID).String() {
				t.Errorf("with nobody there the client learned %q", mac)
			}
			p = l.open(t, m.o)
			if got := p.Role(testVHID); got != want {
				t.Errorf("role: got %+v, want %+v", got, want)
			}
			if got := l.links(t); got != ids {
				t.Errorf("links: got %s, want %s", got, ids)
			}
			if p.Mode() != m.mode {
				t.Errorf("mode: got %s, want %s", p.Mode(), m.mode)
			}
			l.node.Must(p.Renew)
			if got := l.links(t); got != ids {
				t.Errorf("links after Renew: got %s, want %s", got, ids)
			}
			if got := p.Role(testVHID); got != want {
				t.Errorf("role after Renew: got %+v, want %+v", got, want)
			}
			if mac := l.resolve(t, shared4, 3*time.Second); mac != vmac(testVHID).String() {
				t.Errorf("with renewed programs the client learned %q", mac)
			}
		})
	}
}

// links lists the ids of the pinned links.
func (l *lan) links(t *testing.T) string {
	t.Helper()
	var ids []string
	for _, name := range carpdev.links {
		pinned, err := link.LoadPinnedLink(filepath.Join(portDir(l.dir, nodeDev), name), nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		info, err := pinned.Info()
		if err != nil {
			t.Fatal(err)
		}
		pinned.Close()
		ids = append(ids, fmt.Sprint(name, info.ID))
	}
	return strings.Join(ids, " ")
}

// onDevice is everything that Detach has to take off.
func (l *lan) onDevice(t *testing.T) string {
	t.Helper()
	return l.node.Exec("sh", "-c", "ip -d link show dev "+nodeDev+" | grep -o 'prog/xdp\\|promiscuity [0-9]*'; tc qdisc show dev "+nodeDev+" clsact; "+
		"tc filter show dev "+nodeDev+" ingress; tc filter show dev "+nodeDev+" egress; bridge fdb show dev "+nodeDev+" | grep -i '5e:00:01\\|33:33:ff:01:23:45'; bpftool net show dev "+nodeDev)
}

func TestDetachLeavesNothing(t *testing.T) {
	requirePrograms(t, "sh", "ip", "tc", "bridge", "bpftool")
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			l := newLAN(t)
			before := l.onDevice(t)
			p := l.open(t, m.o)
			l.set(t, carp.Master, time.Minute)
			if during := l.onDevice(t); during == before {
				t.Fatal("cannot see the difference that an open port makes")
			}
			l.node.Must(func() error {
				if _, err := Detach(l.dir, false); !errors.Is(err, ErrMaster) {
					return fmt.Errorf("detach of a master: got %v, want ErrMaster", err)
				}
				removed, err := Detach(l.dir, true)
				t.Log(removed)
				return err
			})
			if after := l.onDevice(t); after != before {
				t.Errorf("left behind:\n%s\nwant\n%s", after, before)
			}
			entries, err := os.ReadDir(l.dir)
			if !errors.Is(err, os.ErrNotExist) {
				t.Errorf("pins left: %v, %v", entries, err)
			}
			if s := p.Role(testVHID).State; s == carp.Master {
				t.Error("still MASTER after detach")
			}
		})
	}
}

func TestForeignXDPIsRefused(t *testing.T) {
	l := newLAN(t)
	l.node.Must(func() error { return AttachPass(nodeDev) })
	for _, mode := range []Mode{Auto, Native, Generic} {
		l.node.Must(func() error {
			p, err := Open(nodeDev, Options{PinDir: l.dir, Mode: mode})
			if err == nil {
				p.Close()
				return errors.New("a foreign program was replaced")
			}
			if !strings.Contains(err.Error(), `"pass"`) || !strings.Contains(err.Error(), "xdp off") {
				return fmt.Errorf("error neither names the program nor says what to do: %w", err)
			}
			return nil
		})
		if entries, _ := os.ReadDir(l.dir); len(entries) != 0 {
			t.Errorf("pins left by a refused open: %v", entries)
		}
	}
	if p := l.open(t, Options{Mode: TC}); p.Mode() != TC {
		t.Errorf("mode %s beside a foreign program, want tc", p.Mode())
	}
}

func TestInterfaceMadeAnew(t *testing.T) {
	for _, clsact := range []bool{false, true} {
		t.Run(fmt.Sprint("clsact ", clsact), func(t *testing.T) {
			l := newLAN(t)
			l.open(t, Options{clsact: clsact})
			l.set(t, carp.Master, time.Minute)
			l.port.Close()
			l.node.Must(func() error {
				dev, err := netlink.LinkByName(nodeDev)
				if err != nil {
					return err
				}
				return netlink.LinkDel(dev)
			})
			nstest.Veth(t, l.node, nodeDev, l.client, clientDev)
			p := l.open(t, Options{clsact: clsact})
			if got := p.Role(testVHID); got.State == carp.Master {
				t.Errorf("role on a new interface: %v", got)
			}
			if p.Mode() != Native {
				t.Errorf("mode %s, want native", p.Mode())
			}
		})
	}
}

func TestPinsOfAnotherNamespaceAreLeftAlone(t *testing.T) {
	l := newLAN(t)
	l.open(t, Options{})
	other, far := nstest.New(t, "other"), nstest.New(t, "far")
	nstest.Veth(t, other, nodeDev, far, clientDev)
	other.Must(func() error {
		p, err := Open(nodeDev, Options{PinDir: l.dir})
		if err == nil {
			p.Close()
			return errors.New("pins of another namespace were adopted")
		}
		return nil
	})
	l.set(t, carp.Master, time.Minute)
	if mac := l.resolve(t, shared4, 3*time.Second); mac != vmac(testVHID).String() {
		t.Errorf("after that the client learned %q", mac)
	}
}

func TestAnotherLayoutIsMadeAnew(t *testing.T) {
	l := newLAN(t)
	p := l.open(t, Options{})
	l.set(t, carp.Master, time.Minute)
	if err := p.maps.updatePort(func(port *xdpPort) { port.Layout = 99 }); err != nil {
		t.Fatal(err)
	}
	p.Close()
	if p = l.open(t, Options{}); p.Role(testVHID).State == carp.Master {
		t.Error("a role was read from a map of another layout")
	}
}

func TestAnswerPathFollowsTheFarEnd(t *testing.T) {
	requirePrograms(t, "ip")
	l := newLAN(t)
	p := l.open(t, Options{})
	l.set(t, carp.Master, time.Minute)
	for _, step := range []struct {
		do   []string
		want string
	}{
		{nil, "tc"},
		{[]string{"attach"}, "xdp"},
		{[]string{"ip", "link", "set", "dev", clientDev, "xdp", "off"}, "tc"},
	} {
		if len(step.do) == 1 {
			l.client.Must(func() error { return AttachPass(clientDev) })
		} else if step.do != nil {
			l.client.Exec(step.do[0], step.do[1:]...)
		}
		l.node.Must(p.Recheck)
		if p.Answer() != step.want {
			t.Errorf("after %v: answer %s, want %s", step.do, p.Answer(), step.want)
		}
		start := time.Now()
		if mac := l.resolve(t, shared4, 3*time.Second); mac != vmac(testVHID).String() {
			t.Errorf("client learned %q", mac)
		}
		if d := time.Since(start); d > 200*time.Millisecond {
			t.Errorf("answer after %v: stuck", d)
		}
	}
}

func TestJumboFrames(t *testing.T) {
	requirePrograms(t, "ip", "ping")
	l := newLAN(t)
	l.node.Exec("ip", "link", "set", "dev", nodeDev, "mtu", "9000")
	l.client.Exec("ip", "link", "set", "dev", clientDev, "mtu", "9000")
	p := l.open(t, Options{Mode: Native})
	l.set(t, carp.Master, time.Minute)
	l.serves(t)
	if err := l.ping(t, l.client, "-s", "8000", shared4.String()); err != nil {
		t.Error(err)
	}
	if p.Mode() != Native {
		t.Errorf("mode %s, want native", p.Mode())
	}
}

// An `ip netns exec` child has a mount namespace of its own. What it pins has to
// survive its death.
func TestPinsSurviveIPNetnsExec(t *testing.T) {
	if dir := os.Getenv("XCARP_TEST_PIN"); dir != "" {
		p, err := Open(nodeDev, Options{PinDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.SetGroup(testVHID, []netip.Addr{shared4, shared6}); err != nil {
			t.Fatal(err)
		}
		if err := p.SetRole(testVHID, carp.Role{State: carp.Master, Until: carp.BootTime(bootNow() + time.Minute)}); err != nil {
			t.Fatal(err)
		}
		return // and die, without Close
	}
	ip := nstest.RequireProgram(t, "ip")
	l := newLAN(t)
	// At the customary place, where the child's sysfs hides ours.
	name := fmt.Sprintf("xcarp-test-%d", os.Getpid())
	dir := filepath.Join(bpffsPath, name)
	cmd := exec.Command(ip, "netns", "exec", l.node.Name, os.Args[0], "-test.run=^TestPinsSurviveIPNetnsExec$", "-test.v")
	cmd.Env = append(os.Environ(), "XCARP_TEST_PIN="+dir)
	out, err := cmd.CombinedOutput()
	t.Cleanup(func() { os.Remove(dir) })
	if err != nil {
		t.Fatalf("child: %v: %s", err, out)
	}
	l.dir = dir
	pinned, err := Pinned(dir)
	if err != nil || len(pinned) != 1 || pinned[0].Roles[testVHID].State != carp.Master {
		t.Fatalf("after the child's death: %+v, %v; want one MASTER\n%s", pinned, err, out)
	}
	if ids := l.links(t); strings.Count(ids, " ") != 2 {
		t.Errorf("links: %q, want three", ids)
	}
	if mac := l.resolve(t, shared4, 3*time.Second); mac != vmac(testVHID).String() {
		t.Errorf("client learned %q from the dead child's programs", mac)
	}
	l.node.Must(func() error {
		_, err := Detach(dir, true)
		return err
	})
}
