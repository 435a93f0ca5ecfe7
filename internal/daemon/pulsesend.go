package daemon

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/carp/group"
)

const (
	// sendUsual is what a send may take: more of it is the kernel's work for others.
	// sendLong is what hardly one may take, and sendSlow so much that one is enough.
	sendUsual = 100 * time.Microsecond
	sendLong  = 250 * time.Microsecond
	sendSlow  = time.Millisecond

	// sendShare is the part of a CPU, one out of so many, that slow sends may take,
	// and slowedLeast how long the thread waits at least between asks then.
	sendShare   = 50
	slowedLeast = 10 * time.Millisecond

	// leaveEvery is the least time between two moves to other CPUs.
	leaveEvery = 100 * time.Millisecond

	// floodedLeast is how long the thread waits at least between asks in a flood of
	// adverts that makes sends slow, and floodedFor how old the newest sign of either is.
	floodedLeast = 50 * time.Millisecond
	floodedFor   = 3 * time.Second
)

// sendCost is how long the newest sends of a real-time thread took. In a flood that is
// long: a CPU that is behind with received frames handles them whenever somebody is done
// with sending, for a jiffy or ten rounds unless another thread is due, and beside this
// one none is. So the thread leaves such a CPU; where all are so, it sends less. In a flood
// of adverts it sends less where a CPU is left, too: the flood follows, and the thread may
// find it there whenever it wakes up.
type sendCost struct {
	off  bool // do nothing about it
	took [8]time.Duration
	n    int
	slow bool      // one since pace was asked
	hit  time.Time // when one was slow last
	left time.Time // when the thread last asked to leave a CPU

	flooded atomic.Int64 // when there was last a flood of adverts, boot time; by others

	cpus interface {
		Leave() error // the one that the caller is on
	}
}

// Flooded tells that there is a flood of adverts. Any goroutine may.
func (c *sendCost) Flooded(now time.Time) { c.flooded.Store(int64(carp.SinceBoot(now))) }

func (c *sendCost) add(took time.Duration) {
	c.took[c.n%len(c.took)] = took
	c.n++
	c.slow = c.slow || took > sendSlow
}

// usual is the mean of all but the longest, for this machine may have stood still, and
// the longest of those.
func (c *sendCost) usual() (mean, longest time.Duration) {
	if c.n < len(c.took) {
		return 0, 0
	}
	took := c.took
	slices.Sort(took[:])
	rest := took[:len(took)-1]
	for _, d := range rest {
		mean += d
	}
	return mean / time.Duration(len(rest)), rest[len(rest)-1]
}

// pace is how long to wait between the asks on each of some lines; 0: as you like. It
// moves the thread to another CPU if that may help.
func (c *sendCost) pace(now time.Time, lines int) time.Duration {
	if c.off {
		return 0
	}
	if c.slow {
		if c.hit = now; now.Sub(c.left) > leaveEvery {
			_ = c.cpus.Leave() // there may be no other: it sends less
			c.left = now
		}
	}
	c.slow = false
	var least time.Duration
	if at := carp.BootTime(time.Duration(c.flooded.Load())); now.Sub(at) < floodedFor && now.Sub(c.hit) < floodedFor {
		least = floodedLeast
	}
	usual, longest := c.usual()
	if usual <= sendUsual && longest <= sendLong {
		return least
	}
	return min(max(usual*sendShare*time.Duration(lines), slowedLeast, least), pulseSlowest)
}

// send sends a pulse of any kind, with a nonce above all before on the same line, and
// returns whether and when it left.
func (t *pulseThread) send(a *askee, pulse carp.Pulse) (sent bool, at time.Time) {
	l := a.line
	l.nonce = max(l.nonce+1, uint64(carp.SinceBoot(group.BootClock())))
	pulse.Nonce = l.nonce
	if pulse.Kind == carp.PulseAsk {
		a.asked = l.nonce
	}
	t.frame = a.key.AppendFrame(t.frame[:0], a.dst, a.src, &pulse)
	fd, err := t.socket(l.dev.index)
	if err == nil {
		begin := group.BootClock()
		err = unix.Sendto(fd, t.frame, unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Ifindex: l.dev.index, Halen: 6})
		took := group.BootClock().Sub(begin)
		t.cost.add(took)
		t.held = max(t.held, took)
	}
	return err == nil, carp.BootTime(time.Duration(l.nonce))
}

// socket returns one that sends on a device and receives nothing. It does not wait in
// a queue for what the master's neighbours send: pulses have the NIC's own MAC.
func (t *pulseThread) socket(index int) (int, error) {
	if fd, ok := t.sockets[index]; ok {
		return fd, nil
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	t.sockets[index] = fd
	return fd, nil
}
