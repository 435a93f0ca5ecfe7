package test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// Every mistake costs one line that says what, where and what to do, exit status
// 1, and nothing else.
func TestBadInputChangesNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.b.start() // what a second daemon meets
	p.b.waitState(15*time.Second, "MASTER", "lan", "wan")
	edit := func(old, new string) func(*testing.T, *node, *exec.Cmd) {
		return func(t *testing.T, n *node, _ *exec.Cmd) {
			n.reconfigure(func(s string) string {
				if !strings.Contains(s, old) {
					t.Fatalf("the configuration has no %q", old)
				}
				return strings.Replace(s, old, new, 1)
			})
		}
	}
	key := func(f func(path string) error) func(*testing.T, *node, *exec.Cmd) {
		return func(t *testing.T, n *node, _ *exec.Cmd) {
			if err := f(filepath.Join(n.dir, "xcarp.key")); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(*testing.T, *node, *exec.Cmd)
		want  []string
	}{
		{"an unknown key", edit("preempt:", "premept:"), []string{"xcarp.yaml:4:1: ", "premept", "did you mean", "preempt"}},
		{"an unknown key in a group", edit("vhid: 1, ", "vhid: 1, addreses: [], "), []string{"xcarp.yaml:6:", "addreses", "addresses"}},
		{"a key that comes later", edit("bundle:", "accelerate: {}\nbundle:"), []string{"xcarp.yaml:9:", "accelerate", "not supported by this version"}},
		{"a duplicate key", edit("preempt: true", "preempt: true\npreempt: false"), []string{"xcarp.yaml:5:", "preempt"}},
		{"a duplicate vhid", edit("wan: {vhid: 1, carpdev: wan0, addresses: [203.0.113.1/24, \"2001:db8:1::1/64\"]}", "wan: {vhid: 2, carpdev: lan0, addresses: [10.0.0.9/24]}"), []string{"xcarp.yaml:7:", "vhid 2"}},
		{"a vhid out of range", edit("vhid: 1,", "vhid: 256,"), []string{"xcarp.yaml:6:", "256", "1 to 255"}},
		{"an advskew out of range", edit("fw-a: 0, fw-b: 100", "fw-a: 255, fw-b: 100"), []string{"xcarp.yaml:8:", "255", "254"}},
		{"text that is no YAML", edit("groups:", "groups: [\n"), []string{"xcarp.yaml:"}},
		{"a missing interface", edit("carpdev: wan0", "carpdev: wan1"), []string{"xcarp.yaml:6:", "wan1", "wan0"}},
		{"a prefix too long", edit("10.0.0.1/24", "10.0.0.1/33"), []string{"xcarp.yaml:7:", "10.0.0.1", "33", "1 to 32"}},
		{"no prefix", edit("10.0.0.1/24", "10.0.0.1"), []string{"xcarp.yaml:7:", "10.0.0.1", "/"}},
		{"the network's own address", edit("10.0.0.1/24", "10.0.0.0/24"), []string{"xcarp.yaml:7:", "10.0.0.0/24"}},
		{"a subnet without a route", edit("10.0.0.1/24", "10.9.0.1/24"), []string{"xcarp.yaml:7:", "10.9.0.1/24", "lan0"}},
		{"a node that is not in sync.nodes", edit("node: fw-a", "node: fw-c"), []string{"xcarp.yaml:", "fw-c"}},
		{"a sync device without the address", edit("dev: sync0", "dev: wan0"), []string{"xcarp.yaml:3:", "172.30.0.2"}},
		{"a bundle with an unknown group", edit("bundle: [wan, lan]", "bundle: [wan, lna]"), []string{"xcarp.yaml:9:", "lna", "lan"}},
		{"no such key file", key(os.Remove), []string{"xcarp.yaml:2:", "xcarp.key", "xcarp keygen"}},
		{"a key file that others can read", key(func(p string) error { return os.Chmod(p, 0o644) }), []string{"xcarp.key", "0644", "chmod 600"}},
		{"a key file that is a link", key(func(p string) error {
			return errors.Join(os.Rename(p, p+".real"), os.Symlink(p+".real", p))
		}), []string{"xcarp.key", "symbolic link"}},
		{"a key that is too short", key(func(p string) error { return os.WriteFile(p, []byte("c2hvcnQ=\n"), 0o600) }), []string{"xcarp.key", "32"}},
		{"a key file of another user", key(func(p string) error { return os.Chown(p, 12345, 12345) }), []string{"xcarp.key", "12345", "chown root"}},
		{"no configuration", func(t *testing.T, n *node, _ *exec.Cmd) { os.Remove(n.conf) }, []string{"xcarp.yaml: no such file"}},
		{"a second daemon in the run-dir", func(_ *testing.T, _ *node, c *exec.Cmd) {
			c.Args = append(c.Args, "--run-dir", filepath.Join(p.b.dir, "run"))
		}, []string{"another xcarp daemon", "--run-dir"}},
		{"a second daemon on a carpdev", func(t *testing.T, n *node, c *exec.Cmd) {
			// One of another run-dir runs on the same interfaces.
			other := &node{tb: t, ns: n.ns, name: n.name, dir: t.TempDir(), pin: n.pin + "-other", conf: n.conf}
			t.Cleanup(func() {
				other.kill(unix.SIGTERM)
				_ = other.ns.Do(func() error { _, err := other.xcarp("detach", "--force"); return err })
			})
			other.start()
			nstest.Eventually(t, 10*time.Second, "the first daemon", func() bool { return other.status() != nil })
			other.waitState(15*time.Second, "MASTER", "lan", "wan")
			nstest.Eventually(t, 10*time.Second, "the trap is over", func() bool { return !strings.Contains(n.ns.Exec("nft", "list", "ruleset"), "expires") })
		}, []string{"another xcarp daemon", "stop it first"}},
		{"no root", func(_ *testing.T, n *node, c *exec.Cmd) {
			for d := range map[string]bool{filepath.Dir(xcarpBin): true, n.dir: true, filepath.Dir(n.dir): true} {
				os.Chmod(d, 0o755)
			}
			for _, f := range []string{n.conf, filepath.Join(n.dir, "xcarp.key")} {
				os.Chown(f, 65534, 65534)
			}
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}, []string{"root"}},
		{"no BPF", func(t *testing.T, _ *node, c *exec.Cmd) {
			c.Path = nstest.RequireProgram(t, "setpriv")
			c.Args = append([]string{"setpriv", "--bounding-set", "-bpf,-sys_admin,-perfmon"}, append([]string{xcarpBin}, c.Args[1:]...)...)
		}, []string{"CAP_BPF", "run it as root"}},
		{"a foreign XDP program", func(t *testing.T, n *node, _ *exec.Cmd) { foreignXDP(t, n, "wan0") }, []string{"wan0", "XDP"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := p.newNode("a", 2)
			n.tb = t
			defer func() {
				n.ns.Exec("ip", "link", "del", "lan0")
				n.ns.Exec("ip", "link", "del", "wan0")
				n.ns.Exec("ip", "link", "del", "sync0")
			}()
			cmd := exec.Command(xcarpBin, append([]string{"run", "--config", n.conf}, n.paths()...)...)
			tt.spoil(t, n, cmd)
			before := n.snapshot()
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := n.ns.Start(cmd); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Signal(unix.SIGTERM) })
			_ = cmd.Wait()
			timer.Stop()

			if code := cmd.ProcessState.ExitCode(); code != 1 {
				t.Errorf("exit status %d, want 1", code)
			}
			if got := strings.TrimSuffix(stderr.String(), "\n"); got == "" || strings.Contains(got, "\n") {
				t.Errorf("want one line, got:\n%s", got)
			}
			for _, want := range tt.want {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("the line lacks %q: %s", want, stderr.String())
				}
			}
			if after := n.snapshot(); after != before {
				t.Errorf("something changed:\n--- before\n%s\n--- after\n%s", before, after)
			}
		})
	}
}

// unstableLink is what changes on a link by itself.
var unstableLink = regexp.MustCompile(` tentative`)

// snapshot is all of a node that a daemon could change.
func (n *node) snapshot() string {
	n.tb.Helper()
	var b strings.Builder
	for _, c := range [][]string{
		{"ip", "addr"},
		{"ip", "-d", "link"},
		{"sh", "-c", "for d in lan0 wan0; do tc filter show dev $d ingress; tc filter show dev $d egress; bpftool net show dev $d; done 2>/dev/null"},
		{"tc", "qdisc"},
		{"bridge", "fdb"},
		{"nft", "list", "ruleset"},
		{"sysctl", "net.netfilter.nf_conntrack_tcp_be_liberal", "net.netfilter.nf_conntrack_events"},
		{"ls", "-A", filepath.Join(n.dir, "state")},
		{"ls", "-A", n.pin},
	} {
		out, err := n.ns.Run(n.tb.Context(), c[0], c[1:]...)
		if err != nil && c[0] != "ls" {
			n.tb.Fatal(err)
		}
		b.WriteString(strings.Join(c, " ") + "\n")
		for line := range strings.Lines(string(out)) {
			if c[0] == "bridge" && !strings.Contains(line, "00:00:5e") {
				continue // multicast groups come and go with the kernel's own doings
			}
			if strings.Contains(line, "Peer netns reference is invalid") {
				continue // ip's complaint while other namespaces come and go
			}
			b.WriteString(unstableLink.ReplaceAllString(line, ""))
		}
	}
	return b.String()
}
