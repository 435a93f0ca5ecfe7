package daemon

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
)

// A keeper gives the kernel the shared addresses of the groups that this node is
// MASTER of, and sets the RST trap before it does. It works behind the election:
// the dataplane answers for an address without the kernel having it, so a
// takeover waits for nothing here.
type keeper struct {
	log     *zap.Logger
	handle  *netlink.Handle
	trap    *rstTrap // nil where the kernel has no nftables
	roles   chan roleOf
	changed chan int // ifindex on which the kernel's addresses changed
	now     func() time.Time

	mu    sync.Mutex // guards owned: groups come and go while Run runs
	owned map[string]*ownedAddrs

	incomplete chan bool // whether this node's table lacks connections
	trapAll    bool
	trapOurs   bool // the trap is as this process set it, not one before
}

// ownedAddrs is what a group may give to its carpdev.
type ownedAddrs struct {
	ifindex int
	addrs   []netip.Addr
	local   bool // mode: local; otherwise the kernel never has them
	state   carp.State
	since   time.Time // of state
}

// roleOf tells the keeper where a group is.
type roleOf struct {
	group string
	state carp.State
}

// newKeeper opens its sockets in the caller's network namespace.
func newKeeper(log *zap.Logger, now func() time.Time) (*keeper, error) {
	h, err := netlink.NewHandle(unixNetlinkRoute)
	if err != nil {
		return nil, err
	}
	k := &keeper{
		log:        log,
		handle:     h,
		roles:      make(chan roleOf, 64),
		changed:    make(chan int, 64),
		incomplete: make(chan bool, 1),
		owned:      map[string]*ownedAddrs{},
		now:        now,
	}
	if k.trap, err = newRSTTrap(); err != nil {
		log.Warn("no RST trap: after a takeover the local stack may reset connections whose entry is missing", zap.Error(err))
		k.trap = nil
	}
	return k, nil
}

// Own registers a group, perhaps in the place of what it was before. Addresses that
// it no longer has leave the box at once.
func (k *keeper) Own(group string, ifindex int, addrs []netip.Addr, local bool, state carp.State) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.owned[group]
	k.owned[group] = &ownedAddrs{ifindex: ifindex, addrs: addrs, local: local, state: state, since: k.now()}
	if before == nil {
		return
	}
	if state == before.state {
		k.owned[group].since = before.since
	}
	k.remove(group, before, ifindex, addrs)
	if state == carp.Master {
		k.setTrap() // of new addresses, if the promotion was not long ago
		k.settle([]string{group})
	}
}

// Yield takes those addresses of a group off the box that it will not have any more.
func (k *keeper) Yield(group string, ifindex int, addrs []netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if o := k.owned[group]; o != nil {
		k.remove(group, o, ifindex, addrs)
		o.addrs = slices.DeleteFunc(slices.Clone(o.addrs), func(a netip.Addr) bool { // or refill would give them back
			return ifindex != o.ifindex || !slices.Contains(addrs, a)
		})
	}
}

// remove takes off the box what a group had and neither it will have, on the
// interface that it will be on, nor another group has taken over meanwhile: to take
// an address away and give it back would cost the flows that are masqueraded behind
// it. With mu held.
func (k *keeper) remove(group string, o *ownedAddrs, ifindex int, addrs []netip.Addr) {
	gone := slices.DeleteFunc(slices.Clone(o.addrs), func(a netip.Addr) bool {
		if ifindex == o.ifindex && slices.Contains(addrs, a) {
			return true
		}
		for other, p := range k.owned {
			if other != group && p.local && (p.state == carp.Master || p.state == carp.Drain) && p.ifindex == o.ifindex && slices.Contains(p.addrs, a) {
				return true
			}
		}
		return false
	})
	if err := removeHostAddrs(k.handle, o.ifindex, gone); err != nil {
		k.log.Error("shared addresses", zap.String("group", group), zap.Error(err))
	}
}

// Disown forgets a group that has ended, and takes its addresses off the box.
func (k *keeper) Disown(group string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o := k.owned[group]
	if o == nil {
		return
	}
	delete(k.owned, group)
	k.remove(group, o, 0, nil)
}

// Role tells where the group is now. It does not block for longer than the
// queue is full, which takes 64 transitions that the kernel did not follow.
func (k *keeper) Role(group string, state carp.State) { k.roles <- roleOf{group, state} }

// Changed says that the kernel's addresses on an interface changed, by whomever.
// A hint that finds the queue full is dropped: one that waits does the same work.
func (k *keeper) Changed(ifindex int) {
	select {
	case k.changed <- ifindex:
	default:
	}
}

// Incomplete says whether this node's connection table lacks entries.
func (k *keeper) Incomplete(yes bool) {
	select {
	case <-k.incomplete: // the newest counts
	default:
	}
	k.incomplete <- yes
}

// Run follows the roles until the context ends, then takes every address that a
// group no longer answers for off the box.
func (k *keeper) Run(ctx context.Context) error {
	k.locked(func() { k.settle(slices.Collect(maps.Keys(k.owned))) })
	for {
		select {
		case r := <-k.roles:
			k.follow(waiting(k.roles, r))
		case ifindex := <-k.changed:
			k.refill(waiting(k.changed, ifindex))
		case yes := <-k.incomplete:
			if yes != k.trapAll || !k.trapOurs {
				k.locked(func() {
					k.trapAll = yes
					k.setTrap()
				})
			}
		case <-ctx.Done():
			return k.finish()
		}
	}
}

func (k *keeper) locked(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

// finish works off what the last transitions left and takes the trap away.
func (k *keeper) finish() error {
	for {
		select {
		case r := <-k.roles:
			k.follow(waiting(k.roles, r))
			continue
		default:
		}
		break
	}
	if k.trap != nil {
		if err := k.trap.Remove(); err != nil {
			k.log.Warn("RST trap left behind", zap.Error(err))
		}
		k.trap.Close()
	}
	k.handle.Close()
	return nil
}

// waiting returns the first and all others that wait behind it: what hundreds of
// groups do at once is done once.
func waiting[T any](c <-chan T, first T) []T {
	all := []T{first}
	for {
		select {
		case v, ok := <-c:
			if !ok {
				return all
			}
			all = append(all, v)
		default:
			return all
		}
	}
}

func (k *keeper) follow(rs []roleOf) {
	k.mu.Lock()
	defer k.mu.Unlock()
	promoted := false
	var groups []string
	for _, r := range rs {
		o := k.owned[r.group]
		if o == nil {
			continue // it has been taken out of the configuration meanwhile
		}
		promoted = promoted || r.state == carp.Master && o.state != carp.Master
		if r.state != o.state { // one that was adopted is no promotion
			o.state, o.since = r.state, k.now()
		}
		if !slices.Contains(groups, r.group) {
			groups = append(groups, r.group)
		}
	}
	if promoted {
		k.setTrap() // before the kernel owns the address and could reset
	}
	k.settle(groups)
}

// refill gives back to the interfaces what somebody took from them.
func (k *keeper) refill(ifindexes []int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var groups []string
	for group, o := range k.owned {
		if o.state == carp.Master && slices.Contains(ifindexes, o.ifindex) {
			groups = append(groups, group)
		}
	}
	k.settle(groups)
}

// settle makes the kernel hold the groups' addresses exactly while they are MASTER
// or drain. With mu held, as setTrap.
func (k *keeper) settle(groups []string) {
	add, remove := map[int][]netip.Addr{}, map[int][]netip.Addr{} // by interface
	for _, group := range groups {
		o := k.owned[group]
		switch {
		case !o.local || o.state == carp.Init || o.state == carp.Backup:
			for _, a := range o.addrs {
				if !k.held(o.ifindex, a) {
					remove[o.ifindex] = append(remove[o.ifindex], a)
				}
			}
		case o.state == carp.Master:
			add[o.ifindex] = append(add[o.ifindex], o.addrs...)
		}
	}
	for ifindex, addrs := range remove {
		if err := removeHostAddrs(k.handle, ifindex, addrs); err != nil {
			k.log.Error("shared addresses not removed", zap.Strings("groups", groups), zap.Error(err))
		}
	}
	for ifindex, addrs := range add {
		if err := addHostAddrs(k.handle, ifindex, addrs); err != nil {
			k.log.Error("shared addresses not added", zap.Strings("groups", groups), zap.Error(err))
		}
	}
}

// held reports whether some group is MASTER of the address, or drains: of several
// vhids that share it any will do. With mu held.
func (k *keeper) held(ifindex int, a netip.Addr) bool {
	for _, o := range k.owned {
		if o.local && o.ifindex == ifindex && (o.state == carp.Master || o.state == carp.Drain) && slices.Contains(o.addrs, a) {
			return true
		}
	}
	return false
}

// setTrap puts into the trap what needs it now: everything while the table is
// incomplete, else what was promoted less than trapTime ago.
func (k *keeper) setTrap() {
	if k.trap == nil {
		return
	}
	var addrs []netip.Addr
	for _, o := range k.owned {
		if k.trapAll || (o.state == carp.Master && k.now().Sub(o.since) < trapTime) {
			addrs = append(addrs, o.addrs...)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	d := trapTime
	if k.trapAll {
		d = 0
	}
	if err := k.trap.Set(addrs, d); err != nil {
		k.log.Error("RST trap", zap.Error(err))
		return
	}
	k.trapOurs = true
}
