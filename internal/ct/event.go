package ct

import "fmt"

// Change is what happened to a flow.
type Change uint8

// The kinds of change.
const (
	New     Change = iota + 1 // first seen
	Update                    // state, status or mark changed; a refreshed timeout is no event
	Destroy                   // gone
)

// String returns the verb that conntrack(8) prints.
func (c Change) String() string {
	switch c {
	case New:
		return "new"
	case Update:
		return "update"
	case Destroy:
		return "destroy"
	}
	return fmt.Sprintf("Change(%d)", uint8(c))
}

// Event is one change of the kernel's table. Of a Destroy only the tuples of
// the flow count.
type Event struct {
	Change Change
	Flow   Flow
}

// Op is one change that we make to the kernel's table.
type Op struct {
	Change Change // New and Update both mean: let the table hold exactly this
	Flow   Flow
}
