package lab

import (
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Resets counts TCP segments with RST on the wires of the client and the server.
type Resets struct {
	fds []int
	n   int
}

// rst is a filter that lets IPv4 and IPv6 TCP segments with RST through. An
// IPv6 header with extensions is not followed: nothing in the lab sends one.
var rst = assemble([]bpf.Instruction{
	0:  bpf.LoadAbsolute{Off: 12, Size: 2},
	1:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipTrue: 0, SkipFalse: 5},
	2:  bpf.LoadAbsolute{Off: 14 + 9, Size: 1},
	3:  bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 9},
	4:  bpf.LoadMemShift{Off: 14},
	5:  bpf.LoadIndirect{Off: 14 + 13, Size: 1},
	6:  bpf.Jump{Skip: 4},
	7:  bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: 5},
	8:  bpf.LoadAbsolute{Off: 14 + 6, Size: 1},
	9:  bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 3},
	10: bpf.LoadAbsolute{Off: 14 + 40 + 13, Size: 1},
	11: bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: 0x04, SkipTrue: 1},
	12: bpf.RetConstant{Val: 128},
	13: bpf.RetConstant{Val: 0},
})

// WatchResets starts counting. Close it.
func (n *Net) WatchResets() (*Resets, error) {
	r := &Resets{}
	for _, node := range []*Node{n.Client, n.Server} {
		dev, err := node.h.LinkByName("eth0")
		if err != nil {
			r.Close()
			return nil, fmt.Errorf("find eth0 of %s: %w", node.Name, err)
		}
		fd, err := packetSocket(node.NS.Do, dev.Attrs().Index, unix.ETH_P_ALL, rst)
		if err != nil {
			r.Close()
			return nil, fmt.Errorf("watch %s for resets: %w", node.Name, err)
		}
		r.fds = append(r.fds, fd)
	}
	return r, nil
}

// Count returns how many were seen so far, sent and received, on both wires.
func (r *Resets) Count() int {
	var buf [128]byte
	for _, fd := range r.fds {
		for {
			_, _, err := unix.Recvfrom(fd, buf[:], 0)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				break
			}
			r.n++
		}
	}
	return r.n
}

// Close ends the counting.
func (r *Resets) Close() {
	for _, fd := range r.fds {
		_ = unix.Close(fd)
	}
	r.fds = nil
}
