package daemon

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
)

// A carpdev on which nothing is heard is asked for signs of life: at this pace,
// after that much silence, and it is deaf after the third. A LAN where somebody
// speaks twice a second is never asked.
const (
	earsEvery = 250 * time.Millisecond
	earsQuiet = 500 * time.Millisecond
	earsDeaf  = 1500 * time.Millisecond

	// In a hurry it is asked so often, and waited that long each time: together for more
	// than lies between two asks of a peer, which are frames as well.
	earsLooks = 2
	earsLook  = 3 * time.Millisecond

	targetsMax = 4 // neighbours to ask
)

// ears listens on a carpdev for anybody at all: when the master falls silent, that
// tells who of two nodes is cut off. Neighbours are asked by ARP probes (RFC 5227,
// section 2.1.1), which move nothing in anybody's tables.
type ears struct {
	dev    *carpdev
	log    *zap.Logger
	handle *netlink.Handle
	conn   *packet.Conn
	onTurn func(carp.Ears) // the state has changed
	shared func(netip.Addr) bool

	received uint64    // frames, by the last look
	heard    time.Time // when that last changed
	asked    time.Time
	unheard  int // probes that nobody answered

	mu      sync.Mutex
	state   carp.Ears
	targets []netip.Addr // that we know
	told    []netip.Addr // that the peers know

	hurry      chan struct{} // holds one: look at once
	stop, done chan struct{}
}

// newEars makes them; shared says which addresses are a group's: those are the master's,
// and whether that one is heard is not the question.
func newEars(dev *carpdev, log *zap.Logger, shared func(netip.Addr) bool, onTurn func(carp.Ears)) (*ears, error) {
	e := &ears{dev: dev, log: log, onTurn: onTurn, shared: shared, heard: time.Now(), hurry: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	var err error
	if e.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, err
	}
	ifi, err := net.InterfaceByIndex(dev.ifindex)
	if err == nil {
		// Protocol 0: it sends and never receives.
		e.conn, err = packet.Listen(ifi, packet.Raw, 0, nil)
	}
	if err != nil {
		e.handle.Close()
		return nil, err
	}
	return e, nil
}

// State returns what is heard, and up to targetsMax neighbours that others may ask.
func (e *ears) State() (carp.Ears, []netip.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state, e.targets
}

// Told notes neighbours that a peer knows.
func (e *ears) Told(targets []netip.Addr) {
	if len(targets) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.told = targets
}

// Stop ends Run and waits for that.
func (e *ears) Stop() {
	close(e.stop)
	<-e.done
}

func (e *ears) close() {
	e.handle.Close()
	e.conn.Close()
}

// Run listens until the context ends, or Stop is called.
func (e *ears) Run(ctx context.Context) error {
	defer close(e.done)
	defer e.close()
	t := time.NewTicker(earsEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			e.listen(time.Now())
		case <-e.hurry:
			e.look()
		case <-e.stop:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// Hurry makes it find out at once what can be heard. It does not wait for that.
func (e *ears) Hurry() {
	select {
	case e.hurry <- struct{}{}:
	default:
	}
}

// look asks for signs of life, twice, and does not wait long: neighbours answer within
// a millisecond. It is called when there is reason to think that we hear nobody.
func (e *ears) look() {
	begin, asked := time.Now(), 0
	l, err := e.handle.LinkByIndex(e.dev.ifindex)
	if err != nil || l.Attrs().Statistics == nil {
		return
	}
	e.received = l.Attrs().Statistics.RxPackets
	for range earsLooks {
		if e.ask(l.Attrs().HardwareAddr) {
			asked++
		}
		select {
		case <-e.stop:
			return
		case <-time.After(earsLook):
		}
		if l, err = e.handle.LinkByIndex(e.dev.ifindex); err != nil || l.Attrs().Statistics == nil {
			return
		}
		if n := l.Attrs().Statistics.RxPackets; n != e.received {
			e.received, e.heard, e.unheard = n, time.Now(), 0
			e.turn(carp.EarsHear)
			return
		}
	}
	if asked == earsLooks {
		e.heard, e.unheard = begin.Add(-earsDeaf), earsLooks // until something is heard
		e.turn(carp.EarsDeaf)
	}
}

func (e *ears) listen(now time.Time) {
	l, err := e.handle.LinkByIndex(e.dev.ifindex)
	if err != nil || l.Attrs().Statistics == nil {
		return // the interface is gone: others say so
	}
	if n := l.Attrs().Statistics.RxPackets; n != e.received {
		e.received, e.heard, e.unheard = n, now, 0
		e.turn(carp.EarsHear)
		return
	}
	quiet := now.Sub(e.heard)
	if quiet >= earsQuiet && now.Sub(e.asked) >= earsQuiet {
		e.asked = now
		if e.ask(l.Attrs().HardwareAddr) {
			e.unheard++
		}
	}
	switch {
	case quiet < earsDeaf:
	case e.unheard >= 2:
		e.turn(carp.EarsDeaf)
	default:
		e.turn(carp.EarsUnknown)
	}
}

func (e *ears) turn(s carp.Ears) {
	e.mu.Lock()
	changed := e.state != s
	e.state = s
	e.mu.Unlock()
	if changed {
		e.onTurn(s)
	}
}

// ask probes neighbours and reports whether there was anybody to ask.
func (e *ears) ask(own net.HardwareAddr) bool {
	known := e.neighbours()
	e.mu.Lock()
	e.targets = known
	all := slices.DeleteFunc(append(slices.Clone(known), e.told...), e.shared)
	e.mu.Unlock()
	asked := false
	for _, a := range all[:min(len(all), targetsMax)] {
		b := arpProbe(own, a)
		if _, err := e.conn.WriteTo(b, &packet.Addr{HardwareAddr: b[:6]}); err != nil {
			e.log.Debug("probe", zap.String("carpdev", e.dev.name), zap.Error(err))
			continue
		}
		asked = true
	}
	return asked
}

// neighbours returns some that have answered before.
func (e *ears) neighbours() []netip.Addr {
	list, err := e.handle.NeighList(e.dev.ifindex, netlink.FAMILY_V4)
	if err != nil {
		return nil
	}
	const answered = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE
	var all []netip.Addr
	for _, n := range list {
		if a, ok := netip.AddrFromSlice(n.IP.To4()); ok && n.State&answered != 0 && len(all) < targetsMax && !e.shared(a) {
			all = append(all, a)
		}
	}
	return all
}

// arpProbe asks who has an address, without saying who asks.
func arpProbe(own net.HardwareAddr, a netip.Addr) []byte {
	b := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	b = append(b, own...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_ARP)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, request
	b = append(b, own...)
	b = append(b, 0, 0, 0, 0)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, a.AsSlice()...)
}
