package group

import (
	"bufio"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/nstest"
)

// onlyVIP4 is the only address that ucarp signs.
var onlyVIP4 = []netip.Prefix{vip4}

// startIn runs a Group on eth0 of a namespace, on a real packet socket.
func startIn(tb testing.TB, ns *nstest.NS, last byte, c carp.Config, addrs []netip.Prefix, password string) *node {
	tb.Helper()
	n := &node{ended: make(chan error, 1)}
	var conn net.PacketConn
	var mac net.HardwareAddr
	ns.Must(func() error {
		var err error
		if conn, err = Listen("eth0", c.VHID); err != nil {
			return err
		}
		ifi, err := net.InterfaceByName("eth0")
		if err == nil {
			mac = ifi.HardwareAddr
		}
		return err
	})
	var signed []netip.Addr
	for _, p := range addrs {
		signed = append(signed, p.Addr())
	}
	c.Counter, c.Node = uint64(time.Now().UnixNano()), uint64(last)<<1
	n.Group = New(Config{
		Name: ns.Name, Carpdev: "eth0", Machine: c, Addrs: addrs, Conn: conn, HardwareAddr: mac,
		Guard:     carp.GuardConfig{Key: carp.NewKey(password, c.VHID, signed, carp.OpenBSD)},
		Source4:   func() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, last}) },
		Source6:   func() netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: last}) },
		Dataplane: n,
		OnRole: func(t Transition) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.trans = append(n.trans, t)
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() { n.ended <- n.Run(ctx) }()
	var once sync.Once
	tb.Cleanup(func() { once.Do(cancel) })
	n.Link(true)
	return n
}

// pair makes two hosts on a wire, each with eth0 and an address.
func pair(t *testing.T) (a, b *nstest.NS) {
	t.Helper()
	a, b = nstest.New(t, "a"), nstest.New(t, "b")
	nstest.Veth(t, a, "eth0", b, "eth0")
	a.Addr("eth0", "192.0.2.1/24")
	b.Addr("eth0", "192.0.2.2/24")
	return a, b
}

func TestTwoGroupsOnARealWire(t *testing.T) {
	an, bn := pair(t)
	tap := newTap(t, bn)
	b := startIn(t, bn, 2, carp.Config{VHID: 7, AdvBase: 1, AdvSkew: 100}, []netip.Prefix{vip4, vip6}, "secret")
	a := startIn(t, an, 1, carp.Config{VHID: 7, AdvBase: 0, AdvSkew: 25}, []netip.Prefix{vip4, vip6}, "secret")
	var beside net.PacketConn // what another process on a's host would hear
	an.Must(func() (err error) {
		beside, err = Listen("eth0", 7)
		return err
	})
	defer beside.Close()
	other := startIn(t, bn, 2, carp.Config{VHID: 8, AdvBase: 1}, []netip.Prefix{vip4}, "secret")

	nstest.Eventually(t, 5*time.Second, "a is master and b hears it in both families", func() bool {
		m := b.Status().Masters
		return a.state() == carp.Master && len(m) == 1 && m[0].Addr6.IsValid()
	})
	if got := b.state(); got != carp.Backup {
		t.Errorf("b: got %v, want BACKUP", got)
	}
	if st := a.Status(); st.Drops["loop"] != 0 || st.SendErrs != 0 {
		t.Errorf("a hears itself or cannot send: %+v", st)
	}
	if st := other.Status(); st.Received != 0 || len(st.Drops) != 0 {
		t.Errorf("the filter of vhid 8 passed adverts of vhid 7: %+v", st)
	}
	for _, group := range []string{"224.0.0.18", "ff02::12"} {
		if out := an.Exec("ip", "maddress", "show", "dev", "eth0"); !strings.Contains(out, group) {
			t.Errorf("%s not joined: %s", group, out)
		}
	}
	if n := pending(t, beside); n != 0 {
		t.Errorf("%d bytes of what the host sends itself passed the filter", n)
	}
	other.stop(t)
	a.stop(t)
	nstest.Eventually(t, time.Second, "b took over at the goodbye", func() bool { return b.state() == carp.Master })
	b.stop(t)
	checkWithTshark(t, tap.frames())
}

// TestAnInterfaceThatWasDownIsHeardAgain: the kernel tells every packet socket
// of the fall once, as an error of the read.
func TestAnInterfaceThatWasDownIsHeardAgain(t *testing.T) {
	an, bn := pair(t)
	b := startIn(t, bn, 2, carp.Config{VHID: 7, AdvBase: 1, AdvSkew: 100}, onlyVIP4, "secret")
	a := startIn(t, an, 1, carp.Config{VHID: 7, AdvBase: 0, AdvSkew: 25}, onlyVIP4, "secret")
	nstest.Eventually(t, 5*time.Second, "b hears a", func() bool { return b.Status().Received > 0 })
	bn.Exec("ip", "link", "set", "eth0", "down")
	bn.Exec("ip", "link", "set", "eth0", "up")
	bn.WaitUp("eth0")
	before := b.Status().Received
	nstest.Eventually(t, 5*time.Second, "b hears a again", func() bool { return b.Status().Received > before+2 })
	a.stop(t)
	b.stop(t)
}

// pending returns the length of the first frame in the socket's queue.
func pending(tb testing.TB, c net.PacketConn) int {
	tb.Helper()
	e := c.(only).PacketConn.(*ear)
	if len(e.in) == 0 {
		return 0
	}
	return len(*<-e.in)
}

// checkWithTshark lets a foreign dissector read what we sent.
func checkWithTshark(t *testing.T, frames [][]byte) {
	t.Helper()
	tshark := nstest.RequireProgram(t, "tshark")
	file := filepath.Join(t.TempDir(), "wire.pcap")
	writePcap(t, file, frames)
	out, err := exec.CommandContext(t.Context(), tshark, "-r", file, "-d", "ip.proto==112,carp", "-Y", "carp",
		"-T", "fields", "-E", "separator=,",
		"-e", "eth.src", "-e", "carp.version", "-e", "carp.type", "-e", "carp.vhid", "-e", "carp.advskew",
		"-e", "carp.authlen", "-e", "carp.demotion", "-e", "carp.adver_int", "-e", "carp.checksum.status",
	).Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	const vmac = "00:00:5e:00:01:07,"
	if want := vmac + "2,1,7,25,7,0,0,Good"; lines[0] != want && lines[0] != goodAsNumber(want) {
		t.Errorf("first advert: got %q, want %q", lines[0], want)
	}
	goodbyes := 0
	for _, l := range lines {
		if !strings.HasSuffix(l, ",Good") && !strings.HasSuffix(l, ",1") {
			t.Errorf("checksum: %q", l)
		}
		if strings.Contains(l, ",2,1,7,255,7,0,255,") {
			goodbyes++
			if strings.HasPrefix(l, vmac) {
				t.Errorf("goodbye from the virtual MAC: %q", l)
			}
		}
	}
	if goodbyes != 4 {
		t.Errorf("goodbyes: got %d, want two in two families; %q", goodbyes, lines)
	}
	out, err = exec.CommandContext(t.Context(), tshark, "-r", file, "-d", "ip.proto==112,carp",
		"-o", "ip.check_checksum:TRUE", "-Y",
		"ip.checksum.status==0 || icmpv6.checksum.status==0 || _ws.malformed").Output()
	if err != nil || len(out) != 0 {
		t.Errorf("tshark finds fault (%v): %s", err, out)
	}
	out, err = exec.CommandContext(t.Context(), tshark, "-r", file, "-Y",
		"arp.isgratuitous && arp.opcode==1 && arp.src.proto_ipv4==192.0.2.100 && arp.src.hw_mac==00:00:5e:00:01:07"+
			" || icmpv6.type==136 && icmpv6.nd.na.flag.o==1 && icmpv6.nd.na.target_address==2001:db8::100"+
			" && icmpv6.opt.linkaddr==00:00:5e:00:01:07").Output()
	if n := strings.Count(string(out), "\n"); err != nil || n < 4 {
		t.Errorf("announcements of two takeovers (%v): got %d, want at least 4", err, n)
	}
}

func goodAsNumber(s string) string { return strings.TrimSuffix(s, "Good") + "1" }

// TestUcarp: a real ucarp keeps the role from our backup, believes our adverts
// and makes way for our better master.
func TestUcarp(t *testing.T) {
	path := nstest.RequireProgram(t, "ucarp")
	an, bn := pair(t)
	u := startUcarp(t, bn, path, "--advskew=100")
	nstest.Eventually(t, 10*time.Second, "ucarp is master", func() bool { return u.says("Switching to state: MASTER") })

	// Slower and without preempt: respected for longer than our patience.
	a := startIn(t, an, 1, carp.Config{VHID: 42, AdvBase: 1, AdvSkew: 200}, onlyVIP4, "secret")
	nstest.Eventually(t, 10*time.Second, "five of its adverts", func() bool { return a.Status().Received >= 5 })
	if got := a.state(); got != carp.Backup {
		t.Errorf("against ucarp's master: got %v, want BACKUP; %v", got, a.Status())
	}
	if d := a.Status().Drops; d["badauth"] != 0 {
		t.Errorf("ucarp's digests: %v", d)
	}
	a.stop(t)

	// Faster and with preempt: ucarp yields.
	backups := u.count("Switching to state: BACKUP") // its start
	a = startIn(t, an, 1, carp.Config{VHID: 42, AdvBase: 1, Preempt: true}, onlyVIP4, "secret")
	nstest.Eventually(t, 10*time.Second, "ucarp is backup", func() bool {
		return u.count("Switching to state: BACKUP") > backups
	})
	if got := a.state(); got != carp.Master {
		t.Errorf("after preemption: got %v, want MASTER", got)
	}

	// And comes back on our goodbye.
	masters := u.count("Switching to state: MASTER")
	a.stop(t)
	nstest.Eventually(t, 3*time.Second, "ucarp takes over at the goodbye", func() bool {
		return u.count("Switching to state: MASTER") > masters
	})
	if u.says("Bad digest") || u.says("Bad TTL") || u.says("Invalid") {
		t.Errorf("ucarp complains: %q", u.output())
	}
}

type ucarp struct {
	mu    sync.Mutex
	lines []string
}

func startUcarp(t *testing.T, ns *nstest.NS, path string, arg ...string) *ucarp {
	t.Helper()
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, append([]string{"--interface=eth0", "--srcip=192.0.2.2", "--vhid=42", "--pass=secret",
		"--addr=192.0.2.100", "--upscript=" + script, "--downscript=" + script}, arg...)...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	w.Close()
	u := new(ucarp)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := bufio.NewScanner(r); s.Scan(); {
			u.mu.Lock()
			u.lines = append(u.lines, s.Text())
			u.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		<-done
		r.Close()
		if t.Failed() {
			t.Logf("ucarp: %q", u.output())
		}
	})
	return u
}

func (u *ucarp) output() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.lines)
}

func (u *ucarp) count(what string) int {
	n := 0
	for _, l := range u.output() {
		if strings.Contains(l, what) {
			n++
		}
	}
	return n
}

func (u *ucarp) says(what string) bool { return u.count(what) > 0 }

func TestJoinAddrs(t *testing.T) {
	an, _ := pair(t)
	an.Must(func() error {
		c, err := JoinAddrs("eth0", []netip.Addr{vip4.Addr(), netip.MustParseAddr("2001:db8::12:3456")})
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		return nil
	})
	if out := an.Exec("ip", "maddress", "show", "dev", "eth0"); !strings.Contains(out, "ff02::1:ff12:3456") {
		t.Errorf("not joined: %s", out)
	}
}

// tap records every frame that comes in on eth0.
type tap struct {
	conn *packet.Conn
	mu   sync.Mutex
	got  [][]byte
	done chan struct{}
}

func newTap(t *testing.T, ns *nstest.NS) *tap {
	t.Helper()
	p := &tap{done: make(chan struct{})}
	ns.Must(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		p.conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
		return err
	})
	go func() {
		defer close(p.done)
		b := make([]byte, 2048)
		for {
			n, _, err := p.conn.ReadFrom(b)
			if err != nil {
				return
			}
			p.mu.Lock()
			p.got = append(p.got, slices.Clone(b[:n]))
			p.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		p.conn.Close()
		<-p.done
	})
	return p
}

func (p *tap) frames() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

// writePcap writes a classic pcap file of Ethernet frames.
func writePcap(tb testing.TB, name string, frames [][]byte) {
	tb.Helper()
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xa1b2c3d4)
	b = le.AppendUint32(b, 2|4<<16)
	b = append(b, make([]byte, 8)...)
	b = le.AppendUint32(b, 65535)
	b = le.AppendUint32(b, 1) // LINKTYPE_ETHERNET
	for i, f := range frames {
		b = le.AppendUint32(b, uint32(i))
		b = le.AppendUint32(b, 0)
		b = le.AppendUint32(b, uint32(len(f)))
		b = le.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		tb.Fatal(err)
	}
}

// TestPriorityTagsAreHeard: VLAN 0 is no VLAN, but a priority alone (IEEE 802.1Q,
// table 9-2). Some switches and hypervisors send all frames so.
func TestPriorityTagsAreHeard(t *testing.T) {
	an, bn := pair(t)
	var c net.PacketConn
	an.Must(func() (err error) {
		c, err = Listen("eth0", 7)
		return err
	})
	defer c.Close()
	var out *packet.Conn
	bn.Must(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		out, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_LOOP, nil)
		return err
	})
	defer out.Close()
	const last = "192.0.2.9" // what came before it, came
	for _, from := range []string{"192.0.2.2", "fe80::2", last} {
		a := carp.Advert{VHID: 7, AdvBase: 1}
		b, err := a.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		f := carp.AppendFrame(nil, carp.VirtualMAC(7), netip.MustParseAddr(from), b)
		for _, tag := range [][]byte{{0x81, 0, 0x00, 5}, {0x81, 0, 0xe0, 0}, nil} { // VLAN 5, priority 7, untagged
			tagged := slices.Concat(f[:12], tag, f[12:])
			if _, err := out.WriteTo(tagged, &packet.Addr{HardwareAddr: tagged[:6]}); err != nil {
				t.Fatal(err)
			}
		}
	}
	var from []string
	buf := make([]byte, frameLen)
	for !slices.Contains(from, last) {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		r, why := carp.ParseFrame(buf[:n])
		if why != carp.Accepted {
			t.Fatalf("refused: %v", why)
		}
		from = append(from, r.From.String())
	}
	if want := "192.0.2.2 192.0.2.2 fe80::2 fe80::2 192.0.2.9"; strings.Join(from, " ") != want {
		t.Errorf("heard %v, want %s: with a priority and untagged, not of VLAN 5", from, want)
	}
}
