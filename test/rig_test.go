// Package test is the outer ring: real daemons, real peers, real kernel.
package test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/daemon"
	"github.com/xcarp/xcarp/internal/nstest"
)

var xcarpBin, labBin string // built once, by TestMain

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "xcarp-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	xcarpBin, labBin = filepath.Join(dir, "xcarp"), filepath.Join(dir, "xcarp-lab")
	build := exec.Command("go", "build", "-o", dir+"/", "../cmd/...")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build xcarp: %v\n%s", err, out)
		os.Exit(1)
	}
	// Most of these tests wait for the protocol's own time, not for a CPU.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

const (
	lanVHID = 2
	wanVHID = 1
	testKey = "eGNhcnAtdGVzdC1rZXkteGNhcnAtdGVzdC1rZXktMDE=" // 32 bytes, for tests only
)

// A pair is two routers between a LAN and a WAN, a host on each, and a link of
// their own:
//
//	client ── br-lan ──┬── a ──┬── br-wan ── server
//	                   └── b ──┘
//	                   a ═ sync ═ b
type pair struct {
	tb             testing.TB
	sw             *nstest.NS // holds the bridges
	client, server host
	a, b           *node
}

// A node is one router and the daemon on it.
type node struct {
	tb   testing.TB
	ns   *nstest.NS
	name string
	dir  string
	pin  string
	conf string
	bin  string // the program; empty: xcarpBin

	lanPort, wanPort, syncPort string // on the switch

	mu  sync.Mutex
	cmd *exec.Cmd
	log *logBuffer
}

// newPair builds the network. The daemons are started by the test.
func newPair(tb testing.TB) *pair {
	tb.Helper()
	nstest.RequireRoot(tb)
	p := &pair{
		tb:     tb,
		sw:     nstest.New(tb, "sw"),
		client: host{nstest.New(tb, "client")},
		server: host{nstest.New(tb, "server")},
	}
	p.sw.Sysctl("net/ipv6/conf/all/disable_ipv6", "1") // a switch has no say on layer 3
	for _, br := range []string{"br-lan", "br-wan", "br-sync"} {
		p.sw.Bridge(br)
	}
	p.a, p.b = p.newNode("a", 2), p.newNode("b", 3)

	p.sw.Plug("br-lan", p.client.NS, "eth0")
	p.client.Addr("eth0", "10.0.0.100/24")
	p.client.Addr("eth0", "fd00:1::100/64")
	p.client.Exec("ip", "route", "add", "default", "via", "10.0.0.1")
	p.client.Exec("ip", "-6", "route", "add", "default", "via", "fd00:1::1")
	p.sw.Plug("br-wan", p.server.NS, "eth0")
	p.server.Addr("eth0", "203.0.113.100/24")
	p.server.Addr("eth0", "2001:db8:1::100/64")
	p.server.Exec("ip", "-6", "route", "add", "fd00:1::/64", "via", "2001:db8:1::1")
	return p
}

func (p *pair) newNode(name string, last int) *node {
	p.tb.Helper()
	n := &node{
		tb:   p.tb,
		ns:   nstest.New(p.tb, name),
		name: "fw-" + name,
		dir:  p.tb.TempDir(),
	}
	n.pin = "/sys/fs/bpf/" + n.ns.Name
	n.lanPort = p.sw.Plug("br-lan", n.ns, "lan0")
	n.wanPort = p.sw.Plug("br-wan", n.ns, "wan0")
	n.syncPort = p.sw.Plug("br-sync", n.ns, "sync0")
	for dev, net := range map[string][2]string{
		"lan0":  {"10.0.0.%d/24", "fd00:1::%d/64"},
		"wan0":  {"203.0.113.%d/24", "2001:db8:1::%d/64"},
		"sync0": {"172.30.0.%d/24", ""},
	} {
		for _, a := range net {
			if a != "" {
				n.ns.Addr(dev, fmt.Sprintf(a, last))
			}
		}
	}
	n.ns.Sysctl("net/ipv4/ip_forward", "1")
	n.ns.Sysctl("net/ipv6/conf/all/forwarding", "1")
	n.write("xcarp.key", testKey+"\n")
	n.conf = n.write("xcarp.yaml", pairConfig(n.name, filepath.Join(n.dir, "xcarp.key"), ""))
	p.tb.Cleanup(func() {
		n.kill(unix.SIGKILL)
		n.ns.Do(func() error { _, err := n.xcarp("detach", "--force"); return err })
		os.RemoveAll(n.pin)
	})
	return n
}

// pairConfig is the configuration of interface.md for two routers; extra is
// appended. The timers of CARP hold: most tests count on them.
func pairConfig(node, key, extra string) string {
	return fmt.Sprintf(`node: %s
key_file: %s
sync: {dev: sync0, nodes: {fw-a: 172.30.0.2, fw-b: 172.30.0.3}}
preempt: true
groups:
  wan: {vhid: %d, carpdev: wan0, addresses: [203.0.113.1/24, "2001:db8:1::1/64"]}
  lan: {vhid: %d, carpdev: lan0, addresses: [10.0.0.1/24, "fd00:1::1/64"]}
advskew: {fw-a: 0, fw-b: 100}
bundle: [wan, lan]
detect: off
%s`, node, key, wanVHID, lanVHID, extra)
}

// write makes a file that only root can read.
func (n *node) write(name, content string) string {
	n.tb.Helper()
	path := filepath.Join(n.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		n.tb.Fatal(err)
	}
	return path
}

// reconfigure replaces the node's configuration before its daemon is started.
func (n *node) reconfigure(f func(string) string) {
	n.tb.Helper()
	b, err := os.ReadFile(n.conf)
	if err != nil {
		n.tb.Fatal(err)
	}
	n.write("xcarp.yaml", f(string(b)))
}

func (n *node) paths() []string {
	return []string{"--run-dir", filepath.Join(n.dir, "run"), "--state-dir", filepath.Join(n.dir, "state"), "--pin-dir", n.pin}
}

// xcarp runs a command of the node, wherever the caller's thread is.
func (n *node) xcarp(arg ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(xcarpBin, append(arg, n.paths()...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("xcarp %s: %w: %s", strings.Join(arg, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// start starts the daemon. It does not wait for anything.
func (n *node) start() {
	n.tb.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	cmd := exec.Command(cmp.Or(n.bin, xcarpBin), append([]string{"run", "--config", n.conf}, n.paths()...)...)
	if n.log == nil {
		n.log = &logBuffer{}
		n.tb.Cleanup(func() {
			if n.tb.Failed() {
				n.tb.Logf("log of %s:\n%s", n.name, n.log)
			}
		})
	}
	cmd.Stderr = n.log
	if err := n.ns.Start(cmd); err != nil {
		n.tb.Fatal(err)
	}
	n.cmd = cmd
}

// signal sends the daemon a signal.
func (n *node) signal(s unix.Signal) {
	n.tb.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.cmd.Process.Signal(s); err != nil {
		n.tb.Fatalf("signal %v to %s: %v", s, n.name, err)
	}
}

// kill ends the daemon by the signal, if it runs, and waits for its end.
func (n *node) kill(s unix.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(s)
	done := make(chan struct{})
	cmd := n.cmd
	go func() { _ = cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		n.tb.Errorf("%s does not end on %v", n.name, s)
		_ = cmd.Process.Kill()
		<-done
	}
	n.cmd = nil
}

// status asks the daemon; nil if it does not answer.
func (n *node) status() *daemon.Status {
	ctx, cancel := context.WithTimeout(n.tb.Context(), 5*time.Second)
	defer cancel()
	s, err := daemon.GetStatus(ctx, filepath.Join(n.dir, "run"))
	if err != nil {
		return nil
	}
	return s
}

// group returns the status of one group; the zero value if there is none.
func (n *node) group(name string) daemon.GroupStatus {
	if s := n.status(); s != nil {
		for _, g := range s.Groups {
			if g.Name == name {
				return g
			}
		}
	}
	return daemon.GroupStatus{}
}

// waitState waits until the groups are in the state.
func (n *node) waitState(limit time.Duration, state string, groups ...string) {
	n.tb.Helper()
	nstest.Eventually(n.tb, limit, fmt.Sprintf("%v of %s in %s", groups, n.name, state), func() bool {
		for _, g := range groups {
			if n.group(g).State != state {
				return false
			}
		}
		return true
	})
}

// waitInSync waits until the node's sync with its peer is complete.
func (n *node) waitInSync(limit time.Duration) {
	n.tb.Helper()
	nstest.Eventually(n.tb, limit, n.name+" in sync", func() bool {
		s := n.status()
		return s != nil && len(s.Sync) == 1 && s.Sync[0].Up && s.Sync[0].InSync && s.Groups[0].Demotion == 0
	})
}

// up starts both daemons and waits until a is master, b is backup, and their
// tables are equal.
func (p *pair) up() {
	p.tb.Helper()
	p.a.start()
	p.a.waitState(15*time.Second, "MASTER", "lan", "wan") // a pair started at once may begin with either
	p.b.start()
	p.b.waitState(15*time.Second, "BACKUP", "lan", "wan")
	p.a.waitInSync(15 * time.Second)
	p.b.waitInSync(15 * time.Second)
}

// logBuffer is what a program printed, for reading while it runs.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// transitions returns the states that a group entered, in order, from the log.
func (l *logBuffer) transitions(group string) []string {
	var to []string
	for line := range strings.Lines(l.String()) {
		var e struct{ Msg, Group, To string }
		if json.Unmarshal([]byte(line), &e) == nil && e.Msg == "state" && e.Group == group {
			to = append(to, e.To)
		}
	}
	return to
}
