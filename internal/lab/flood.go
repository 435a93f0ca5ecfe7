package lab

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// floodBatch is how many frames go to the kernel at once.
const floodBatch = 64

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// FloodAll sends as Flood does without a limit, from all processors at once: the
// highest rate that this machine can make.
func FloodAll(ctx context.Context, do func(func() error) error, index int, frames [][]byte) (sent uint64, err error) {
	type end struct {
		sent uint64
		err  error
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ends := make(chan end)
	senders := runtime.GOMAXPROCS(0)
	for i := range senders {
		at := i * len(frames) / senders // not all the same one at the same time
		mine := append(append([][]byte(nil), frames[at:]...), frames[:at]...)
		go func() {
			sent, err := Flood(ctx, do, index, mine, 0)
			ends <- end{sent, err}
		}()
	}
	for range senders {
		e := <-ends
		sent += e.sent
		if e.err != nil {
			err = errors.Join(err, e.err)
			stop()
		}
	}
	return sent, err
}

// Flood sends the frames, one after the other and again, as fast as one processor
// can: from a packet socket past the queueing discipline, many in each system
// call. It ends with the context, or after limit frames (0: no limit), and returns
// how many were sent. do runs a function in the namespace of the interface with
// that index.
func Flood(ctx context.Context, do func(func() error) error, index int, frames [][]byte, limit uint64) (sent uint64, err error) {
	fd, err := packetSocket(do, index, 0, nil)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		return 0, fmt.Errorf("bypass the queueing discipline: %w", err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return 0, err
	}
	iov := make([]unix.Iovec, len(frames))
	for i, f := range frames {
		iov[i].Base = &f[0]
		iov[i].SetLen(len(f))
	}
	msgs := make([]mmsghdr, floodBatch)
	next := 0
	for ctx.Err() == nil && (limit == 0 || sent < limit) {
		batch := len(msgs)
		if limit != 0 {
			batch = int(min(uint64(batch), limit-sent))
		}
		for i := range batch {
			msgs[i].hdr.Iov = &iov[next]
			msgs[i].hdr.SetIovlen(1)
			next = (next + 1) % len(iov)
		}
		k, _, e := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(batch), 0, 0, 0)
		switch {
		case e == 0:
			sent += uint64(k)
		case errors.Is(e, unix.EINTR), errors.Is(e, unix.ENOBUFS), errors.Is(e, unix.EAGAIN):
		default:
			return sent, fmt.Errorf("send to interface %d: %w", index, e)
		}
	}
	runtime.KeepAlive(frames)
	return sent, nil
}
