package carp

import (
	"errors"
	"fmt"
	"time"
)

// State is where a group stands in the election. The numbers are those of the
// dataplane's role word, so the zero value answers for nothing.
type State uint8

// The states of a group, as in ip_carp.c; Drain is ours.
const (
	Init   State = iota // not taking part: no link, or not started
	Backup              // listening to a master, silent
	Master              // answering for the addresses, until the lease ends
	Drain               // no longer answering, still taking frames in flight
)

// String returns the word that carp(4) uses for the state.
func (s State) String() string {
	switch s {
	case Init:
		return "INIT"
	case Backup:
		return "BACKUP"
	case Master:
		return "MASTER"
	case Drain:
		return "DRAIN"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Role is a State that holds until a time. A role is never just a state: past
// Until the dataplane treats Master and Drain as Backup, at that instant and
// without anybody's help.
type Role struct {
	State State
	Until time.Time // on the boot clock; zero for Init and Backup
}

// ErrChanged means that the role is no longer what this process last saw: another
// process, or a peer's claim, has changed it.
var ErrChanged = errors.New("role was changed by somebody else")

// Dataplane is where the role of a group takes effect.
type Dataplane interface {
	// SetRole makes r the role of the vhid. A role whose time is already over
	// has no effect, so a caller that was delayed cannot revive it.
	SetRole(vhid uint8, r Role) error

	// Accept takes the role as it is now: a peer's claim has changed it.
	Accept(vhid uint8) Role

	// SetTerm says of which term the next MASTER is: from then on claims have to
	// be above it.
	SetTerm(vhid uint8, term uint64)

	// SetDemotion says what pulses tell of the group's demotion.
	SetDemotion(vhid uint8, demotion uint32)
}
