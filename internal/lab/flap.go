package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/bench"
	"github.com/xcarp/xcarp/internal/probe"
)

// Burden is what a pair has to bear without a change of roles.
type Burden string

// The burdens. The words are the same in every command and report.
const (
	Idle        Burden = "idle"  // nothing: what the machine does by itself
	Hogs2       Burden = "hogs2" // two busy loops at the daemons' own priority
	Hogs8       Burden = "hogs8"
	PacketFlood Burden = "flood" // datagrams through the pair, as fast as one processor can send
)

// Burdens lists all burdens.
var Burdens = []Burden{Idle, Hogs2, Hogs8, PacketFlood}

// ParseBurden finds a burden by its word.
func ParseBurden(s string) (Burden, error) {
	var words []string
	for _, b := range Burdens {
		if string(b) == s {
			return b, nil
		}
		words = append(words, string(b))
	}
	return "", fmt.Errorf("case %q is unknown, there are %s", s, strings.Join(words, ", "))
}

// MeasureFlap lets a pair bear a burden for a while and counts what should not
// happen.
func MeasureFlap(ctx context.Context, sys System, burden Burden, length time.Duration) (res bench.Flap, err error) {
	res = bench.Flap{System: sys.Name, Profile: sys.Profile, Case: string(burden), Load: loadAverage()}
	r := &trial{Trial: &Trial{System: sys}, pair: &pair{sys: sys}}
	defer func() { err = errors.Join(err, r.close()) }()
	if r.pair, err = newPair(ctx, sys, NAT, func(string, ...any) {}, nil); err != nil {
		return res, err
	}
	if r.prb, err = r.net.StartProbe(serverAddr, serverAddr6); err != nil {
		return res, err
	}
	if err := wait(ctx, baseline); err != nil {
		return res, err
	}
	if err := r.settle(ctx); err != nil {
		return res, err
	}
	before, err := r.masters()
	if err != nil {
		return res, err
	}
	from := r.net.now()
	lift, err := r.burden(ctx, burden)
	if err != nil {
		return res, err
	}
	err = wait(ctx, length)
	to := r.net.now()
	if err := errors.Join(err, lift(&res)); err != nil {
		return res, err
	}
	after, err := r.masters()
	if err != nil {
		return res, err
	}
	res.Transitions, res.Seconds = after-before, (to - from).Seconds()
	shots := r.prb.Shots(0, from, to-answerGrace)
	loss := probe.Measure(shots, to)
	res.Sent, res.Lost, res.BlackoutMS = loss.Sent, loss.Lost, ms(loss.Blackout)
	res.SenderGapMS = ms(loss.RigStall + probe.Interval)
	return res, nil
}

// burden begins one; what it returns lifts it.
func (r *trial) burden(ctx context.Context, b Burden) (lift func(*bench.Flap) error, err error) {
	switch b {
	case Hogs2, Hogs8:
		n := 2
		if b == Hogs8 {
			n = 8
		}
		return hogs(n)
	case PacketFlood:
		frame, index, err := r.datagram()
		if err != nil {
			return nil, err
		}
		ctx, stop := context.WithCancel(ctx)
		type end struct {
			sent uint64
			err  error
		}
		done := make(chan end)
		go func() {
			sent, err := Flood(ctx, r.net.Client.NS.Do, index, [][]byte{frame}, 0)
			done <- end{sent, err}
		}()
		return func(res *bench.Flap) error {
			stop()
			e := <-done
			res.Frames = e.sent
			return e.err
		}, nil
	}
	return func(*bench.Flap) error { return nil }, nil
}

// hogs starts busy loops, processes of their own.
func hogs(n int) (func(*bench.Flap) error, error) {
	var cmds []*exec.Cmd
	kill := func(*bench.Flap) error {
		var errs []error
		for _, c := range cmds {
			errs = append(errs, c.Process.Kill())
			_ = c.Wait() // it was killed
		}
		return errors.Join(errs...)
	}
	for range n {
		c := exec.Command("sh", "-c", "while :; do :; done")
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		if err := c.Start(); err != nil {
			return nil, errors.Join(fmt.Errorf("start a busy loop: %w", err), kill(nil))
		}
		cmds = append(cmds, c)
	}
	return kill, nil
}

// datagram is a frame of one UDP packet from the client through the pair to the
// server's discard port, and the interface that it leaves by.
func (r *trial) datagram() ([]byte, int, error) {
	dev, err := r.net.Client.h.LinkByName("eth0")
	if err != nil {
		return nil, 0, fmt.Errorf("find eth0 of the client: %w", err)
	}
	neighbours, err := r.net.Client.h.NeighList(dev.Attrs().Index, netlink.FAMILY_V4)
	if err != nil {
		return nil, 0, fmt.Errorf("read the client's neighbours: %w", err)
	}
	for _, n := range neighbours {
		if n.IP.String() == SharedLAN && len(n.HardwareAddr) == 6 {
			return udpFrame(dev.Attrs().HardwareAddr, n.HardwareAddr, clientAddr, serverAddr), dev.Attrs().Index, nil
		}
	}
	return nil, 0, fmt.Errorf("the client does not know who has %s", SharedLAN)
}

// udpFrame is a datagram of 18 bytes to the discard port, without a checksum.
func udpFrame(src, dst net.HardwareAddr, from, to string) []byte {
	b := append(append([]byte{}, dst...), src...)
	b = append(b, 0x08, 0x00)
	ip := []byte{0x45, 0, 0, 20 + 8 + 18, 0, 0, 0x40, 0, 64, unix.IPPROTO_UDP, 0, 0}
	ip = append(append(ip, netip.MustParseAddr(from).AsSlice()...), netip.MustParseAddr(to).AsSlice()...)
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	ip[10], ip[11] = byte(^sum>>8), byte(^sum)
	b = append(b, ip...)
	b = append(b, 0x27, 0x0f, 0, preloadPort, 0, 8+18, 0, 0)
	return append(b, make([]byte, 18)...)
}
