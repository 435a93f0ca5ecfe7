package ct

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// defaultRecvBuffer holds some 80,000 events. The kernel's default holds 768.
const defaultRecvBuffer = 64 << 20

// Options of a Table; the zero value is usable.
type Options struct {
	RecvBuffer int // of the event socket, in bytes; 0 means 64 MiB
	Log        *zap.Logger
}

// Table is the connection table of one network namespace.
type Table struct {
	log *zap.Logger

	inject *injector

	eventsWere string      // nf_conntrack_events before Open changed it; empty: it did not
	count      [2]*os.File // nf_conntrack_count and _max of our namespace

	dumping sync.Mutex // guards dump and its buffer
	dump    *socket
	dumpBuf []byte

	mu        sync.Mutex // guards listening and closed, and closing against Listen
	listening bool
	closed    bool

	reading sync.Mutex // held by Events
	events  *socket
	wake    int // eventfd: ends Events
	readBuf []byte
}

// Changed returns the sysctls that Open changed, and what they were, by their names
// as of sysctl(8).
func (t *Table) Changed() map[string]string {
	if t.eventsWere == "" {
		return nil
	}
	return map[string]string{"net.netfilter." + sysctlEvents: t.eventsWere}
}

// Open opens the table of the caller's network namespace, and makes the kernel
// send events for it. All that depends on the namespace happens here.
func Open(o Options) (t *Table, err error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.RecvBuffer == 0 {
		o.RecvBuffer = defaultRecvBuffer
	}
	t = &Table{log: o.Log, wake: -1, dumpBuf: make([]byte, 64<<10), readBuf: make([]byte, 64<<10)}
	defer func() {
		if err != nil {
			t.Close()
			t = nil
		}
	}()
	// First, for it loads the modules that the others need.
	if err := probe(); err != nil {
		return t, err
	}
	old, err := setSysctl(sysctlEvents, "1")
	switch {
	case err != nil && old != "2":
		return t, fmt.Errorf("make conntrack send events: %w: run sysctl -w net.netfilter.nf_conntrack_events=1", err)
	case err != nil:
		t.log.Warn("connections made while nobody listens will not be followed: set nf_conntrack_events=1", zap.Error(err))
	case old != "1":
		t.eventsWere = old
		t.log.Info("sysctl", zap.String("name", sysctlEvents), zap.String("from", old), zap.String("to", "1"))
	}
	for i, name := range []string{"nf_conntrack_count", "nf_conntrack_max"} {
		if t.count[i], err = os.Open(sysctlDir + name); err != nil {
			return t, fmt.Errorf("open the connection count: %w", err)
		}
	}
	if t.inject, err = newInjector(); err != nil {
		return t, fmt.Errorf("injector: %w", err)
	}
	if t.dump, err = newSocket(1 << 20); err != nil {
		return t, fmt.Errorf("dump: %w", err)
	}
	if t.events, err = newSocket(o.RecvBuffer); err != nil {
		return t, fmt.Errorf("events: %w", err)
	}
	if err = t.events.refuse(t.inject.sock.port); err != nil {
		return t, fmt.Errorf("filter own injections: %w", err)
	}
	if t.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return t, fmt.Errorf("make an eventfd: %w", err)
	}
	return t, nil
}

// probe asks ctnetlink for its statistics, which loads the modules.
func probe() error {
	s, err := newSocket(1 << 20)
	if err != nil {
		return err
	}
	defer s.close()
	var m message
	m.begin(ctStats, 0, 1, unix.AF_UNSPEC)
	m.end()
	buf := make([]byte, 4096)
	n := 0
	if err = s.send(m.b); err == nil {
		n, err = s.recv(buf, unix.MSG_DONTWAIT)
	}
	if err == nil {
		if h, body, _, ok := next(buf[:n]); ok && h.typ == unix.NLMSG_ERROR {
			err = errno(body)
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("ask for connections: %w: needs CAP_NET_ADMIN", err)
	default:
		return fmt.Errorf("ask for connections: %w: run modprobe nf_conntrack_netlink", err)
	}
}

// Close lets go of the table. Apply, Dump and Events must have returned.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	var errs []error
	if t.inject != nil {
		errs = append(errs, t.inject.sock.close())
	}
	for _, s := range []*socket{t.dump, t.events} {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	for _, f := range t.count {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if t.wake >= 0 {
		errs = append(errs, unix.Close(t.wake))
	}
	return errors.Join(errs...)
}
