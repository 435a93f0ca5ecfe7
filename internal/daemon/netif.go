package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const unixNetlinkRoute = unix.NETLINK_ROUTE

// hostFacts is what the kernel knows of this node's interfaces and addresses,
// as the election and the sync need it. Run follows the kernel, a change of the
// configuration reads anew what it needs, anybody reads the result.
type hostFacts struct {
	log    *zap.Logger
	handle *netlink.Handle
	shared atomic.Pointer[map[netip.Addr]bool] // never the node's own, whoever holds them
	local  atomic.Pointer[map[netip.Addr]bool]

	reading sync.Mutex // so that an older answer of the kernel never replaces a newer one

	carpdevs *carpdevs
	onAddr   func(ifindex int) // addresses changed
	anew     func(dev string)  // an interface of the carpdev's name is another one now
	onLink   func(ifindex int, up bool)
}

// newHostFacts opens its socket in the caller's network namespace.
func newHostFacts(log *zap.Logger, shared map[netip.Addr]bool, carpdevs *carpdevs, onAddr func(int)) (*hostFacts, error) {
	h, err := netlink.NewHandle(unixNetlinkRoute)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	f := &hostFacts{log: log, handle: h, carpdevs: carpdevs, onAddr: onAddr}
	f.shared.Store(&shared)
	if err := f.readAddrs(); err != nil {
		return nil, err
	}
	return f, nil
}

// Share says which addresses are shared from now on, and reads the node's own anew.
func (f *hostFacts) Share(shared map[netip.Addr]bool) {
	f.shared.Store(&shared)
	f.reread()
}

// Shared says whether the address is a shared one.
func (f *hostFacts) Shared(a netip.Addr) bool { return (*f.shared.Load())[a] }

// Local says whether the address is one of this node's own: held by some
// interface here and not shared.
func (f *hostFacts) Local(a netip.Addr) bool { return (*f.local.Load())[a] }

// subscription is what Run listens to; made in the right network namespace.
type subscription struct {
	links chan netlink.LinkUpdate
	addrs chan netlink.AddrUpdate
	lost  chan error
	done  chan struct{}
}

// subscribe must be called in the network namespace of the carpdevs.
func (f *hostFacts) subscribe() (*subscription, error) {
	s := &subscription{
		links: make(chan netlink.LinkUpdate, 64),
		addrs: make(chan netlink.AddrUpdate, 64),
		lost:  make(chan error, 8),
		done:  make(chan struct{}),
	}
	lost := func(err error) {
		select {
		case s.lost <- err:
		default:
		}
	}
	if err := netlink.LinkSubscribeWithOptions(s.links, s.done, netlink.LinkSubscribeOptions{ErrorCallback: lost}); err != nil {
		return nil, fmt.Errorf("listen to link changes: %w", err)
	}
	if err := netlink.AddrSubscribeWithOptions(s.addrs, s.done, netlink.AddrSubscribeOptions{ErrorCallback: lost}); err != nil {
		close(s.done)
		return nil, fmt.Errorf("listen to address changes: %w", err)
	}
	return s, nil
}

// Run follows links and addresses until the context ends. Whatever a lost
// message would have said is read again from the kernel.
func (f *hostFacts) Run(ctx context.Context, s *subscription) error {
	defer f.handle.Close()
	defer func() { close(s.done) }()
	again := time.NewTicker(5 * time.Second) // a lost message costs no longer than this
	defer again.Stop()
	for {
		open := true
		var u netlink.LinkUpdate
		var a netlink.AddrUpdate
		select {
		case u, open = <-s.links:
			if open {
				f.link(u)
			}
		case a, open = <-s.addrs:
			if open {
				changed := map[int]bool{}
				for _, u := range waiting(s.addrs, a) {
					changed[u.LinkIndex] = true
				}
				f.reread()
				for i := range changed {
					f.onAddr(i)
				}
			}
		case err := <-s.lost:
			f.log.Debug("lost netlink messages", zap.Error(err))
			f.refresh()
		case <-again.C:
			f.refresh()
		case <-ctx.Done():
			return nil
		}
		if !open {
			// The library gives a subscription up at the first error, be it
			// an overrun or a signal.
			next, err := f.subscribe()
			if err != nil {
				return err
			}
			close(s.done)
			s = next
			f.refresh()
		}
	}
}

func (f *hostFacts) link(u netlink.LinkUpdate) {
	if f.onLink != nil {
		f.onLink(int(u.Index), u.Header.Type != unix.RTM_DELLINK && linkUp(u.Link))
	}
	d := f.carpdevs.All()[int(u.Index)]
	if d == nil {
		return
	}
	if d.SetUp(u.Header.Type != unix.RTM_DELLINK && linkUp(u.Link)) {
		f.forgetNeighbours(d)
	}
}

// forgetNeighbours makes the kernel ask again, at once, for whom it asked in vain
// while the link was down: it would wait up to a second between its questions, and
// a master that is back would forward nothing to them meanwhile.
func (f *hostFacts) forgetNeighbours(d *carpdev) {
	neighs, err := f.handle.NeighList(d.ifindex, netlink.FAMILY_ALL)
	if err != nil {
		f.log.Warn("neighbours not read", zap.String("carpdev", d.name), zap.Error(err))
		return
	}
	for i := range neighs {
		if neighs[i].State&(netlink.NUD_INCOMPLETE|netlink.NUD_FAILED) == 0 {
			continue
		}
		if err := f.handle.NeighDel(&neighs[i]); err != nil {
			f.log.Debug("neighbour not forgotten", zap.String("carpdev", d.name), zap.Error(err))
		}
	}
}

// refresh reads everything anew.
func (f *hostFacts) refresh() {
	f.readLinks()
	f.reread()
	for i, d := range f.carpdevs.All() {
		f.onAddr(i)
		if err := d.port.Recheck(); err != nil { // what can answer may have changed
			f.log.Debug("recheck", zap.String("carpdev", d.name), zap.Error(err))
		}
	}
}

func (f *hostFacts) reread() {
	if err := f.readAddrs(); err != nil {
		f.log.Warn("own addresses not read", zap.Error(err))
	}
}

// readLinks asks for the state of every carpdev; one that is gone is down. Where
// the kernel has no answer, as for want of memory, nothing is known to have changed.
func (f *hostFacts) readLinks() {
	for i, d := range f.carpdevs.All() {
		l, err := f.handle.LinkByIndex(i)
		if err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) {
			f.log.Warn("link not read", zap.String("carpdev", d.name), zap.Error(err))
			continue
		}
		if d.SetUp(err == nil && linkUp(l)) {
			f.forgetNeighbours(d)
		}
		if err == nil {
			continue
		}
		if l, err := f.handle.LinkByName(d.name); err == nil && linkUp(l) {
			f.anew(d.name)
		}
	}
}

// readAddrs reads all addresses of the node and sets the carpdevs' sources.
func (f *hostFacts) readAddrs() error {
	f.reading.Lock()
	defer f.reading.Unlock()
	all, err := listAddrs(f.handle, nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list own addresses: %w", err)
	}
	shared := *f.shared.Load()
	local := map[netip.Addr]bool{}
	source4, source6 := map[int]netip.Addr{}, map[int]netip.Addr{}
	for _, a := range all {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		ip = ip.Unmap()
		if shared[ip] {
			continue
		}
		local[ip] = true
		switch {
		case ip.Is4() && !source4[a.LinkIndex].IsValid():
			source4[a.LinkIndex] = ip
		case ip.Is6() && ip.IsLinkLocalUnicast() && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 && !source6[a.LinkIndex].IsValid():
			source6[a.LinkIndex] = ip
		}
	}
	f.local.Store(&local)
	for i, d := range f.carpdevs.All() {
		d.source4.Store(source4[i])
		d.source6.Store(source6[i])
	}
	return nil
}

// linkUp is the carp rule: a link whose state the driver does not tell counts as
// up (ip_carp.c of OpenBSD reacts to DOWN only).
func linkUp(l netlink.Link) bool {
	a := l.Attrs()
	return a.RawFlags&unix.IFF_UP != 0 &&
		(a.OperState == netlink.OperUp || a.OperState == netlink.OperUnknown)
}
