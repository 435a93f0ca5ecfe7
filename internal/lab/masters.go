package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	mastersTries = 3
	arpRequests  = 20
	arpInterval  = 20 * time.Millisecond
	arpSettle    = 300 * time.Millisecond // an answer can be late on a veth, see attachPass
)

// Masters is who answers for the shared LAN address.
type Masters struct {
	Requests int      `json:"requests"`
	Answers  int      `json:"answers"`  // replies that reached the client
	MACs     []string `json:"macs"`     // distinct sender hardware addresses in them
	Repliers []string `json:"repliers"` // routers from whose port a reply came
}

// Count is the number of masters: distinct repliers or distinct MACs, whichever
// is more, because all members of a group answer with the same virtual MAC.
func (m Masters) Count() int { return max(len(m.MACs), len(m.Repliers)) }

// moved reports whether both routers answered, and no request twice: the role went from
// one to the other meanwhile.
func (m Masters) moved() bool { return m.Count() > 1 && m.Answers <= m.Requests }

// Masters asks who is master, anew if the role moves meanwhile.
func (n *Net) Masters(ctx context.Context) (m Masters, err error) {
	for range mastersTries {
		if m, err = n.askMasters(ctx); err != nil || !m.moved() {
			break
		}
	}
	return m, err
}

// askMasters asks for the shared LAN address by ARP, from the client, and watches
// the client's interface and the ports of both routers for answers.
func (n *Net) askMasters(ctx context.Context) (Masters, error) {
	m := Masters{Requests: arpRequests, MACs: []string{}, Repliers: []string{}}
	dev, err := n.Client.h.LinkByName("eth0")
	if err != nil {
		return m, fmt.Errorf("find eth0 of the client: %w", err)
	}
	mac := dev.Attrs().HardwareAddr
	client, shared := netip.MustParseAddr(clientAddr), netip.MustParseAddr(SharedLAN)

	fd, err := packetSocket(n.Client.NS.Do, dev.Attrs().Index, unix.ETH_P_ARP, nil)
	if err != nil {
		return m, err
	}
	defer unix.Close(fd)
	taps := map[string]int{}
	for _, r := range n.Routers() {
		port := n.sw.ports[portKey{r.Name, "lan"}]
		// A bridge takes the frames of its ports before sockets of one protocol
		// see them; only ETH_P_ALL comes first.
		tap, err := packetSocket(n.sw.ns.Do, port.Attrs().Index, unix.ETH_P_ALL, arpFilter)
		if err != nil {
			return m, err
		}
		defer unix.Close(tap)
		taps[r.Name] = tap
	}

	for range arpRequests {
		if _, err := unix.Write(fd, arpRequest(mac, client, shared)); err != nil {
			return m, fmt.Errorf("send an ARP request from the client: %w", err)
		}
		if err := wait(ctx, arpInterval); err != nil {
			return m, err
		}
	}
	if err := wait(ctx, arpSettle); err != nil {
		return m, err
	}
	macs := map[string]bool{}
	for _, frame := range incoming(fd) {
		if from, ok := arpReply(frame, shared, client); ok {
			m.Answers++
			if !macs[from] {
				macs[from] = true
				m.MACs = append(m.MACs, from)
			}
		}
	}
	for _, r := range n.Routers() {
		for _, frame := range incoming(taps[r.Name]) {
			if _, ok := arpReply(frame, shared, client); ok {
				m.Repliers = append(m.Repliers, r.Name)
				break
			}
		}
	}
	return m, nil
}

// arpFilter lets ARP through.
var arpFilter = assemble([]bpf.Instruction{
	bpf.LoadAbsolute{Off: 12, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_ARP, SkipFalse: 1},
	bpf.RetConstant{Val: 128},
	bpf.RetConstant{Val: 0},
})

// assemble turns a fixed program into what the kernel takes.
func assemble(program []bpf.Instruction) []unix.SockFilter {
	raw, err := bpf.Assemble(program)
	if err != nil {
		panic(err) // the program is a constant
	}
	var filter []unix.SockFilter
	for _, i := range raw {
		filter = append(filter, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	return filter
}

// packetSocket opens an AF_PACKET socket on an interface. Reads do not block.
// filter, if any, is in effect before the first frame.
func packetSocket(do func(func() error) error, index int, proto uint16, filter []unix.SockFilter) (int, error) {
	fd := -1
	err := do(func() error {
		var err error
		// Protocol 0: nothing is queued before the filter is there.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		if len(filter) > 0 {
			prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
			if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
				return err
			}
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(proto), Ifindex: index})
	})
	if err != nil {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
		return -1, fmt.Errorf("listen on interface %d: %w", index, err)
	}
	return fd, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// incoming drains the socket and returns the frames that came from the wire.
func incoming(fd int) [][]byte {
	var frames [][]byte
	for {
		buf := make([]byte, 128)
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return frames
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		frames = append(frames, buf[:n])
	}
}

// arpRequest is the frame of RFC 826: who has target, tell sender.
func arpRequest(mac net.HardwareAddr, sender, target netip.Addr) []byte {
	b := make([]byte, 0, 42)
	b = append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	b = append(b, mac...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_ARP)
	b = append(b, 0, 1, 0x08, 0x00, 6, 4, 0, 1) // Ethernet, IPv4, request
	b = append(b, mac...)
	b = append(b, sender.AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, target.AsSlice()...)
}

// arpReply returns the sender hardware address of a reply that tells asker who
// has the address. Announcements go to nobody in particular and do not count.
func arpReply(frame []byte, addr, asker netip.Addr) (mac string, ok bool) {
	if len(frame) < 42 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_ARP || frame[21] != 2 {
		return "", false
	}
	sender, _ := netip.AddrFromSlice(frame[28:32])
	target, _ := netip.AddrFromSlice(frame[38:42])
	if sender != addr || target != asker {
		return "", false
	}
	return net.HardwareAddr(frame[22:28]).String(), true
}

// wait waits unless the run is over.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
