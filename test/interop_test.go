package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/xcarp/xcarp/internal/nstest"
)

// save writes what the node sent into a file that tshark reads.
func (t *tap) save() string {
	t.tb.Helper()
	name := filepath.Join(t.tb.TempDir(), "wire.pcap")
	f, err := os.Create(name)
	if err != nil {
		t.tb.Fatal(err)
	}
	defer f.Close()
	w := pcapgo.NewWriter(f)
	if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		t.tb.Fatal(err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, p := range t.from {
		n := len(p.Data())
		info := gopacket.CaptureInfo{Timestamp: time.Unix(int64(i), 0), CaptureLength: n, Length: n}
		if err := w.WritePacket(info, p.Data()); err != nil {
			t.tb.Fatal(err)
		}
	}
	return name
}

// TestUcarpOnSeveralVHIDsWithTheTrailer: three vhids on one carpdev beside three
// ucarps, with adverts that have a trailer. Preemption both ways, the classic
// silence, and the goodbye.
func TestUcarpOnSeveralVHIDsWithTheTrailer(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	n := p.b
	n.conf = n.write("xcarp.yaml", fmt.Sprintf(`node: fw-b
key_file: %s
preempt: true
trailer: on
groups:
  better: {vhid: 11, carpdev: lan0, addresses: [10.0.0.11/24], pass: carpdiem, advskew: 0}
  worse: {vhid: 12, carpdev: lan0, addresses: [10.0.0.12/24], pass: carpdiem, advskew: 200}
  meek: {vhid: 13, carpdev: lan0, addresses: [10.0.0.13/24], pass: carpdiem, advskew: 0, preempt: false}
`, filepath.Join(n.dir, "xcarp.key")))
	peer := func(vhid int, more ...string) *process {
		return startIn(t, p.a.ns, "ucarp", append([]string{
			"--interface=lan0", "--srcip=10.0.0.2", fmt.Sprintf("--addr=10.0.0.%d", vhid), fmt.Sprintf("--vhid=%d", vhid),
			"--pass=carpdiem", "--advbase=1", "--advskew=100", "--upscript=/bin/true", "--downscript=/bin/true"}, more...)...)
	}
	wire := newTap(t, p.sw, n.lanPort)

	// They are masters already: one is preempted, one is respected.
	u11, u13 := peer(11, "--preempt"), peer(13)
	u11.waitLog(t, 20*time.Second, ucarpMaster, 1)
	u13.waitLog(t, 20*time.Second, ucarpMaster, 1)
	n.start()
	n.waitState(30*time.Second, "MASTER", "better")
	u11.waitLog(t, 15*time.Second, ucarpBackup, 2) // its start, and now
	nstest.Eventually(t, 30*time.Second, "five adverts of the ucarp of vhid 13 accepted", func() bool { return n.group("meek").Received >= 5 })
	if got := strings.Join(n.log.transitions("meek"), " "); got != "BACKUP" {
		t.Errorf("without preempt beside a slower master: transitions %s, want BACKUP alone", got)
	}
	// We are master already: a better one preempts us.
	n.waitState(30*time.Second, "MASTER", "worse")
	u12 := peer(12, "--preempt")
	u12.waitLog(t, 30*time.Second, ucarpMaster, 1)
	n.waitState(15*time.Second, "BACKUP", "worse")

	// Silence, and goodbye.
	u12.kill()
	n.waitState(15*time.Second, "MASTER", "worse") // 3.8 s promised
	u13.kill()
	n.waitState(15*time.Second, "MASTER", "meek")
	u12 = peer(12)
	sent := n.group("worse").Sent
	nstest.Eventually(t, 30*time.Second, "four adverts more", func() bool { return n.group("worse").Sent >= sent+4 })
	for _, u := range []*process{u11, u12, u13} {
		if out := u.log.String(); strings.Contains(out, "Bad") || strings.Contains(out, "Invalid") {
			t.Errorf("ucarp complains:\n%s", out)
		}
	}
	for _, g := range []string{"better", "worse", "meek"} {
		if d := n.group(g).Drops; d["badauth"] != 0 || d["badsum"] != 0 {
			t.Errorf("%s refused adverts of ucarp: %v", g, d)
		}
	}

	// A foreign dissector finds the checksum right, trailer or not.
	tshark := nstest.RequireProgram(t, "tshark")
	out, err := exec.CommandContext(t.Context(), tshark, "-r", wire.save(), "-d", "ip.proto==112,carp", "-Y", "carp",
		"-T", "fields", "-E", "separator=,", "-e", "carp.checksum.status", "-e", "ip.len", "-e", "eth.src", "-e", "carp.vhid").Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	vhids := map[string]int{}
	for _, l := range lines {
		f := strings.Split(l, ",")
		if len(f) != 4 || f[0] != "Good" && f[0] != "1" || f[1] != "104" { // 20 + 36 + 48
			t.Errorf("tshark: checksum, length, source, vhid are %q; want Good, 104", l)
		}
		vhids[f[3]]++
	}
	for _, v := range []string{"11", "12", "13"} {
		if vhids[v] == 0 {
			t.Errorf("no advert of vhid %s among %d", v, len(lines))
		}
	}
	t.Logf("%d adverts with a trailer, all checksums good for tshark", len(lines))
}
