package group

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// segment is an Ethernet in memory. Frames arrive at once.
type segment struct {
	mu    sync.Mutex
	ports []*port
	log   [][]byte
	lose  func(from *port, b []byte) bool // may be nil
}

// port is one NIC on a segment.
type port struct {
	s    *segment
	in   chan []byte
	done chan struct{}
	once sync.Once
	fail error // what WriteTo returns; under s.mu
	echo bool  // frames come back, as from a teaming hypervisor; under s.mu
}

func (s *segment) plug() *port {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &port{s: s, in: make(chan []byte, 256), done: make(chan struct{})}
	s.ports = append(s.ports, p)
	return p
}

func (s *segment) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// frames returns all frames so far.
func (s *segment) frames() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

func (p *port) WriteTo(b []byte, _ net.Addr) (int, error) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.fail != nil {
		return 0, p.fail
	}
	b = slices.Clone(b)
	p.s.log = append(p.s.log, b)
	for _, q := range p.s.ports {
		if q == p && !p.echo || p.s.lose != nil && p.s.lose(p, b) {
			continue
		}
		select {
		case q.in <- b:
		default: // as a NIC does
		}
	}
	return len(b), nil
}

func (p *port) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case f := <-p.in:
		return copy(b, f), nil, nil
	case <-p.done:
		return 0, nil, net.ErrClosed
	}
}

func (p *port) Close() error                     { p.once.Do(func() { close(p.done) }); return nil }
func (p *port) LocalAddr() net.Addr              { return nil }
func (p *port) SetDeadline(time.Time) error      { return nil }
func (p *port) SetReadDeadline(time.Time) error  { return nil }
func (p *port) SetWriteDeadline(time.Time) error { return nil }

// node is a Group under test, with a dataplane that remembers.
type node struct {
	*Group
	port   *port
	cancel context.CancelFunc
	end    context.CancelCauseFunc
	ended  chan error

	mu    sync.Mutex
	role  carp.Role
	trans []Transition
	order []string // effects as they happen
	fail  error    // of SetRole
}

// SetDemotion implements carp.Dataplane.
func (n *node) SetDemotion(uint8, uint32) {}

// SetTerm implements carp.Dataplane.
func (n *node) SetTerm(uint8, uint64) {}

// Accept implements carp.Dataplane.
func (n *node) Accept(uint8) carp.Role {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.order = append(n.order, "accept")
	return n.role
}

func (n *node) SetRole(_ uint8, r carp.Role) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail != nil {
		return n.fail
	}
	if n.role.State != r.State {
		n.order = append(n.order, "role "+r.State.String())
	}
	n.role = r
	return nil
}

func (n *node) state() carp.State { return n.Status().State }

// acts reports whether the dataplane speaks for the addresses now.
func (n *node) acts(now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.role.State == carp.Master && now.Before(n.role.Until)
}

func (n *node) transitions() []Transition {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.trans)
}

var (
	vip4 = netip.MustParsePrefix("192.0.2.100/24")
	vip6 = netip.MustParsePrefix("2001:db8::100/64")
)

// start runs a Group on the segment. last is the end of its addresses.
func start(tb testing.TB, s *segment, last byte, c carp.Config, more ...func(*Config)) *node {
	tb.Helper()
	n := &node{port: s.plug(), ended: make(chan error, 1)}
	if c.VHID == 0 {
		c.VHID = 7
	}
	c.Counter, c.Node = uint64(last)<<32, uint64(last)<<1
	cfg := Config{
		Name: "lan", Carpdev: "eth0", Machine: c,
		Addrs:        []netip.Prefix{vip4, vip6},
		Conn:         n.port,
		HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, last},
		Source4:      func() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, last}) },
		Source6:      func() netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: last}) },
		Dataplane:    n,
		OnRole: func(t Transition) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.trans = append(n.trans, t)
		},
		BeforeMaster: func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.order = append(n.order, "before")
		},
		Now: time.Now,
	}
	for _, f := range more {
		f(&cfg)
	}
	if cfg.Guard.Key == nil {
		cfg.Guard.Key = carp.NewKey("secret", c.VHID, []netip.Addr{vip4.Addr(), vip6.Addr()}, carp.OpenBSD)
	}
	n.Group = New(cfg)
	ctx, end := context.WithCancelCause(context.Background())
	n.end, n.cancel = end, func() { end(nil) }
	go func() { n.ended <- n.Run(ctx) }()
	n.Link(true)
	return n
}

// stop ends the node in an orderly way and fails the test on an error.
func (n *node) stop(tb testing.TB) {
	tb.Helper()
	n.cancel()
	if err := <-n.ended; err != nil {
		tb.Error(err)
	}
}
