package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// standin is a pair made of plain kernel means. fw-a is always MASTER and sends
// heartbeats over the sync cable; fw-b takes the shared addresses and MACs when
// it has heard none for a time, and gives them up when it hears one again. It
// mirrors no state.
type standin struct {
	silence time.Duration

	mu     sync.Mutex
	active bool // fw-b
	beat   time.Time
	stop   context.CancelFunc
	wg     sync.WaitGroup
}

// shared is what the active router holds: by interface, MAC and addresses.
var shared = []struct {
	dev   string
	mac   net.HardwareAddr
	v4    string
	v6    string
	plain net.HardwareAddr // of an inactive router; its node number is filled in
}{
	{"eth0", net.HardwareAddr{0, 0, 0x5e, 0, 1, 1}, SharedWAN, "2001:db8:1::1", net.HardwareAddr{2, 0, 0, 0, 1, 0}},
	{"eth1", net.HardwareAddr{0, 0, 0x5e, 0, 1, 2}, SharedLAN, "fd00:1::1", net.HardwareAddr{2, 0, 0, 0, 2, 0}},
}

// system returns the stand-in and ends it with the test.
func (s *standin) system(tb testing.TB) System {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	return System{
		Name: "standin",
		Prepare: func(_ context.Context, n *Net) error {
			if err := take(n.A, true); err != nil {
				return err
			}
			s.beat = time.Now()
			return s.watch(ctx, n)
		},
		Start: func(_ context.Context, r *Node) error {
			return r.Start(exec.Command("sleep", "300"))
		},
		Status: func(_ context.Context, r *Node) (Status, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			role := Master
			if r.Name == "fw-b" && !s.active {
				role = Backup
			}
			return Status{Groups: map[string]Role{"wan": role, "lan": role}, InSync: true, XDPMode: "none"}, nil
		},
	}
}

// end stops the stand-in and waits for it. The lab must still stand.
func (s *standin) end() {
	s.stop()
	s.wg.Wait()
}

// take gives a router the shared addresses and MACs, or takes them away.
func take(r *Node, on bool) error {
	for _, sh := range shared {
		l, err := r.h.LinkByName(sh.dev)
		if err != nil {
			return err
		}
		mac := sh.mac
		if !on {
			mac = append(net.HardwareAddr(nil), sh.plain...)
			mac[5] = r.Name[3]
		}
		if err := r.h.LinkSetHardwareAddr(l, mac); err != nil {
			return err
		}
		for cidr, change := range map[string]func(netlink.Link, *netlink.Addr) error{
			sh.v4 + "/24": r.h.AddrDel, sh.v6 + "/64": r.h.AddrDel,
		} {
			a, err := netlink.ParseAddr(cidr)
			if err != nil {
				return err
			}
			if on {
				a.Flags |= unix.IFA_F_NODAD
				change = r.h.AddrReplace
			}
			if err := change(l, a); err != nil && (on || !errors.Is(err, unix.EADDRNOTAVAIL)) {
				return fmt.Errorf("%s of %s: %w", cidr, r.Name, err)
			}
		}
	}
	if on {
		return announce(r)
	}
	return nil
}

// announce sends a gratuitous ARP request for each shared address.
func announce(r *Node) error {
	for _, sh := range shared {
		l, err := r.h.LinkByName(sh.dev)
		if err != nil {
			return err
		}
		fd, err := packetSocket(r.NS.Do, l.Attrs().Index, 0, nil)
		if err != nil {
			return err
		}
		addr := netip.MustParseAddr(sh.v4)
		_, err = unix.Write(fd, arpRequest(sh.mac, addr, addr))
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return err
		}
	}
	return nil
}

// watch runs the heartbeat.
func (s *standin) watch(ctx context.Context, n *Net) error {
	var in, out net.PacketConn
	err := n.B.NS.Do(func() (err error) {
		in, err = net.ListenPacket("udp4", "172.30.0.2:4112") // the port that the ruleset lets in
		return err
	})
	if err != nil {
		return err
	}
	err = n.A.NS.Do(func() (err error) {
		out, err = net.ListenPacket("udp4", "172.30.0.1:0")
		return err
	})
	if err != nil {
		return err
	}
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("172.30.0.2:4112"))
	a, b := n.A, n.B // Close forgets them
	s.wg.Go(func() {
		defer out.Close()
		for i := 0; ; i++ {
			if _, err := out.WriteTo([]byte{1}, to); err == nil && i%10 == 0 {
				_ = announce(a) // so that the switch finds fw-a again after a cut
			}
			if wait(ctx, 10*time.Millisecond) != nil {
				return
			}
		}
	})
	s.wg.Go(func() {
		defer in.Close()
		buf := make([]byte, 8)
		for ctx.Err() == nil {
			_ = in.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			_, _, err := in.ReadFrom(buf)
			s.mu.Lock()
			if err == nil {
				s.beat = time.Now()
			}
			active := time.Since(s.beat) > s.silence
			if active != s.active && ctx.Err() == nil && take(b, active) == nil {
				s.active = active
			}
			s.mu.Unlock()
		}
	})
	return nil
}

func pid() string { return fmt.Sprint(os.Getpid()) }
