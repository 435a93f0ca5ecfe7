package group

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
)

// A Carpdev is one interface as the groups on it hear it: one packet socket for
// all of them. A socket for each would make the kernel run a filter per vhid on
// every frame that is forwarded.
type Carpdev struct {
	name    string
	ifindex int
	pc      *packet.Conn
	done    chan struct{} // closed when listen has ended

	mu      sync.Mutex
	vhids   map[uint8]*ear
	members map[netip.Addr]io.Closer // multicast groups joined, and sinks; nil once closed
	err     error                    // why listen has ended; nil while it runs
}

// frameLen is room for a frame. An advert is short; a longer frame is cut and
// refused.
const frameLen = 2048

// earLen is how many frames wait for a group: more than come while it sends.
const earLen = 64

// OpenCarpdev opens the packet socket of an interface. It joins CARP's own
// groups of both families: at the NIC, whose filter drops others, and by IGMP
// and MLD, or a snooping switch keeps them from us.
func OpenCarpdev(ifname string) (*Carpdev, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("listen for adverts on %q: %w", ifname, err)
	}
	f, err := bpf.Assemble(filter(nil))
	if err != nil {
		return nil, fmt.Errorf("assemble the filter for adverts: %w", err)
	}
	pc, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: f})
	if err != nil {
		return nil, fmt.Errorf("listen for adverts on %q: %w", ifname, err)
	}
	d := &Carpdev{
		name: ifname, ifindex: ifi.Index, pc: pc, done: make(chan struct{}),
		vhids: map[uint8]*ear{}, members: map[netip.Addr]io.Closer{},
	}
	go d.listen()
	if err := tune(pc); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for adverts on %q: %w", ifname, err), d.Close())
	}
	for _, g := range []netip.Addr{carp.Group4, carp.Group6} {
		if err := d.Join(g); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d, nil
}

// Join joins a multicast group, if that has not been done. A kernel or an
// interface without IPv6 is no error.
func (d *Carpdev) Join(g netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.members == nil {
		return fmt.Errorf("join %v on %q: %w", g, d.name, net.ErrClosed)
	}
	if d.members[g] != nil {
		return nil
	}
	mac := carp.MulticastMAC(g)
	if err := d.pc.JoinGroup(mac[:]); err != nil && !errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("join %v on %q: %w", net.HardwareAddr(mac[:]), d.name, err)
	}
	m, err := join(d.ifindex, g)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("join %v on %q: %w", g, d.name, err)
	}
	d.members[g] = m
	return nil
}

// Absorb keeps the kernel from answering unicast adverts of a family with
// "protocol unreachable": it has no protocol 112.
func (d *Carpdev) Absorb(is4 bool) error {
	family, any := unix.AF_INET6, netip.IPv6Unspecified()
	if is4 {
		family, any = unix.AF_INET, netip.IPv4Unspecified()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.members == nil {
		return fmt.Errorf("take unicast adverts on %q: %w", d.name, net.ErrClosed)
	}
	if d.members[any] != nil {
		return nil
	}
	s, err := sink(family, d.name)
	if err != nil {
		return fmt.Errorf("take unicast adverts on %q: %w", d.name, err)
	}
	d.members[any] = s
	return nil
}

// sink opens a raw socket for protocol 112 that takes packets and keeps none.
func sink(family int, dev string) (io.Closer, error) {
	s, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 112)
	if err != nil {
		return nil, err
	}
	none := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	err = errors.Join(
		unix.SetsockoptSockFprog(s, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &none[0]}),
		unix.BindToDevice(s, dev),
	)
	if err != nil {
		return nil, errors.Join(err, fd(s).Close())
	}
	return fd(s), nil
}

// Conn returns what a group hears and says: whole frames of its vhid. Closing it
// leaves the Carpdev as it is.
func (d *Carpdev) Conn(vhid uint8) (net.PacketConn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.vhids[vhid] != nil {
		return nil, fmt.Errorf("listen for adverts on %q: vhid %d has a listener", d.name, vhid)
	}
	e := &ear{dev: d, vhid: vhid, in: make(chan *[]byte, earLen), done: make(chan struct{})}
	d.vhids[vhid] = e
	if err := d.setFilter(); err != nil {
		delete(d.vhids, vhid)
		return nil, err
	}
	return e, nil
}

// setFilter has the kernel pass the vhids of now; under mu.
func (d *Carpdev) setFilter() error {
	var vhids []uint8
	for v := range d.vhids {
		vhids = append(vhids, v)
	}
	slices.Sort(vhids)
	f, err := bpf.Assemble(filter(vhids))
	if err != nil {
		return fmt.Errorf("assemble the filter for adverts: %w", err)
	}
	if err := d.pc.SetBPF(f); err != nil {
		return fmt.Errorf("filter adverts on %q: %w", d.name, err)
	}
	return nil
}

// listen hands every frame to the group that it is for, as it comes: nothing
// batches, or a goodbye would wait.
func (d *Carpdev) listen() {
	defer close(d.done)
	b := make([]byte, frameLen)
	for {
		n, _, err := d.pc.ReadFrom(b)
		switch {
		case errors.Is(err, unix.ENETDOWN):
			// Told once each time when the interface goes down; the socket
			// goes on when it is up again.
			continue
		case err != nil:
			d.mu.Lock()
			d.err = err
			d.mu.Unlock()
			return
		}
		vhid, ok := vhidOf(b[:n])
		if !ok {
			continue
		}
		d.mu.Lock()
		e := d.vhids[vhid]
		d.mu.Unlock()
		if e != nil {
			e.hear(b[:n])
		}
	}
}

// Close closes the socket and leaves the groups.
func (d *Carpdev) Close() error {
	err := d.pc.Close()
	<-d.done
	d.mu.Lock()
	defer d.mu.Unlock()
	errs := []error{err}
	for _, m := range d.members {
		errs = append(errs, m.Close())
	}
	d.members = nil
	return errors.Join(errs...)
}

// ear is the part of a Carpdev that one group has.
type ear struct {
	dev  *Carpdev
	vhid uint8
	in   chan *[]byte
	lost atomic.Uint64 // frames that found no room

	once sync.Once
	done chan struct{} // closed by Close
}

// frames are empty buffers for those that wait.
var frames = sync.Pool{New: func() any { b := make([]byte, 0, frameLen); return &b }}

func (e *ear) hear(b []byte) {
	f := frames.Get().(*[]byte)
	*f = append((*f)[:0], b...)
	select {
	case e.in <- f:
	default: // a flood; what it pushes out comes again
		e.lost.Add(1)
		frames.Put(f)
	}
}

// ReadFrom implements net.PacketConn. The address is nil: it is in the frame.
func (e *ear) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case f := <-e.in:
		n := copy(b, *f)
		frames.Put(f)
		return n, nil, nil
	case <-e.done:
		return 0, nil, net.ErrClosed
	case <-e.dev.done:
		e.dev.mu.Lock()
		defer e.dev.mu.Unlock()
		return 0, nil, e.dev.err
	}
}

// WriteTo implements net.PacketConn.
func (e *ear) WriteTo(b []byte, to net.Addr) (int, error) { return e.dev.pc.WriteTo(b, to) }

// Lost returns how many frames found the group's queue full.
func (e *ear) Lost() uint64 { return e.lost.Load() }

// Close implements net.PacketConn.
func (e *ear) Close() error {
	e.once.Do(func() { close(e.done) })
	e.dev.mu.Lock()
	defer e.dev.mu.Unlock()
	if e.dev.vhids[e.vhid] == e { // else the vhid has a new listener
		delete(e.dev.vhids, e.vhid)
	}
	return nil
}

// LocalAddr implements net.PacketConn.
func (e *ear) LocalAddr() net.Addr { return e.dev.pc.LocalAddr() }

// SetDeadline implements net.PacketConn; there are no deadlines.
func (e *ear) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.PacketConn.
func (e *ear) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.PacketConn.
func (e *ear) SetWriteDeadline(time.Time) error { return nil }

// vhidOf finds the vhid in a frame of protocol 112, whose tag, if it had one,
// the kernel has taken off.
func vhidOf(b []byte) (uint8, bool) {
	if len(b) < 14+20 {
		return 0, false
	}
	at := 14 + 40
	if b[12] == unix.ETH_P_IP>>8 && b[13] == unix.ETH_P_IP&0xff {
		at = 14 + int(b[14]&0x0f)*4
	}
	if at+1 >= len(b) {
		return 0, false
	}
	return b[at+1], true
}
