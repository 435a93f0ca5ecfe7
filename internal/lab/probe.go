package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// ProbeInterval is the time from one probe to the next.
	ProbeInterval = 500 * time.Microsecond

	probePort  = 7 // echo, RFC 862
	probeLimit = 5 * time.Minute
)

// Probe sends numbered UDP requests from the client through the pair to the
// server, which echoes them, and remembers when each was sent and answered.
type Probe struct {
	lab      *Net
	fd, echo int
	sent     []atomic.Int64 // ns since the lab was made; 0: not yet
	answered []atomic.Int64
	next     atomic.Int64
	stop     atomic.Bool
	wg       sync.WaitGroup
}

// StartProbe starts probing. Stop it.
func (n *Net) StartProbe() (*Probe, error) {
	max := int(probeLimit / ProbeInterval)
	p := &Probe{lab: n, fd: -1, echo: -1, sent: make([]atomic.Int64, max), answered: make([]atomic.Int64, max)}
	server := netip.MustParseAddr(serverAddr).As4()
	err := n.Server.NS.Do(func() error {
		var err error
		if p.echo, err = udpSocket(); err != nil {
			return err
		}
		return unix.Bind(p.echo, &unix.SockaddrInet4{Addr: server, Port: probePort})
	})
	if err == nil {
		err = n.Client.NS.Do(func() error {
			var err error
			if p.fd, err = udpSocket(); err != nil {
				return err
			}
			return unix.Connect(p.fd, &unix.SockaddrInet4{Addr: server, Port: probePort})
		})
	}
	if err != nil {
		p.Stop()
		return nil, fmt.Errorf("open the sockets of the probe: %w", err)
	}
	p.wg.Go(p.answer)
	p.wg.Go(p.receive)
	p.wg.Go(p.send)
	return p, nil
}

// udpSocket opens a socket whose reads return now and then.
func udpSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	tv := unix.NsecToTimeval(int64(100 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// ownThread keeps the goroutine on a thread that is preferred to the load: it
// works for a few microseconds at a time, and a late probe measures the rig. Where
// real-time threads are not allowed, RigStall shows it.
func ownThread() {
	runtime.LockOSThread() // for good: the thread's priority must not leak
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1,
	}, 0)
}

// send sends on an absolute schedule: being late once does not shift the rest.
func (p *Probe) send() {
	ownThread()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // cannot fail with a valid clock
	}
	due := ts.Nano()
	var buf [8]byte
	for seq := range p.sent {
		if p.stop.Load() {
			return
		}
		due += int64(ProbeInterval)
		ts = unix.NsecToTimespec(due)
		for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil) == unix.EINTR {
		}
		binary.BigEndian.PutUint64(buf[:], uint64(seq))
		p.sent[seq].Store(int64(p.lab.now()))
		// A refused send is a lost probe: that is what a user would see.
		_, _ = unix.Write(p.fd, buf[:])
		p.next.Store(int64(seq) + 1)
	}
}

func (p *Probe) receive() {
	ownThread()
	var buf [64]byte
	for !p.stop.Load() {
		n, err := unix.Read(p.fd, buf[:])
		if err != nil || n != 8 {
			continue
		}
		if seq := binary.BigEndian.Uint64(buf[:]); seq < uint64(len(p.answered)) {
			p.answered[seq].CompareAndSwap(0, int64(p.lab.now()))
		}
	}
}

// answer is the server.
func (p *Probe) answer() {
	ownThread()
	var buf [64]byte
	for !p.stop.Load() {
		n, from, err := unix.Recvfrom(p.echo, buf[:], 0)
		if err == nil {
			_ = unix.Sendto(p.echo, buf[:n], 0, from)
		}
	}
}

// Shots returns the probes that were sent from one instant to another.
func (p *Probe) Shots(from, to time.Duration) []Shot {
	var s []Shot
	for i := range p.next.Load() {
		sent := time.Duration(p.sent[i].Load())
		if sent < from || sent >= to {
			continue
		}
		s = append(s, Shot{Sent: sent, Answered: time.Duration(p.answered[i].Load())})
	}
	return s
}

// answeredSince reports whether a probe that was sent at or after the instant
// has been answered.
func (p *Probe) answeredSince(at time.Duration) bool {
	for i := p.next.Load() - 1; i >= 0 && time.Duration(p.sent[i].Load()) >= at; i-- {
		if p.answered[i].Load() != 0 {
			return true
		}
	}
	return false
}

// Stop ends the probing.
func (p *Probe) Stop() {
	p.stop.Store(true)
	p.wg.Wait()
	for _, fd := range []int{p.fd, p.echo} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}
