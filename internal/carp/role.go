package carp

import (
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

// Dataplane is where the role of a group takes effect.
type Dataplane interface {
	// SetRole makes r the role of the vhid. A role whose time is already over
	// has no effect, so a caller that was delayed cannot revive it.
	SetRole(vhid uint8, r Role) error
}
