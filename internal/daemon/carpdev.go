package daemon

import (
	"io"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/xcarp/xcarp/internal/loader"
)

// A carpdev is an interface with our programs on it and the groups that live
// there.
type carpdev struct {
	name    string
	ifindex int
	lock    io.Closer
	port    *loader.Port
	ears    *ears

	// What an advert from here carries as its source; not valid where the
	// interface has no own address of the family.
	source4, source6 addrBox

	mu    sync.Mutex
	up    bool
	known bool // up was set
	onUp  []func(up bool)
}

// OnUp calls f with the state of the link now and at each change.
func (d *carpdev) OnUp(f func(up bool)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onUp = append(d.onUp, f)
	if d.known {
		f(d.up)
	}
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
	for _, f := range d.onUp {
		f(up)
	}
	return back
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
