package track

// State is what a Track thinks of what it watches.
type State uint8

// The states of a Track.
const (
	Pending State = iota // not enough answers yet
	Up
	Down
)

// String returns the state as `xcarp show` prints it.
func (s State) String() string { return [...]string{Pending: "PENDING", Up: "UP", Down: "DOWN"}[s] }

// verdict counts answers. Only answers in a row that contradict the state change
// it, so that one that got lost does not.
type verdict struct {
	rise, fall int
	state      State
	last       bool // the last answer
	row        int  // how many in a row were like it
	seen       int  // while pending
}

// observe takes one answer and returns the state after it. What is neither
// steadily good nor steadily bad at first counts as bad: else nothing would ever
// be decided.
func (v *verdict) observe(ok bool) State {
	if ok != v.last {
		v.row = 0
	}
	v.last = ok
	v.row++
	v.seen++
	switch {
	case ok && v.row >= v.rise:
		v.state = Up
	case !ok && v.row >= v.fall:
		v.state = Down
	case v.state == Pending && v.seen >= v.rise+v.fall:
		v.state = Down
	}
	return v.state
}
