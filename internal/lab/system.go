package lab

import (
	"context"
	"time"
)

// System is what makes two routers a pair.
type System struct {
	Name string

	// Check says what is missing on this machine, in one line with its remedy.
	Check func() error

	// Prepare writes the configuration of both routers.
	Prepare func(ctx context.Context, n *Net) error

	// Start starts the system on a router. It is also how a router that was
	// switched off, or whose daemon died, comes back.
	Start func(ctx context.Context, r *Node) error

	// Status asks the system on a router where it stands.
	Status func(ctx context.Context, r *Node) (Status, error)

	// Transitions returns what the router did, as its log has it. Optional.
	Transitions func(r *Node) ([]Transition, error)

	// show reads the counters of a router's LAN group. Optional.
	show func(ctx context.Context, r *Node) (floodShow, error)
}

// Role is where a group stands; the words of carp(4).
type Role string

// The roles that the lab waits for.
const (
	Master Role = "MASTER"
	Backup Role = "BACKUP"
)

// Status is where a router stands.
type Status struct {
	Groups  map[string]Role // by name
	InSync  bool            // the connection table equals the peer's
	Flows   int             // in the table
	XDPMode string          // native, generic, or none
}

// all reports whether every group has the role.
func (s Status) all(r Role) bool {
	for _, g := range s.Groups {
		if g != r {
			return false
		}
	}
	return len(s.Groups) > 0
}

// Transition is one change of a group's role.
type Transition struct {
	Node   string  `json:"node"`
	VHID   int     `json:"vhid"`
	From   string  `json:"from"`
	To     string  `json:"to"`
	Reason string  `json:"reason,omitempty"`
	AtMS   float64 `json:"at_ms"` // relative to the fault
	at     time.Time
}
