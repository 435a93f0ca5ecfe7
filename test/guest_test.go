package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

const (
	guestKernel = "6.1"
	guestPort   = "guest-lan" // on the switch
	guestPaused = 10 * time.Second
)

// guestConfig is of a router without WAN. It does not preempt: what the tests look at
// stays where it is.
func guestConfig(node, key, lan, sync string) string {
	return fmt.Sprintf(`node: %s
key_file: %s
sync: {dev: %s, nodes: {fw-a: 172.30.0.2, fw-b: 172.30.0.3}}
groups:
  lan: {vhid: %d, carpdev: %s, addresses: [10.0.0.1/24, "fd00:1::1/64"]}
advskew: {fw-a: 0, fw-b: 100}
detect: default
`, node, key, sync, lanVHID, lan)
}

// A guest is a whole emulated machine that is node fw-a.
type guest struct {
	cmd *exec.Cmd
	qmp net.Conn
	in  *bufio.Scanner
}

// bootGuest packs a stock kernel with the daemon and boots it as fw-a of the pair.
func bootGuest(t *testing.T, p *pair) *guest {
	t.Helper()
	for _, program := range []string{"qemu-system-x86_64", "cpio", "depmod"} {
		nstest.RequireProgram(t, program)
	}
	dir := t.TempDir()
	run := func(name string, arg ...string) {
		t.Helper()
		cmd := exec.Command(name, arg...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, arg, err, out)
		}
	}
	cache := "../.cache/matrix"
	run("matrix/fetch", cache, guestKernel)
	b, err := os.ReadFile(filepath.Join(cache, guestKernel+".version"))
	if err != nil {
		t.Fatal(err)
	}
	version := strings.TrimSpace(string(b))
	kernel := filepath.Join(cache, "kernels", version)
	images, _ := filepath.Glob(filepath.Join(kernel, "boot", "vmlinuz*"))
	if len(images) == 0 {
		t.Fatalf("no kernel below %s", kernel)
	}
	payload := filepath.Join(dir, "payload")
	node := filepath.Join(payload, "tests", "node")
	if err := os.MkdirAll(node, 0o755); err != nil {
		t.Fatal(err)
	}
	run("go", "build", "-trimpath", "-o", filepath.Join(payload, "init"), "./matrix/init")
	run("go", "build", "-trimpath", "-o", filepath.Join(node, "test"), "./matrix/node")
	run("go", "build", "-trimpath", "-o", filepath.Join(node, "xcarp"), "../cmd/xcarp")
	for name, text := range map[string]string{
		"tests/node/xcarp.key":  testKey + "\n",
		"tests/node/xcarp.yaml": guestConfig("fw-a", "/tests/node/xcarp.key", "eth0", "eth1"),
		"tests/node/addresses":  "eth0 10.0.0.2/24\neth0 fd00:1::2/64\neth1 172.30.0.2/24\n",
		"tests.list":            "node\t\n",
	} {
		if err := os.WriteFile(filepath.Join(payload, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	image := filepath.Join(dir, "initramfs.cpio")
	run("matrix/pack", kernel, version, payload, image)

	for port, bridge := range map[string]string{guestPort: "br-lan", "guest-sync": "br-sync"} {
		p.sw.Exec("ip", "tuntap", "add", "dev", port, "mode", "tap")
		p.sw.Exec("ip", "link", "set", port, "master", bridge, "up")
	}
	args := []string{"-M", "q35", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max", "-m", "768", "-smp", "2",
		"-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-qmp", "unix:" + filepath.Join(dir, "qmp") + ",server=on,wait=off",
		"-kernel", images[0], "-initrd", image, "-append", "console=ttyS0 quiet panic=-1 mitigations=off"}
	for i, port := range []string{guestPort, "guest-sync"} {
		args = append(args, "-netdev", fmt.Sprintf("tap,id=n%d,ifname=%s,script=no,downscript=no", i, port),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=n%d,mac=52:54:00:00:01:%02x,guest_tso4=off,guest_tso6=off,guest_ufo=off,guest_ecn=off", i, i))
	}
	g := &guest{cmd: exec.Command("qemu-system-x86_64", args...)}
	console := &logBuffer{}
	g.cmd.Stdout, g.cmd.Stderr = console, console
	if err := p.sw.Start(g.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = g.cmd.Process.Kill()
		_ = g.cmd.Wait()
		if t.Failed() {
			t.Logf("console of fw-a:\n%s", console)
		}
	})
	nstest.Eventually(t, 20*time.Second, "qemu's monitor", func() bool {
		g.qmp, err = net.Dial("unix", filepath.Join(dir, "qmp"))
		return err == nil
	})
	t.Cleanup(func() { g.qmp.Close() })
	g.in = bufio.NewScanner(g.qmp)
	g.tell(t, "qmp_capabilities")
	return g
}

// tell gives qemu's monitor a command and waits for its answer.
func (g *guest) tell(t *testing.T, command string) {
	t.Helper()
	fmt.Fprintf(g.qmp, "{\"execute\": %q}\n", command)
	for g.in.Scan() {
		var answer map[string]any
		if json.Unmarshal(g.in.Bytes(), &answer) == nil && answer["return"] != nil {
			return
		}
	}
	t.Fatalf("qemu did not answer to %s", command)
}

// TestAPausedGuestHasLostItsRole pauses a master that is a whole machine, for longer than
// any lease: once with its clock running on, once with a clock that stands, so that its
// lease does not end. Either way the other node is master then, and the one that wakes up
// answers nobody.
func TestAPausedGuestHasLostItsRole(t *testing.T) {
	p := newPair(t)
	p.b.reconfigure(func(string) string {
		return guestConfig("fw-b", filepath.Join(p.b.dir, "xcarp.key"), "lan0", "sync0")
	})
	g := bootGuest(t, p)
	toGuest, toPeer := newTap(t, p.sw, guestPort), newTap(t, p.sw, p.b.lanPort)
	nstest.Eventually(t, 3*time.Minute, "an advert of the guest", func() bool { return toGuest.count(fromVMAC(lanVHID)) > 0 })
	p.b.start()
	guestIs := func(state string) {
		t.Helper()
		nstest.Eventually(t, time.Minute, "the guest in "+state, func() bool {
			own := p.b.group("lan")
			return len(own.Pulses) == 1 && own.Pulses[0].Says == "lives" && own.Pulses[0].State == state &&
				(state == "BACKUP") == (own.State == "MASTER")
		})
	}
	for _, how := range []struct {
		name          string
		pause, resume func()
	}{
		{"the process", func() { _ = g.cmd.Process.Signal(unix.SIGSTOP) }, func() { _ = g.cmd.Process.Signal(unix.SIGCONT) }},
		{"the machine and its clock", func() { g.tell(t, "stop") }, func() { g.tell(t, "cont") }},
	} {
		if p.b.group("lan").State == "MASTER" { // after the case before
			if out, err := p.b.xcarp("handover"); err != nil {
				t.Fatalf("%s: %v: %s", how.name, err, out)
			}
		}
		guestIs("MASTER")
		p.b.waitInSync(time.Minute)

		how.pause()
		p.b.waitState(3*time.Second, "MASTER", "lan")
		asked := 0
		ask := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); asked++ {
				toGuest.send(arpRequest(t))
				toPeer.send(arpRequest(t))
				wait(t, 20*time.Millisecond) // the pace of the questions
			}
		}
		ask(time.Second)
		wait(t, guestPaused)
		toGuest.forget()
		how.resume()
		ask(3 * time.Second)
		if n := toGuest.count(answersFor(shared4)); n != 0 {
			t.Errorf("%s: the guest that woke up answered %d times", how.name, n)
		}
		nstest.Eventually(t, 5*time.Second, "all answers of the master", func() bool { return toPeer.count(answersFor(shared4)) >= asked })
		if n := toPeer.count(answersFor(shared4)); n != asked {
			t.Errorf("%s: the master answered %d of %d questions", how.name, n, asked)
		}
		toPeer.forget()
		guestIs("BACKUP")
		t.Logf("%s: %s; %s", how.name, p.b.group("lan").Reason, strings.Join(p.b.log.transitions("lan"), " "))
	}
}
