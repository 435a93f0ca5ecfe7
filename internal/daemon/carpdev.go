package daemon

import (
	"context"
	"io"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/xcarp/xcarp/internal/carp/group"
	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/loader"
)

// A carpdev is an interface with our programs on it and the groups that live
// there.
type carpdev struct {
	name    string
	ifindex int
	mtu     int
	lock    io.Closer
	port    *loader.Port
	adverts *group.Carpdev // opened with the first group
	ears    *ears

	open    context.Context // ends when the carpdev is let go
	letGo   context.CancelFunc
	sampled chan struct{} // closed when nobody reads its samples any more

	// What an advert from here carries as its source; not valid where the
	// interface has no own address of the family.
	source4, source6 addrBox

	mu    sync.Mutex
	up    bool
	known bool // up was set
	onUp  map[*func(up bool)]bool
}

// conn returns what a group on the carpdev hears and says. One goroutine at a time
// may call it, and hush.
func (d *carpdev) conn(g *config.Group) (net.PacketConn, error) {
	if d.adverts == nil {
		a, err := group.OpenCarpdev(d.name)
		if err != nil {
			return nil, err
		}
		d.adverts = a
	}
	for _, to := range []netip.Addr{g.Mcast4, g.Mcast6} {
		if !to.IsValid() {
			continue
		}
		if err := d.adverts.Join(to); err != nil {
			return nil, err
		}
	}
	for _, peer := range []netip.Addr{g.Peer4, g.Peer6} {
		if !peer.IsValid() {
			continue
		}
		if err := d.adverts.Absorb(peer.Is4()); err != nil {
			return nil, err
		}
	}
	return d.adverts.Conn(g.VHID)
}

// hush stops listening to adverts, when no group is left that would.
func (d *carpdev) hush() error {
	if d.adverts == nil {
		return nil
	}
	a := d.adverts
	d.adverts = nil
	return a.Close()
}

// OnUp calls f with the state of the link now and at each change, until off is
// called.
func (d *carpdev) OnUp(f func(up bool)) (off func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.onUp == nil {
		d.onUp = map[*func(bool)]bool{}
	}
	d.onUp[&f] = true
	if d.known {
		f(d.up)
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.onUp, &f)
	}
}

// Down reports whether the link is known to be down.
func (d *carpdev) Down() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known && !d.up
}

// SetUp notes the state of the link and tells those who asked, if it changed. It
// reports whether the link is back.
func (d *carpdev) SetUp(up bool) (back bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known && d.up == up {
		return false
	}
	back = d.known && up
	d.up, d.known = up, true
	for f := range d.onUp {
		(*f)(up)
	}
	return back
}

// carpdevs are those of this node by ifindex. One goroutine at a time changes the
// set, anybody reads it.
type carpdevs struct {
	p atomic.Pointer[map[int]*carpdev]
}

// All returns the set, which is never changed.
func (c *carpdevs) All() map[int]*carpdev {
	if m := c.p.Load(); m != nil {
		return *m
	}
	return nil
}

// Named returns the carpdev of that name, or nil.
func (c *carpdevs) Named(name string) *carpdev {
	for _, d := range c.All() {
		if d.name == name {
			return d
		}
	}
	return nil
}

// Add adds a carpdev to the set.
func (c *carpdevs) Add(d *carpdev) {
	next := map[int]*carpdev{d.ifindex: d}
	for i, o := range c.All() {
		next[i] = o
	}
	c.p.Store(&next)
}

// Remove takes it out.
func (c *carpdevs) Remove(d *carpdev) {
	next := maps.Clone(c.All())
	delete(next, d.ifindex)
	c.p.Store(&next)
}

// addrBox is an address that one goroutine sets and others read.
type addrBox struct{ p atomic.Pointer[netip.Addr] }

func (b *addrBox) Store(a netip.Addr) { b.p.Store(&a) }

func (b *addrBox) Load() netip.Addr {
	if a := b.p.Load(); a != nil {
		return *a
	}
	return netip.Addr{}
}
