package loader

import (
	"errors"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

var _ carp.Dataplane = (*Port)(nil)

// second is another process with the same maps.
func (r *rig) second() *Port {
	p := &Port{name: "second", maps: r.port.maps}
	for vhid := range 256 {
		p.last[vhid] = p.maps.word(uint8(vhid)).Load()
	}
	return p
}

func master(d time.Duration) carp.Role {
	return carp.Role{State: carp.Master, Until: carp.BootTime((bootNow() + d) &^ 3)}
}

func TestSleeperCannotUndoATakeover(t *testing.T) {
	r := newRig(t)
	sleeper, successor := r.port, r.second()
	if err := sleeper.SetRole(testVHID, master(time.Minute)); err != nil {
		t.Fatal(err)
	}
	successor.SetRole(testVHID, carp.Role{State: carp.Backup}) // accepts what it finds
	if err := successor.SetRole(testVHID, carp.Role{State: carp.Backup}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		sleeper.Role(testVHID) // a query changes nothing
		if err := sleeper.SetRole(testVHID, master(time.Hour)); !errors.Is(err, ErrChanged) {
			t.Errorf("renew MASTER: got %v, want ErrChanged", err)
		}
	}
	if err := sleeper.SetRole(testVHID, carp.Role{State: carp.Init}); !errors.Is(err, ErrChanged) {
		t.Errorf("step down: got %v, want ErrChanged", err)
	}
	if got := successor.Role(testVHID); got.State != carp.Backup {
		t.Errorf("role %v, want BACKUP", got.State)
	}
	// Having tried to step down it has accepted that, and may be elected again.
	if err := sleeper.SetRole(testVHID, master(time.Minute)); err != nil {
		t.Error(err)
	}
}

func TestRoleThatIsOverChangesNothing(t *testing.T) {
	r := newRig(t)
	want := master(time.Minute)
	if err := r.port.SetRole(testVHID, want); err != nil {
		t.Fatal(err)
	}
	for _, s := range []carp.State{carp.Master, carp.Drain} {
		if err := r.port.SetRole(testVHID, carp.Role{State: s, Until: carp.BootTime(bootNow() - time.Millisecond)}); err != nil {
			t.Error(err)
		}
	}
	if got := r.port.Role(testVHID); got != want {
		t.Errorf("role: got %+v, want %+v", got, want)
	}
}

func TestRoleNeedsAGroup(t *testing.T) {
	r := newRig(t)
	if err := r.port.SetRole(noVHID, master(time.Minute)); err == nil {
		t.Error("a role was set for a vhid that is not configured")
	}
}

// TestStamp: a thread that was kept waiting with an old time in its hand does not undo
// what another one has stamped since; the stamp of a restart, which is of the future,
// does not outlive it.
func TestStamp(t *testing.T) {
	r := newRig(t)
	now := bootNow()
	for _, tt := range []struct{ at, want time.Duration }{
		{12345, 12345},
		{now, now},
		{now - time.Second, now},
		{now + time.Hour, now + time.Hour},
		{now, now},
	} {
		r.port.Stamp(testVHID, carp.BootTime(tt.at))
		if got := r.port.maps.stamp(testVHID).Load(); got != uint64(tt.want) {
			t.Errorf("stamp of %v: got %d, want %d", tt.at, got, tt.want)
		}
	}
}

func TestWordsMeanWhatTheyWereMadeOf(t *testing.T) {
	for _, want := range []carp.Role{{}, {State: carp.Backup}, {State: carp.Master, Until: carp.BootTime(4000)}, {State: carp.Drain, Until: carp.BootTime(8)}} {
		if got := role(word(want), 7); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if got := role(word(carp.Role{State: carp.Master, Until: carp.BootTime(11)}), 8); got.State != carp.Backup {
		t.Errorf("deadline 11 at 8: got %v, want BACKUP: rounded down to 4 ns", got.State)
	}
}
