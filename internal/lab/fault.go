package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Fault is what happens to a router.
type Fault string

// The faults. The words are the same in every command and report.
const (
	Crash    Fault = "crash"    // LAN, WAN and sync ports blocked in one batch, carrier kept
	Isolated Fault = "isolated" // LAN and WAN ports blocked, carrier kept
	Poweroff Fault = "poweroff" // daemon killed, carrier lost everywhere, and at the other end of the sync cable
	Kill9    Fault = "kill9"    // SIGKILL to the daemon
	Sigstop  Fault = "sigstop"  // SIGSTOP to the daemon
	Stop     Fault = "stop"     // SIGTERM to the daemon
	LANDown  Fault = "landown"  // LAN carrier lost
	LANCut   Fault = "lancut"   // LAN port blocked, carrier kept
	Handover Fault = "handover" // the system is asked to give the role away
	Restart  Fault = "restart"  // the system is restarted as its operator would
)

// Faults lists all faults.
var Faults = []Fault{Crash, Isolated, Poweroff, Kill9, Sigstop, Stop, LANDown, LANCut, Handover, Restart}

// ParseFault finds a fault by its word.
func ParseFault(s string) (Fault, error) {
	var words []string
	for _, f := range Faults {
		if string(f) == s {
			return f, nil
		}
		words = append(words, string(f))
	}
	return "", fmt.Errorf("fault %q is unknown, there are %s", s, strings.Join(words, ", "))
}

// effect is what a fault consists of.
type effect struct {
	ports  []string // the bridges on which the node's port is touched
	down   bool     // take the carrier, instead of blocking the port
	signal syscall.Signal
	moves  bool // the other router must take over
}

func (f Fault) effect() effect {
	switch f {
	case Crash:
		return effect{ports: []string{"lan", "wan", "sync"}, moves: true}
	case Isolated:
		return effect{ports: []string{"lan", "wan"}, moves: true}
	case Poweroff:
		return effect{ports: []string{"lan", "sync", "wan"}, down: true, signal: syscall.SIGKILL, moves: true}
	case Kill9:
		return effect{signal: syscall.SIGKILL}
	case Sigstop:
		return effect{signal: syscall.SIGSTOP, moves: true}
	case Stop:
		return effect{signal: syscall.SIGTERM, moves: true}
	case LANDown:
		return effect{ports: []string{"lan"}, down: true, moves: true}
	case LANCut:
		return effect{ports: []string{"lan"}, moves: true}
	case Handover:
		return effect{moves: true}
	case Restart:
		return effect{}
	}
	panic("unknown fault " + string(f))
}

// Cut is a fault made ready: all that is left to do is one write, one signal,
// or both.
type Cut struct {
	Fault Fault

	node  *Node
	pids  []int  // that are signalled
	links *batch // nil if no port is touched
	heal  *batch

	// What the system is asked for, and to undo it. Optional.
	ask, askBack func(context.Context, *Node) error
}

// NewCut prepares the fault for a router. Close it.
func (n *Net) NewCut(f Fault, node *Node) (*Cut, error) {
	c := &Cut{Fault: f, node: node}
	e := f.effect()
	if e.signal != 0 {
		// Finding a daemon's children takes longer than some of the pairs do.
		var err error
		if c.pids, err = node.pids(e.signal, f == Poweroff); err != nil {
			return nil, fmt.Errorf("prepare %s: %w", f, err)
		}
	}
	if len(e.ports) == 0 {
		return c, nil
	}
	var cut, heal []*nl.NetlinkRequest
	for _, b := range e.ports {
		l, ok := n.sw.ports[portKey{node.Name, b}]
		if !ok {
			return nil, fmt.Errorf("prepare %s: %s has no port on %s", f, node.Name, b)
		}
		if e.down {
			// The sync link is a cable between the routers, in two pieces here.
			if other, ok := n.sw.ports[portKey{n.other(node).Name, b}]; ok && b == "sync" {
				cut, heal = append(cut, carrier(other, false)), append(heal, carrier(other, true))
			}
			cut, heal = append(cut, carrier(l, false)), append(heal, carrier(l, true))
		} else {
			cut, heal = append(cut, portState(l, brDisabled)), append(heal, portState(l, brForwarding))
		}
	}
	var err error
	if c.links, err = n.sw.newBatch(cut); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", f, err)
	}
	if c.heal, err = n.sw.newBatch(heal); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s: %w", f, err), c.Close())
	}
	return c, nil
}

// Do makes the fault. It returns the instant just before the first effect and
// the instant when all of it was in place.
func (c *Cut) Do(ctx context.Context) (before, after time.Duration, err error) {
	before = c.node.lab.now()
	if c.ask != nil {
		err = c.ask(ctx, c.node)
	}
	err = errors.Join(err, kill(c.pids, c.Fault.effect().signal))
	if c.links != nil {
		err = errors.Join(err, c.links.send())
	}
	after = c.node.lab.now()
	if err != nil {
		return before, after, fmt.Errorf("%s of %s: %w", c.Fault, c.node.Name, err)
	}
	return before, after, nil
}

// Undo plugs the node in again and lets a stopped daemon go on. Starting an
// ended daemon is the caller's business.
func (c *Cut) Undo(ctx context.Context) error {
	var errs []error
	if c.askBack != nil {
		errs = append(errs, c.askBack(ctx, c.node))
	}
	if c.heal != nil {
		errs = append(errs, c.heal.send())
	}
	if c.Fault == Sigstop {
		errs = append(errs, kill(c.pids, syscall.SIGCONT))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("heal %s of %s: %w", c.Fault, c.node.Name, err)
	}
	return nil
}

// Close closes the sockets of the fault and heals nothing.
func (c *Cut) Close() error {
	var errs []error
	for _, b := range []*batch{c.links, c.heal} {
		if b != nil {
			errs = append(errs, unix.Close(b.fd))
		}
	}
	return errors.Join(errs...)
}

// States of a bridge port, as BR_STATE_* in linux/if_bridge.h.
const (
	brDisabled   = 0
	brForwarding = 3
)

// portState is the request that sets the state of a bridge port: a blocked port
// passes nothing in either direction and keeps its carrier. It needs a bridge
// without spanning tree, which would own the state.
func portState(port netlink.Link, state uint8) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(port.Attrs().Index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	info.AddRtAttr(nl.IFLA_BRPORT_STATE, []byte{state})
	req.AddData(info)
	return req
}

// carrier is the request that takes a port down or up, and with it the carrier
// of the interface at the other end of the cable.
func carrier(port netlink.Link, up bool) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(port.Attrs().Index)
	msg.Change = unix.IFF_UP
	if up {
		msg.Flags = unix.IFF_UP
	}
	req.AddData(msg)
	return req
}

// batch is several rtnetlink requests, serialised, and a socket to write them
// to at once.
type batch struct {
	fd  int
	buf []byte
	n   int // requests
}

func (s *Switch) newBatch(reqs []*nl.NetlinkRequest) (*batch, error) {
	b := &batch{fd: -1, n: len(reqs)}
	for _, r := range reqs {
		b.buf = append(b.buf, r.Serialize()...)
	}
	err := s.ns.Do(func() error {
		var err error
		b.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		tv := unix.Timeval{Sec: 5}
		return unix.SetsockoptTimeval(b.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	})
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket in %s: %w", s.ns.Name, err)
	}
	return b, nil
}

// send writes the batch and collects its answers. The kernel carries requests
// out within the write, so when it returns they are in effect.
func (b *batch) send() error {
	if _, err := unix.Write(b.fd, b.buf); err != nil {
		return fmt.Errorf("write %d link requests: %w", b.n, err)
	}
	buf := make([]byte, 8192)
	for left := b.n; left > 0; {
		n, err := unix.Read(b.fd, buf)
		if err != nil {
			return fmt.Errorf("read the answers to %d link requests: %w", b.n, err)
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return fmt.Errorf("parse the answers to %d link requests: %w", b.n, err)
		}
		for _, m := range msgs {
			if m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 {
				continue
			}
			left--
			if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
				return fmt.Errorf("change a port: %w", syscall.Errno(errno))
			}
		}
	}
	return nil
}
