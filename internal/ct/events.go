package ct

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrBusy is a second Events at the same time.
var ErrBusy = errors.New("events are being read already")

// Groups of enum nfnetlink_groups.
var eventGroups = [...]int{1, 2, 3} // NFNLGRP_CONNTRACK_NEW, _UPDATE, _DESTROY

// Listen joins or leaves the kernel's event groups. A listener makes each
// insert about three times as expensive, so a node that is MASTER of nothing
// does not listen. It is three system calls, from any goroutine; what was
// queued before leaving is still delivered.
func (t *Table) Listen(on bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return fmt.Errorf("listen for connection events: %w", unix.EBADF)
	}
	if t.listening == on {
		return nil
	}
	opt := unix.NETLINK_DROP_MEMBERSHIP
	if on {
		opt = unix.NETLINK_ADD_MEMBERSHIP
	}
	for _, group := range eventGroups {
		if err := unix.SetsockoptInt(t.events.fd, unix.SOL_NETLINK, opt, group); err != nil {
			return fmt.Errorf("listen for connection events %t: %w", on, err)
		}
	}
	t.listening = on
	return nil
}

// Events calls fn for each change that others than Apply made, while Listen is
// on, until ctx ends; then it returns nil. The Event is valid during the call
// only, and fn must be quick: it runs between the kernel and a bounded buffer.
// When that overflows, overrun is called and events go on: what was lost must
// be found by a Dump.
//
// Of an Update the kernel tells the tuples, status, timeout and mark always,
// but the protocol information only if it changed: Flow.TCP is zero, with the
// state TCPNone, when it did not. A refreshed timeout alone is no event.
func (t *Table) Events(ctx context.Context, fn func(*Event), overrun func()) error {
	if !t.reading.TryLock() {
		return ErrBusy
	}
	defer t.reading.Unlock()
	runtime.LockOSThread() // its wakeups must not wait for a free P and a thread
	defer runtime.UnlockOSThread()
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		unix.Write(t.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer func() {
		if !stop() { // it runs or ran: leave the eventfd empty for the next
			<-woken
			var b [8]byte
			unix.Read(t.wake, b[:])
		}
	}()
	var r record
	var e Event
	poll := []unix.PollFd{
		{Fd: int32(t.events.fd), Events: unix.POLLIN},
		{Fd: int32(t.wake), Events: unix.POLLIN},
	}
	for ctx.Err() == nil {
		n, err := t.events.recv(t.readBuf, unix.MSG_DONTWAIT)
		switch err {
		case nil:
		case unix.EAGAIN:
			if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
				return fmt.Errorf("wait for connection events: %w", err)
			}
			continue
		case unix.ENOBUFS:
			overrun()
			continue
		default:
			return fmt.Errorf("read connection events: %w", err)
		}
		for b := t.readBuf[:n]; ; {
			h, body, rest, ok := next(b)
			if !ok {
				break
			}
			b = rest
			if h.port != t.inject.sock.port && e.decode(h, body, &r) {
				fn(&e)
			}
		}
	}
	return nil
}
