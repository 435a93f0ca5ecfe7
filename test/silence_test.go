package test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/gopacket/gopacket"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// ask sends n ARP requests, solicitations and pings for the shared LAN addresses
// straight to the node: pings both to the vMAC and to the node's own MAC.
func ask(t *testing.T, n *node, tap *tap, rounds int) {
	t.Helper()
	own := mac(t, n.ns, "lan0")
	// The asker is a neighbour already: a node that wants to answer a ping need
	// not resolve it first.
	n.ns.Exec("ip", "neigh", "replace", asker4.String(), "lladdr", askerMAC.String(), "dev", "lan0")
	vmac := net.HardwareAddr{0, 0, 0x5e, 0, 1, lanVHID}
	for i := range rounds {
		tap.send(arpRequest(t))
		tap.send(solicitation(t))
		dst := own
		if i%2 == 0 {
			dst = vmac
		}
		tap.send(echoRequest(t, dst, uint16(i)))
	}
}

// mac returns the hardware address of an interface.
func mac(tb testing.TB, ns *nstest.NS, dev string) net.HardwareAddr {
	tb.Helper()
	var mac net.HardwareAddr
	ns.Must(func() error {
		i, err := net.InterfaceByName(dev)
		if err == nil {
			mac = i.HardwareAddr
		}
		return err
	})
	return mac
}

// answered counts the answers by kind: for the IPv4 address (ARP and echo) and
// for the IPv6 address.
func answered(tap *tap) (v4, v6 int) {
	return tap.count(answersFor(shared4)), tap.count(answersFor(shared6))
}

// The control of all silence below: the same questions to a master are all
// answered, from the vMAC.
func TestMasterAnswersEveryQuestion(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.start()
	p.a.waitState(15*time.Second, "MASTER", "lan")
	nstest.Eventually(t, 5*time.Second, "the kernel has the address", func() bool {
		return p.a.holds("lan0", "10.0.0.1/32")
	})
	tap := newTap(t, p.sw, p.a.lanPort)
	ask(t, p.a, tap, 100)
	var v4, v6 int
	nstest.Eventually(t, 10*time.Second, "100 answers each by ARP, echo and ND", func() bool {
		v4, v6 = answered(tap)
		return v4 >= 200 && v6 >= 100
	})
	if v4 != 200 || v6 != 100 {
		t.Errorf("got %d answers by ARP and echo and %d by ND, want 200 and 100", v4, v6)
	}
}

// A backup is silent, however it came to be one.
func TestSilence(t *testing.T) {
	for _, tt := range []struct {
		name  string
		reach func(t *testing.T, p *pair) // brings p.b there
	}{
		{"backup", func(t *testing.T, p *pair) {
			p.a.start()
			p.a.waitState(15*time.Second, "MASTER", "lan", "wan")
			p.b.start()
			p.b.waitState(15*time.Second, "BACKUP", "lan", "wan")
		}},
		{"init after an orderly stop", func(t *testing.T, p *pair) {
			p.b.start()
			p.b.waitState(15*time.Second, "MASTER", "lan", "wan")
			p.b.kill(unix.SIGTERM)
		}},
		{"daemon killed and lease over", func(t *testing.T, p *pair) {
			p.b.start()
			p.b.waitState(15*time.Second, "MASTER", "lan", "wan")
			p.b.kill(unix.SIGKILL)
			leaseOver(t, p)
		}},
		{"daemon stopped and lease over", func(t *testing.T, p *pair) {
			p.b.start()
			p.b.waitState(15*time.Second, "MASTER", "lan", "wan")
			p.b.signal(unix.SIGSTOP)
			t.Cleanup(func() { p.b.signal(unix.SIGCONT) })
			leaseOver(t, p)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			tt.reach(t, p)
			tap := newTap(t, p.sw, p.b.lanPort)
			end := time.After(10 * time.Second)
			ask(t, p.b, tap, 100)
			<-end // silence has no event
			if v4, v6 := answered(tap); v4 != 0 || v6 != 0 {
				t.Errorf("got %d answers by ARP and echo and %d by ND, want none", v4, v6)
			}
			if n := tap.count(fromVMAC(lanVHID)); n != 0 {
				t.Errorf("got %d frames from the vMAC, want none", n)
			}
		})
	}
}

// leaseOver waits until the role of b, whose daemon cannot answer, is over: what its
// word in the pinned map holds has passed, as the programs read it.
func leaseOver(t *testing.T, p *pair) {
	t.Helper()
	vhids, err := ebpf.LoadPinnedMap(filepath.Join(p.b.pin, "lan0", "vhids"), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer vhids.Close()
	nstest.Eventually(t, 10*time.Second, "the lease is over", func() bool {
		v, err := vhids.LookupBytes(uint32(lanVHID))
		if err != nil || v == nil {
			t.Fatalf("read the role of vhid %d: %v", lanVHID, err)
		}
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
			t.Fatal(err)
		}
		until := binary.NativeEndian.Uint64(v) &^ 3 // two bits are the state: bpf/carp.h
		return uint64(now.Nano()) >= until
	})
}

// A master that was stopped, lost its lease to the peer and wakes at any moment
// after that never speaks again for what it had.
func TestSilenceAfterResume(t *testing.T) {
	t.Parallel()
	repeats := 20
	if os.Getenv("XCARP_TEST_LONG") == "1" {
		repeats = 100
	}
	p := newPair(t)
	for _, n := range []*node{p.a, p.b} {
		// Quick timers, and nobody preempts: whoever loses the role stays silent.
		n.write("xcarp.yaml", fmt.Sprintf(`node: %s
groups:
  lan: {vhid: %d, carpdev: lan0, addresses: [10.0.0.1/24, "fd00:1::1/64"], pass: carpdiem, advbase: 0, advskew: 100}
`, n.name, lanVHID))
	}
	master, other := p.a, p.b
	master.start()
	master.waitState(15*time.Second, "MASTER", "lan")
	other.start()
	other.waitState(15*time.Second, "BACKUP", "lan")
	taps := map[*node]*tap{p.a: newTap(t, p.sw, p.a.lanPort), p.b: newTap(t, p.sw, p.b.lanPort)}

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range repeats {
		master.signal(unix.SIGSTOP)
		other.waitState(10*time.Second, "MASTER", "lan")
		tap := taps[master]
		tap.forget()
		time.Sleep(time.Duration(r.Int64N(int64(800 * time.Millisecond)))) // the random moment
		master.signal(unix.SIGCONT)
		for range 5 {
			tap.send(arpRequest(t))
			tap.send(solicitation(t))
		}
		master.waitState(10*time.Second, "BACKUP", "lan")
		heard := master.group("lan").Received
		nstest.Eventually(t, 10*time.Second, "two adverts of the new master heard", func() bool { return master.group("lan").Received >= heard+2 })
		spoke := func(p gopacket.Packet) bool {
			return fromVMAC(lanVHID)(p) || answersFor(shared4)(p) || answersFor(shared6)(p)
		}
		if n := tap.count(spoke); n != 0 {
			t.Fatalf("repeat %d: %s sent %d frames for a role it had lost", i, master.name, n)
		}
		if s := other.group("lan").State; s != "MASTER" {
			t.Fatalf("repeat %d: %s is %s after the old master woke", i, other.name, s)
		}
		master, other = other, master
	}
}
