package loader

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/nstest"
)

// pulseNode is one of two nodes that share a LAN and a sync cable.
type pulseNode struct {
	ns     *nstest.NS
	dir    string
	port   *Port
	pulses *Pulses
	sync   *Sync
}

const syncDev = "sync0"

func newPulseNode(t *testing.T, name string) *pulseNode {
	return &pulseNode{ns: nstest.New(t, name), dir: pinDir(t)}
}

// newPulsePair joins two nodes by eth0.7 and sync0, not opened yet.
func newPulsePair(t *testing.T) (a, b *pulseNode) {
	t.Helper()
	a, b = newPulseNode(t, "a"), newPulseNode(t, "b")
	nstest.Veth(t, a.ns, nodeDev, b.ns, nodeDev)
	nstest.Veth(t, a.ns, syncDev, b.ns, syncDev)
	return a, b
}

func (n *pulseNode) open(t *testing.T, o Options) {
	t.Helper()
	o.PinDir = n.dir
	n.ns.Must(func() (err error) {
		if n.pulses, err = OpenPulses(n.dir); err != nil {
			return err
		}
		if n.port, err = Open(nodeDev, o); err != nil {
			return err
		}
		n.sync, err = n.pulses.AttachSync(syncDev, o)
		return err
	})
	pulses, port, sync := n.pulses, n.port, n.sync
	t.Cleanup(func() {
		if err := errors.Join(sync.Close(), port.Close(), pulses.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := n.port.SetGroup(testVHID, []netip.Addr{shared4}); err != nil {
		t.Fatal(err)
	}
	if err := n.pulses.Serve(testGroup, n.port, testVHID); err != nil {
		t.Fatal(err)
	}
}

// asker sends pulses of a node on one of its devices.
type asker struct {
	fd       int
	from, to net.HardwareAddr
}

func (n *pulseNode) asker(t testing.TB, dev string, to net.HardwareAddr) *asker {
	t.Helper()
	a := &asker{to: to}
	n.ns.Must(func() error {
		d, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		a.from = d.Attrs().HardwareAddr
		if a.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(a.fd, &unix.SockaddrLinklayer{Ifindex: d.Attrs().Index})
	})
	t.Cleanup(func() { unix.Close(a.fd) })
	return a
}

func (a *asker) send(t testing.TB, p carp.Pulse) carp.Pulse {
	t.Helper()
	p.Nonce = uint64(bootNow())
	b := testPulseKey.AppendFrame(nil, carp.MAC(a.to), carp.MAC(a.from), &p)
	if _, err := unix.Write(a.fd, b); err != nil {
		t.Fatal(err)
	}
	return p
}

// answer waits until what was sent is answered on the path.
func answer(t testing.TB, read func() (Heard, bool), p carp.Pulse) Heard {
	t.Helper()
	deadline := bootNow() + 3*time.Second
	for {
		h, ok := read()
		if ok && h.Nonce == p.Nonce {
			return h
		}
		if bootNow() > deadline {
			t.Fatalf("no answer within 3 s; the last is %+v, %v", h, ok)
		}
	}
}

func hardwareAddr(t testing.TB, n *pulseNode, dev string) (mac net.HardwareAddr) {
	n.ns.Must(func() error {
		d, err := netlink.LinkByName(dev)
		if err == nil {
			mac = d.Attrs().HardwareAddr
		}
		return err
	})
	return mac
}

// Two nodes, real frames: b asks a over the LAN and over the sync cable, in every
// mode, and then claims what a has.
func TestPulsesOnTheWire(t *testing.T) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			a, b := newPulsePair(t)
			a.open(t, m.o)
			b.open(t, m.o)
			a.ns.Must(func() error { return errors.Join(a.port.Recheck(), a.sync.Recheck()) })
			t.Logf("carpdev %s, answers by %s; sync %s, by %s", a.port.Mode(), a.port.Answer(), a.sync.Mode(), a.sync.Answer())
			if err := a.pulses.Answer(testSession, testPulseKey); err != nil {
				t.Fatal(err)
			}
			a.port.SetTerm(testVHID, testTerm)
			a.port.Stamp(testVHID, carp.BootTime(bootNow()))
			if err := a.port.SetRole(testVHID, master(time.Minute)); err != nil {
				t.Fatal(err)
			}
			for i, dev := range []string{nodeDev, syncDev} {
				path := b.pulses.Path(i)
				if err := path.Set(testPulseKey, testSession, testGroup); err != nil {
					t.Fatal(err)
				}
				s := b.asker(t, dev, hardwareAddr(t, a, dev))
				var rtt []time.Duration
				for range 100 {
					p := s.send(t, carp.Pulse{Kind: carp.PulseAsk, Path: uint16(i), Session: testSession, Group: testGroup})
					h := answer(t, path.Last, p)
					if h.Kind != carp.PulseAnswer || h.Role != carp.Master || h.Term != testTerm || h.Lease <= 0 || h.Lease > time.Minute {
						t.Fatalf("%s: got %+v", dev, h)
					}
					rtt = append(rtt, carp.SinceBoot(h.At)-time.Duration(p.Nonce))
				}
				slices.Sort(rtt)
				t.Logf("%s: round trip p50 %v, p99 %v", dev, rtt[50], rtt[99])
				t.Attr("rtt_p50_us_"+dev, fmt.Sprint(rtt[50].Microseconds()))
			}
			// The claim goes over the sync cable alone: it takes what the carpdev has.
			s, path := b.asker(t, syncDev, hardwareAddr(t, a, syncDev)), b.pulses.Path(1)
			last, _ := path.Last()
			p := s.send(t, carp.Pulse{
				Kind: carp.PulseClaim, Path: 1, Session: testSession, Group: testGroup, Term: testTerm + 1, Challenge: last.Challenge,
			})
			if h := answer(t, path.Claimed, p); h.Kind != carp.PulseAck || h.Role != carp.Drain || h.Term != testTerm+1 {
				t.Errorf("claim: got %+v", h)
			}
			if got := a.port.Role(testVHID).State; got != carp.Drain && got != carp.Backup {
				t.Errorf("role: got %v", got)
			}
			events, err := a.pulses.Events()
			if err != nil {
				t.Fatal(err)
			}
			defer events.Close()
			if e, err := events.Read(); err != nil || !e.Acked || e.Term != testTerm+1 || e.Group != testGroup || e.Role != carp.Master {
				t.Errorf("event: %+v, %v", e, err)
			}
			n, err := a.sync.Counters()
			if err != nil || n["pulse_asked"] != 100 || n["pulse_claimed"] != 1 {
				t.Errorf("counters of the sync device: %v, %v", n, err)
			}
		})
	}
}

// What a process leaves behind goes on answering, and the next one finds it.
func TestPulsesOutliveTheProcess(t *testing.T) {
	a, b := newPulsePair(t)
	a.open(t, Options{})
	b.open(t, Options{})
	if err := a.pulses.Answer(testSession, testPulseKey); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.sync.Close(), a.port.Close(), a.pulses.Close()); err != nil {
		t.Fatal(err)
	}
	path := b.pulses.Path(0)
	if err := path.Set(testPulseKey, testSession, testGroup); err != nil {
		t.Fatal(err)
	}
	for _, dev := range []string{nodeDev, syncDev} {
		s := b.asker(t, dev, hardwareAddr(t, a, dev))
		answer(t, path.Last, s.send(t, carp.Pulse{Kind: carp.PulseAsk, Session: testSession, Group: testGroup}))
	}
	before := a.syncProgram(t)
	a.open(t, Options{})
	if sessions, err := a.pulses.Sessions(); err != nil || !slices.Equal(sessions, []uint32{testSession}) {
		t.Errorf("sessions: %v, %v", sessions, err)
	}
	if groups, err := a.pulses.Groups(); err != nil || !slices.Equal(groups, []uint32{testGroup}) {
		t.Errorf("groups: %v, %v", groups, err)
	}
	if before == 0 || a.syncProgram(t) == 0 {
		t.Error("the sync device has no XDP program")
	}
	s := b.asker(t, syncDev, hardwareAddr(t, a, syncDev))
	answer(t, path.Last, s.send(t, carp.Pulse{Kind: carp.PulseAsk, Session: testSession, Group: testGroup}))
	if err := a.pulses.Forget(testSession); err != nil {
		t.Fatal(err)
	}
	if sessions, err := a.pulses.Sessions(); err != nil || len(sessions) != 0 {
		t.Errorf("sessions: %v, %v", sessions, err)
	}
}

// syncProgram is the id of the XDP program on the sync device.
func (n *pulseNode) syncProgram(t *testing.T) (id uint32) {
	t.Helper()
	n.ns.Must(func() error {
		d, err := netlink.LinkByName(syncDev)
		if err == nil && d.Attrs().Xdp != nil {
			id = d.Attrs().Xdp.ProgId
		}
		return err
	})
	return id
}

func TestDetachTakesPulsesAwayToo(t *testing.T) {
	requirePrograms(t, "tc")
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			a, _ := newPulsePair(t)
			before := a.filters(t)
			a.open(t, m.o)
			if a.filters(t) == before {
				t.Fatal("cannot see the difference that an open node makes")
			}
			a.ns.Must(func() error {
				removed, err := Detach(a.dir, false)
				t.Log(removed)
				return err
			})
			if entries, err := os.ReadDir(a.dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("pins left: %v, %v", entries, err)
			}
			if got := a.filters(t); got != before {
				t.Errorf("left behind:\n%s\nwant\n%s", got, before)
			}
			if id := a.syncProgram(t); id != 0 {
				t.Errorf("program %d is left on the sync device", id)
			}
		})
	}
}

// filters is what XDP and tc have on the sync device.
func (n *pulseNode) filters(t *testing.T) string {
	t.Helper()
	tcx := 0
	n.ns.Must(func() error {
		d, err := netlink.LinkByName(syncDev)
		if err != nil {
			return err
		}
		q, err := link.QueryPrograms(link.QueryOptions{Target: d.Attrs().Index, Attach: ebpf.AttachTCXIngress})
		if err == nil { // the kernel has tcx
			tcx = len(q.Programs)
		}
		return nil
	})
	return fmt.Sprint("xdp ", n.syncProgram(t) != 0, ", tcx ", tcx, ", ", n.ns.Exec("tc", "qdisc", "show", "dev", syncDev))
}

// A carpdev that is taken off alone is no longer served.
func TestDetachedCarpdevLeavesItsSlot(t *testing.T) {
	a, _ := newPulsePair(t)
	a.open(t, Options{})
	a.ns.Must(func() error {
		_, err := DetachPort(a.dir, nodeDev)
		return err
	})
	if groups, err := a.pulses.Groups(); err != nil || len(groups) != 0 {
		t.Errorf("groups: %v, %v", groups, err)
	}
	if err := a.pulses.Serve(testGroup, a.port, testVHID); err != nil {
		t.Fatal(err)
	}
	slot, taken, err := slotOf(a.pulses.maps.byName[xdpMapPulsePorts], a.port.maps.byName[xdpMapVhids])
	if err != nil || !taken || slot != 0 {
		t.Errorf("slot %d, %v, %v; want the first one again", slot, taken, err)
	}
}

// Somebody's XDP program on the sync device stays, and tc answers.
func TestForeignXDPOnTheSyncDevice(t *testing.T) {
	a, b := newPulsePair(t)
	a.ns.Must(func() error { return AttachPass(syncDev) })
	foreign := a.syncProgram(t)
	a.open(t, Options{Log: zap.NewNop()})
	b.open(t, Options{})
	if a.sync.Mode() != TC || a.sync.Answer() != "tc" {
		t.Errorf("mode %s, answers by %s; want tc", a.sync.Mode(), a.sync.Answer())
	}
	if err := a.pulses.Answer(testSession, testPulseKey); err != nil {
		t.Fatal(err)
	}
	path := b.pulses.Path(0)
	if err := path.Set(testPulseKey, testSession, testGroup); err != nil {
		t.Fatal(err)
	}
	s := b.asker(t, syncDev, hardwareAddr(t, a, syncDev))
	answer(t, path.Last, s.send(t, carp.Pulse{Kind: carp.PulseAsk, Session: testSession, Group: testGroup}))
	a.ns.Must(func() error {
		_, err := Detach(a.dir, false)
		return err
	})
	if got := a.syncProgram(t); got != foreign {
		t.Errorf("program on the sync device: got %d, want the foreign one, %d", got, foreign)
	}
}

// A sync device that is a carpdev has all it needs; one that becomes one gets it.
func TestSyncDeviceThatIsACarpdev(t *testing.T) {
	a, _ := newPulsePair(t)
	a.open(t, Options{})
	a.ns.Must(func() error {
		if _, err := a.pulses.AttachSync(nodeDev, Options{PinDir: a.dir}); !errors.Is(err, ErrCarpdev) {
			t.Errorf("got %v, want ErrCarpdev", err)
		}
		p, err := Open(syncDev, Options{PinDir: a.dir})
		if err != nil {
			return err
		}
		return p.Undo()
	})
}

func TestUndoLeavesNoPins(t *testing.T) {
	a, _ := newPulsePair(t)
	a.open(t, Options{})
	a.ns.Must(func() error { return errors.Join(a.sync.Undo(), a.port.Undo(), a.pulses.Undo()) })
	if entries, err := os.ReadDir(a.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins left: %v, %v", entries, err)
	}
}

// Another build's maps for pulses go, with the programs on the sync device.
func TestPulsesOfAnotherLayout(t *testing.T) {
	a, _ := newPulsePair(t)
	a.open(t, Options{})
	if err := errors.Join(a.sync.Close(), a.port.Close(), a.pulses.Close()); err != nil {
		t.Fatal(err)
	}
	old := a.dir + "/" + nodePrefix + "1"
	if err := os.Rename(nodeDir(a.dir), old); err != nil {
		t.Fatal(err)
	}
	a.open(t, Options{})
	if exists(old) {
		t.Errorf("%s is left", old)
	}
	if a.sync.Mode() != Native {
		t.Errorf("sync device: mode %s, want native", a.sync.Mode())
	}
}

// BenchmarkPulseLast reads an answer through the memory that the programs write.
func BenchmarkPulseLast(b *testing.B) {
	r := newPulseRig(b)
	in := r.ask(func(p *carp.Pulse) { p.Kind = carp.PulseAnswer })
	r.run(b, xdpProgCarpXdp, nil, frame(in))
	path := r.pulses.Path(int(testPath))
	b.ReportAllocs()
	for b.Loop() {
		if h, ok := path.Last(); !ok || h.Nonce != in.Nonce {
			b.Fatal(h, ok)
		}
	}
	if n := testing.AllocsPerRun(100, func() { path.Last() }); n != 0 {
		b.Errorf("%v allocations", n)
	}
}

// BenchmarkPulseRTT reports what pulses cost in XDP. A frame is not restored between
// repetitions, so each ask that is answered (two MACs) is a run of its own, which
// cannot be timed as finely: the foreign frame says by how much.
func BenchmarkPulseRTT(b *testing.B) {
	r := newPulseRig(b)
	r.word(carp.Master, time.Hour)
	forged := frame(r.ask())
	forged[len(forged)-1] ^= 1
	heard := r.ask(func(p *carp.Pulse) { p.Kind = carp.PulseAnswer })
	foreign := ethernet(ownMAC, clientMAC, 0x0800, ipv4(client4, own4, 17, 64, make([]byte, 26)))
	for _, c := range []struct {
		name   string
		repeat int
		in     func() []byte
	}{
		{"ask", 1, func() []byte { return frame(r.ask()) }},
		{"foreign frame alone", 1, func() []byte { return foreign }},
		{"forged ask", 10000, func() []byte { return forged }},
		{"answer", 10000, func() []byte { return frame(heard) }},
		{"foreign frame", 10000, func() []byte { return foreign }},
	} {
		b.Run(c.name, func(b *testing.B) {
			var all []time.Duration
			for b.Loop() {
				_, d, err := r.prog(b, xdpProgCarpXdp).Benchmark(c.in(), c.repeat, nil)
				if err != nil {
					b.Fatal(err)
				}
				all = append(all, d)
			}
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)/2].Nanoseconds()), "p50-ns/frame")
			b.ReportMetric(0, "ns/op")
		})
	}
}
