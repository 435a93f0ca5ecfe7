package loader

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
)

// ErrChanged is carp.ErrChanged.
var ErrChanged = carp.ErrChanged

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
		if r.State == carp.Drain && carp.State(p.last[vhid]&stateBits) == carp.Drain {
			return nil // a claim was faster
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

// Stamp notes that the daemon was alive at the given boot time. Of two stamps of the
// past the later one stays, whoever comes first; one of the future, which was for a
// restart, does not.
func (p *Port) Stamp(vhid uint8, at time.Time) {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return
	}
	stamp, to := p.maps.stamp(vhid), uint64(carp.SinceBoot(at))
	for {
		is := stamp.Load()
		if is > to && is <= uint64(bootNow()) || stamp.CompareAndSwap(is, to) {
			return
		}
	}
}

// Accept takes what the role word is now for what this process saw last: SetRole
// swaps from there. It is for after a claim has been heard of, and all that was
// decided before is void.
func (p *Port) Accept(vhid uint8) carp.Role {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return carp.Role{}
	}
	p.roles.Lock()
	defer p.roles.Unlock()
	w := p.maps.word(vhid).Load()
	p.last[vhid] = w
	return role(w, bootNow())
}

// SetTerm tells the programs the group's term: they refuse claims that are not above.
// Before a takeover it comes before SetRole.
func (p *Port) SetTerm(vhid uint8, term uint64) {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps != nil {
		(*atomic.Uint64)(unsafe.Pointer(&p.maps.vhid(vhid).Term)).Store(term)
	}
}

// Term is the group's term: that of SetTerm, or of a claim that was acknowledged since.
func (p *Port) Term(vhid uint8) uint64 {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return 0
	}
	v := p.maps.vhid(vhid)
	term, claim := atomic.LoadUint64(&v.Term), atomic.LoadUint64(&v.Claim)
	if ahead := int32(uint32(claim) - uint32(term)); claim>>32 != 0 && ahead > 0 {
		return term + uint64(ahead)
	}
	return term
}

// SetDemotion tells the programs what pulses say of the group's demotion.
func (p *Port) SetDemotion(vhid uint8, demotion uint32) {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps != nil {
		atomic.StoreUint32(&p.maps.vhid(vhid).Demotion, demotion)
	}
}

// Hint is when a frame for the virtual MAC last came here while we were not its master,
// zero for never: the master may be gone.
func (p *Port) Hint(vhid uint8) time.Time {
	return p.noted(vhid, func(v *xdpVhid) *uint64 { return &v.Hint })
}

// AwaitFirst asks the programs to note when the next frame for the virtual MAC is taken.
func (p *Port) AwaitFirst(vhid uint8) {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps != nil {
		atomic.StoreUint64(&p.maps.vhid(vhid).First, 0)
	}
}

// First is when the first frame for the virtual MAC was taken after AwaitFirst, zero if
// there was none yet.
func (p *Port) First(vhid uint8) time.Time {
	return p.noted(vhid, func(v *xdpVhid) *uint64 { return &v.First })
}

// noted is a time that the programs have noted of a vhid, zero if they have not.
func (p *Port) noted(vhid uint8, what func(*xdpVhid) *uint64) time.Time {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return time.Time{}
	}
	at := atomic.LoadUint64(what(p.maps.vhid(vhid)))
	if at == 0 {
		return time.Time{}
	}
	return carp.BootTime(time.Duration(at))
}
