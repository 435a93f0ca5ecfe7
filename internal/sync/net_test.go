package sync

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	stdsync "sync"
	"time"
)

// network is a link in memory. It loses, doubles, delays and reorders.
type network struct {
	mu    stdsync.Mutex
	rand  *rand.Rand
	conns map[netip.AddrPort]*memConn

	loss, double, reorder float64
	delay                 time.Duration
	cut                   bool
	tap                   func(from, to netip.AddrPort, b []byte) // each frame sent
}

func newNetwork() *network {
	return &network{rand: rand.New(rand.NewPCG(1, 2)), conns: make(map[netip.AddrPort]*memConn), delay: 50 * time.Microsecond}
}

func (n *network) set(f func(n *network)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n)
}

func (n *network) listen(a netip.AddrPort) *memConn {
	c := &memConn{net: n, addr: a, in: make(chan packet, 4096), stop: make(chan struct{})}
	n.set(func(n *network) { n.conns[a] = c })
	return c
}

type packet struct {
	b    []byte
	from netip.AddrPort
}

// inject delivers a datagram as if it came from that address.
func (n *network) inject(from, to netip.AddrPort, b []byte) {
	n.mu.Lock()
	c := n.conns[to]
	n.mu.Unlock()
	if c != nil {
		c.deliver(packet{b, from})
	}
}

func (n *network) send(from, to netip.AddrPort, b []byte) {
	n.mu.Lock()
	tap := n.tap
	times, delay := 1, n.delay
	if n.cut || n.rand.Float64() < n.loss {
		times = 0
	} else if n.rand.Float64() < n.double {
		times = 2
	}
	if n.rand.Float64() < n.reorder {
		delay *= 5
	}
	n.mu.Unlock()
	b = append([]byte(nil), b...)
	if tap != nil {
		tap(from, to, b)
	}
	for range times {
		time.AfterFunc(delay, func() { n.inject(from, to, b) })
	}
}

// memConn is a net.PacketConn on a network.
type memConn struct {
	net  *network
	addr netip.AddrPort
	in   chan packet
	once stdsync.Once
	stop chan struct{}
}

func (c *memConn) deliver(p packet) {
	select {
	case c.in <- p:
	default:
	}
}

func (c *memConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-c.in:
		return copy(b, p.b), net.UDPAddrFromAddrPort(p.from), nil
	case <-c.stop:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

func (c *memConn) WriteTo(b []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, errors.New("not a UDP address")
	}
	c.net.send(c.addr, u.AddrPort(), b)
	return len(b), nil
}

func (c *memConn) Close() error {
	c.net.set(func(n *network) {
		if n.conns[c.addr] == c {
			delete(n.conns, c.addr)
		}
	})
	return nil
}
func (c *memConn) LocalAddr() net.Addr                { return net.UDPAddrFromAddrPort(c.addr) }
func (c *memConn) SetReadDeadline(t time.Time) error  { c.once.Do(func() { close(c.stop) }); return nil }
func (c *memConn) SetWriteDeadline(t time.Time) error { return nil }
func (c *memConn) SetDeadline(t time.Time) error      { return c.SetReadDeadline(t) }
