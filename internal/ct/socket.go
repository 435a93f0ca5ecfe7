package ct

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a NETLINK_NETFILTER socket in the namespace it was made in.
type socket struct {
	fd   int
	port uint32 // our address, nlmsg_pid of what we cause
}

func newSocket(recvBuffer int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open a netfilter socket: %w (is the module nfnetlink there?)", err)
	}
	s := &socket{fd: fd}
	if err := s.setup(recvBuffer); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return s, nil
}

func (s *socket) setup(recvBuffer int) error {
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("bind a netfilter socket: %w", err)
	}
	sa, err := unix.Getsockname(s.fd)
	if err != nil {
		return fmt.Errorf("name of a netfilter socket: %w", err)
	}
	s.port = sa.(*unix.SockaddrNetlink).Pid
	// The forced sizes ignore net.core.*mem_max and want CAP_NET_ADMIN.
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, recvBuffer) != nil {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, recvBuffer); err != nil {
			return fmt.Errorf("receive buffer of %d bytes: %w", recvBuffer, err)
		}
	}
	const sendBuffer = 1 << 20 // a batch goes in one piece
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer); err != nil {
			return fmt.Errorf("send buffer of %d bytes: %w", sendBuffer, err)
		}
	}
	// Errors without the message that caused them.
	if err := unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return fmt.Errorf("set NETLINK_CAP_ACK: %w", err)
	}
	return nil
}

func (s *socket) close() error { return unix.Close(s.fd) }

// send gives messages to the kernel, which has worked them off when send
// returns: their errors and answers are then in the receive buffer.
func (s *socket) send(b []byte) error {
	for {
		n, err := unix.Write(s.fd, b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n != len(b):
			return fmt.Errorf("sent %d of %d bytes", n, len(b))
		default:
			return nil
		}
	}
}

// recv reads one datagram of the kernel. It skips what other processes send: a
// netlink socket is open to everybody with CAP_NET_ADMIN. unix.Recvfrom would
// allocate an address per call.
func (s *socket) recv(b []byte, flags int) (int, error) {
	for {
		var from unix.RawSockaddrNetlink
		size := uint32(unsafe.Sizeof(from))
		n, _, e := unix.Syscall6(unix.SYS_RECVFROM, uintptr(s.fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(flags),
			uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
		switch {
		case e == unix.EINTR:
		case e != 0:
			return 0, e
		case from.Pid == 0:
			return int(n), nil
		}
	}
}

// refuse keeps messages caused by the given port id out of the receive buffer.
func (s *socket) refuse(port uint32) error {
	// nlmsg_pid is in host byte order, and BPF loads big endian.
	var raw [4]byte
	binary.NativeEndian.PutUint32(raw[:], port)
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 12},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: binary.BigEndian.Uint32(raw[:])},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	return unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
}
