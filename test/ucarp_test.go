package test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// A process is a foreign program in a namespace; it ends with the test.
type process struct {
	cmd *exec.Cmd
	log *logBuffer
}

func startIn(tb testing.TB, ns *nstest.NS, name string, arg ...string) *process {
	tb.Helper()
	nstest.RequireProgram(tb, name)
	p := &process{cmd: exec.Command(name, arg...), log: &logBuffer{}}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := ns.Start(p.cmd); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		p.kill()
		if tb.Failed() {
			tb.Logf("output of %s:\n%s", name, p.log)
		}
	})
	return p
}

func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

// ucarp starts the peer on the node's place in the LAN.
func ucarp(tb testing.TB, ns *nstest.NS, src string, advbase, advskew int, more ...string) *process {
	tb.Helper()
	return startIn(tb, ns, "ucarp", append([]string{
		"--interface=lan0", "--srcip=" + src, "--addr=10.0.0.1",
		fmt.Sprintf("--vhid=%d", lanVHID), "--pass=carpdiem",
		fmt.Sprintf("--advbase=%d", advbase), fmt.Sprintf("--advskew=%d", advskew),
		"--upscript=/bin/true", "--downscript=/bin/true",
	}, more...)...)
}

// waitLog waits until the program has said the text n times.
func (p *process) waitLog(tb testing.TB, limit time.Duration, text string, n int) {
	tb.Helper()
	nstest.Eventually(tb, limit, fmt.Sprintf("%q for the %d. time in the output", text, n), func() bool {
		return strings.Count(p.log.String(), text) >= n
	})
}

// ucarpConfig is one group that ucarp can be a member of: one IPv4 address and a
// password, no sync.
func ucarpConfig(n *node, advbase, advskew int) {
	n.write("xcarp.yaml", fmt.Sprintf(`node: %s
preempt: true
groups:
  lan: {vhid: %d, carpdev: lan0, addresses: [10.0.0.1/24], pass: carpdiem, advbase: %d, advskew: %d}
`, n.name, lanVHID, advbase, advskew))
	n.conf = filepath.Join(n.dir, "xcarp.yaml")
}

const (
	ucarpMaster = "Switching to state: MASTER"
	ucarpBackup = "Switching to state: BACKUP"
)

func TestUcarpIsRespectedFollowedAndGivenWayTo(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	ucarpConfig(p.b, 1, 100)
	peer := ucarp(t, p.a.ns, "10.0.0.2", 1, 0, "--preempt")
	peer.waitLog(t, 15*time.Second, ucarpMaster, 1)

	p.b.start()
	nstest.Eventually(t, 30*time.Second, "five adverts of ucarp accepted", func() bool { return p.b.group("lan").Received >= 5 })
	if got := p.b.log.transitions("lan"); strings.Join(got, " ") != "BACKUP" {
		t.Errorf("beside a better master: transitions %v, want BACKUP alone", got)
	}
	if got := p.b.group("lan").MastersSeen; len(got) != 1 || got[0] != "10.0.0.2" {
		t.Errorf("masters seen %v, want 10.0.0.2", got)
	}

	peer.kill()
	p.b.waitState(12*time.Second, "MASTER", "lan") // 3.39 s promised
	if mac := p.client.neighbour(t, "10.0.0.1"); mac != vMAC(lanVHID) {
		t.Errorf("the client resolves the address to %s, want %s", mac, vMAC(lanVHID))
	}

	peer = ucarp(t, p.a.ns, "10.0.0.2", 1, 0, "--preempt")
	peer.waitLog(t, 30*time.Second, ucarpMaster, 1)
	p.b.waitState(10*time.Second, "BACKUP", "lan")
}

func TestUcarpAcceptsOurAdvertsAndTakesOver(t *testing.T) {
	t.Parallel()
	const advbase = 3 // long enough to tell a goodbye from a timeout
	p := newPair(t)
	ucarpConfig(p.a, advbase, 0)
	p.a.start()
	p.a.waitState(30*time.Second, "MASTER", "lan")
	peer := ucarp(t, p.b.ns, "10.0.0.3", advbase, 100)
	peer.waitLog(t, 10*time.Second, ucarpBackup, 0)
	sent := p.a.group("lan").Sent
	nstest.Eventually(t, 60*time.Second, "four more adverts sent", func() bool { return p.a.group("lan").Sent >= sent+4 })
	if out := peer.log.String(); strings.Contains(out, ucarpMaster) || strings.Contains(out, "Bad digest") {
		t.Fatalf("ucarp does not accept our adverts:\n%s", out)
	}

	p.a.kill(unix.SIGTERM)
	// Its own timer would need 9.4 s from the last advert.
	peer.waitLog(t, 5*time.Second, ucarpMaster, 1)
	peer.kill()

	p.a.start()
	p.a.waitState(30*time.Second, "MASTER", "lan")
	peer = ucarp(t, p.b.ns, "10.0.0.3", advbase, 100)
	sent = p.a.group("lan").Sent
	nstest.Eventually(t, 30*time.Second, "two more adverts sent", func() bool { return p.a.group("lan").Sent >= sent+2 })
	p.a.kill(unix.SIGKILL)
	peer.waitLog(t, 40*time.Second, ucarpMaster, 1)
}
