package loader

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
)

// ErrChanged means that the role is no longer what this process last saw: another
// process, or a peer's claim, has changed it.
var ErrChanged = errors.New("role was changed by somebody else")

// stateBits are those of a role word that hold the state.
const stateBits = 3

func word(r carp.Role) uint64 {
	w := uint64(r.State) & stateBits
	if r.State == carp.Master || r.State == carp.Drain {
		w |= uint64(max(carp.SinceBoot(r.Until), 0)) &^ stateBits
	}
	return w
}

// role is what a word means to the programs at the given time.
func role(w uint64, now time.Duration) carp.Role {
	s := carp.State(w & stateBits)
	if s == carp.Init {
		return carp.Role{}
	}
	until := time.Duration(w &^ stateBits)
	if s == carp.Backup || now >= until {
		return carp.Role{State: carp.Backup}
	}
	return carp.Role{State: s, Until: carp.BootTime(until)}
}

// bootNow reads the clock of bpf_ktime_get_boot_ns.
func bootNow() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // every kernel that runs the programs has it
	}
	return time.Duration(ts.Nano())
}

// SetRole implements carp.Dataplane: the programs act on r from the store on. A
// role whose time is already over is not stored and changes nothing.
//
// The store is a compare-and-swap from the word that this process last wrote, or
// found when it opened the port. Suppose a daemon is stopped (SIGSTOP, a paused guest) between its decision
// and this call, and another process takes its place. When the first one wakes, its
// deadline was computed before it slept, so the word it wants to write is either
// over already, or at most as long as a lease that it had earned by a sent advert;
// and if the other has set any role meanwhile, the swap fails with ErrChanged, for
// BACKUP as for MASTER. MASTER stays refused until this process has tried to step
// down, and by that has accepted what it found. Deadlines in nanoseconds make words
// with a promise unique, so one that went and came back cannot be mistaken for one
// that stayed.
func (p *Port) SetRole(vhid uint8, r carp.Role) error {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return ErrClosed
	}
	w := word(r)
	if w&^stateBits != 0 && carp.SinceBoot(r.Until) <= bootNow() {
		return nil
	}
	if !p.maps.configured(vhid) {
		return fmt.Errorf("set role of vhid %d on %s: no such group", vhid, p.name)
	}
	p.roles.Lock()
	defer p.roles.Unlock()
	if !p.maps.word(vhid).CompareAndSwap(p.last[vhid], w) {
		if r.State != carp.Master {
			p.last[vhid] = p.maps.word(vhid).Load()
		}
		return fmt.Errorf("set role of vhid %d on %s to %v: %w", vhid, p.name, r.State, ErrChanged)
	}
	p.last[vhid] = w
	return nil
}

// Role reads the role from the map, as the programs see it now: past its deadline
// it is Backup.
func (p *Port) Role(vhid uint8) carp.Role {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return carp.Role{}
	}
	return role(p.maps.word(vhid).Load(), bootNow())
}

// Stamp notes that the daemon was alive at the given boot time.
func (p *Port) Stamp(vhid uint8, now time.Time) {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps != nil {
		p.maps.stamp(vhid).Store(uint64(carp.SinceBoot(now)))
	}
}
