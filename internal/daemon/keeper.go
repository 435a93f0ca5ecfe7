package daemon

import (
	"context"
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
	gone := slices.DeleteFunc(slices.Clone(before.addrs), func(a netip.Addr) bool {
		return ifindex == before.ifindex && slices.Contains(addrs, a)
	})
	if err := removeHostAddrs(k.handle, before.ifindex, gone); err != nil {
		k.log.Error("shared addresses", zap.String("group", group), zap.Error(err))
	}
	if state == carp.Master {
		k.setTrap() // of new addresses, if the promotion was not long ago
		k.settle(group)
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
	if err := removeHostAddrs(k.handle, o.ifindex, o.addrs); err != nil {
		k.log.Error("shared addresses", zap.String("group", group), zap.Error(err))
	}
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
	k.locked(func() {
		for group := range k.owned {
			k.settle(group)
		}
	})
	for {
		select {
		case r := <-k.roles:
			k.follow(r)
		case ifindex := <-k.changed:
			k.locked(func() {
				for group, o := range k.owned {
					if o.ifindex == ifindex && o.state == carp.Master {
						k.settle(group)
					}
				}
			})
		case yes := <-k.incomplete:
			if yes != k.trapAll {
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
			k.follow(r)
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

func (k *keeper) follow(r roleOf) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o := k.owned[r.group]
	if o == nil {
		return // it has been taken out of the configuration meanwhile
	}
	promoted := r.state == carp.Master && o.state != carp.Master
	o.state, o.since = r.state, k.now()
	if promoted {
		k.setTrap() // before the kernel owns the address and could reset
	}
	k.settle(r.group)
}

// settle makes the kernel hold the group's addresses exactly while it is MASTER
// or drains.
func (k *keeper) settle(group string) {
	o := k.owned[group]
	var err error
	switch {
	case !o.local || o.state == carp.Init || o.state == carp.Backup:
		err = removeHostAddrs(k.handle, o.ifindex, o.addrs)
	case o.state == carp.Master:
		err = addHostAddrs(k.handle, o.ifindex, o.addrs)
	}
	if err != nil {
		k.log.Error("shared addresses", zap.String("group", group), zap.Stringer("state", o.state), zap.Error(err))
	}
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
	}
}
