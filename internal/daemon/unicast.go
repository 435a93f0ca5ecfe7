package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/carp/group"
	"github.com/xcarp/xcarp/internal/config"
)

// unicast knows where the peers of the groups with carppeer are. The kernel
// resolves them; a send reads what it last said and never waits.
type unicast struct {
	log    *zap.Logger
	handle *netlink.Handle
	socket *nl.NetlinkSocket // for what the handle cannot ask
	shared func(netip.Addr) bool
	more   chan struct{} // holds one: there are more peers

	mu    sync.Mutex // groups come and go while Run runs
	peers []*peer
}

// peer is one carppeer on one carpdev.
type peer struct {
	ifindex int
	addr    netip.Addr
	at      atomic.Pointer[group.Destination]

	added, looked time.Time // under the mutex of unicast
}

// due is when the peer is to be looked up again.
func (p *peer) due() time.Time {
	if p.at.Load().MAC == everybody(p.addr) && p.looked.Sub(p.added) < peerNew {
		return p.looked.Add(peerSoon)
	}
	return p.looked.Add(peerEvery)
}

// peerEvery is how often a peer is looked up: a neighbour entry that nothing else
// uses must be kept alive, and a peer whose card was changed has another MAC. One
// whose MAC is not known is looked up every peerSoon for the first peerNew: until then
// its adverts go to everybody, and a kernel whose link-local address is tentative does
// not ask.
const (
	peerEvery = time.Second
	peerSoon  = peerEvery / 10
	peerNew   = 10 * time.Second
)

// newUnicast opens its socket in the caller's network namespace.
func newUnicast(log *zap.Logger, shared func(netip.Addr) bool) (*unicast, error) {
	h, err := netlink.NewHandle(unixNetlinkRoute)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	s, err := nl.Subscribe(unixNetlinkRoute)
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return &unicast{log: log, handle: h, socket: s, shared: shared, more: make(chan struct{}, 1)}, nil
}

// Close is for after Run.
func (u *unicast) Close() {
	u.handle.Close()
	u.socket.Close()
}

// destination returns where the member's adverts of a family go; nil means CARP's
// own group.
func (d *Daemon) destination(m *member, to, mcast netip.Addr) func() group.Destination {
	switch {
	case to.IsValid():
		p := d.unicast.Add(m.dev.ifindex, to)
		m.peers = append(m.peers, p)
		return func() group.Destination { return *p.at.Load() }
	case mcast.IsValid():
		return func() group.Destination { return group.Destination{To: mcast} }
	}
	return nil
}

// Add begins to follow a peer.
func (u *unicast) Add(ifindex int, to netip.Addr) *peer {
	p := &peer{ifindex: ifindex, addr: to, added: time.Now()}
	p.at.Store(&group.Destination{To: to, MAC: everybody(to)})
	u.mu.Lock()
	defer u.mu.Unlock()
	u.peers = append(u.peers, p)
	u.look(p)
	select {
	case u.more <- struct{}{}:
	default:
	}
	return p
}

// Drop follows these no longer.
func (u *unicast) Drop(gone []*peer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.peers = slices.DeleteFunc(u.peers, func(p *peer) bool { return slices.Contains(gone, p) })
}

// everybody is the MAC that reaches a peer of unknown MAC: a takeover does not wait
// for its answer, nor does a lease for a peer that is dead.
func everybody(to netip.Addr) carp.MAC {
	if to.Is4() {
		return carp.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	return carp.MulticastMAC(netip.IPv6LinkLocalAllNodes())
}

// Run follows the peers until the context ends.
func (u *unicast) Run(ctx context.Context) error {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-u.more:
		case <-ctx.Done():
			return nil
		}
		t.Reset(time.Until(u.lookAround()))
	}
}

// lookAround looks up who is due, and returns when the next one is.
func (u *unicast) lookAround() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	next := time.Now().Add(peerEvery)
	for _, p := range u.peers {
		if !time.Now().Before(p.due()) {
			u.look(p)
		}
		if at := p.due(); at.Before(next) {
			next = at
		}
	}
	return next
}

// look asks the kernel for the route to the peer and for the MAC of its next hop,
// and has it ask the neighbour where that is not fresh. What was known stays while
// nothing better is. With mu held.
func (u *unicast) look(p *peer) {
	p.looked = time.Now()
	now := *p.at.Load()
	hop := p.addr
	routes, err := u.handle.RouteGetWithOptions(p.addr.AsSlice(), &netlink.RouteGetOptions{OifIndex: p.ifindex})
	if err == nil && len(routes) > 0 {
		if gw, ok := netip.AddrFromSlice(routes[0].Gw); ok {
			hop = gw.Unmap()
		}
		if src, ok := netip.AddrFromSlice(routes[0].Src); ok && !u.shared(src.Unmap()) {
			now.From = src.Unmap()
		}
	} else if err != nil {
		u.log.Debug("no route to carppeer", zap.Stringer("carppeer", p.addr), zap.Error(err))
	}
	mac, state, err := u.neighbour(p.ifindex, hop)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		u.log.Debug("neighbour not read", zap.Stringer("carppeer", p.addr), zap.Error(err))
	}
	const fresh = netlink.NUD_REACHABLE | netlink.NUD_PERMANENT | netlink.NUD_NOARP | netlink.NUD_DELAY | netlink.NUD_PROBE
	if state&(fresh|netlink.NUD_STALE) != 0 && len(mac) == 6 {
		now.MAC = carp.MAC(mac)
	}
	if state&fresh == 0 {
		use := &netlink.Neigh{LinkIndex: p.ifindex, IP: hop.AsSlice(), Flags: netlink.NTF_USE, Family: family(hop)}
		if err := u.handle.NeighSet(use); err != nil {
			u.log.Debug("neighbour not asked", zap.Stringer("carppeer", p.addr), zap.Error(err))
		}
	}
	if old := p.at.Load(); old.MAC != now.MAC {
		u.log.Info("carppeer", zap.Stringer("carppeer", p.addr), zap.Stringer("mac", net.HardwareAddr(now.MAC[:])))
	}
	p.at.Store(&now)
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// neighbour asks for one entry of the neighbour table; to list them all would cost
// as much as the table is long.
func (u *unicast) neighbour(ifindex int, a netip.Addr) (net.HardwareAddr, int, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, 0)
	req.Sockets = map[int]*nl.SocketHandle{unixNetlinkRoute: {Socket: u.socket}}
	req.AddData(&netlink.Ndmsg{Family: uint8(family(a)), Index: uint32(ifindex)})
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, a.AsSlice()))
	answers, err := req.Execute(unixNetlinkRoute, unix.RTM_NEWNEIGH)
	if err != nil || len(answers) == 0 {
		return nil, 0, err
	}
	n, err := netlink.NeighDeserialize(answers[0])
	if err != nil {
		return nil, 0, err
	}
	return n.HardwareAddr, n.State, nil
}

// tos is the type of service of a group's adverts.
func tos(g *config.Group) uint8 { return g.DSCP << 2 }
