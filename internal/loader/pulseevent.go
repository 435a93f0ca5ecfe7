package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/xcarp/xcarp/internal/carp"
)

// PulseEvent is a claim, as the programs decided it.
type PulseEvent struct {
	At      time.Time // boot clock
	Group   uint32
	Session uint32 // of the claimant
	Term    uint64 // that was claimed
	Had     uint64 // the group's before
	Acked   bool   // it is the claimant's; else it was refused
	Role    carp.State
}

// PulseEvents is the way of events to one reader.
type PulseEvents struct {
	reader *ringbuf.Reader
}

// Events opens the events. What waits there from before is read first.
func (p *Pulses) Events() (*PulseEvents, error) {
	var r *ringbuf.Reader
	err := p.use("open pulse events", func(m *maps) error {
		var err error
		r, err = ringbuf.NewReader(m.byName[xdpMapPulseEvents])
		return err
	})
	if err != nil {
		return nil, err
	}
	return &PulseEvents{r}, nil
}

// Read waits for the next event. After Close it returns ErrClosed.
func (e *PulseEvents) Read() (PulseEvent, error) {
	for {
		r, err := e.reader.Read()
		if errors.Is(err, ringbuf.ErrClosed) {
			return PulseEvent{}, ErrClosed
		}
		if err != nil {
			return PulseEvent{}, fmt.Errorf("read pulse events: %w", err)
		}
		if len(r.RawSample) < int(unsafe.Sizeof(xdpPulseEvent{})) {
			continue // of another version
		}
		var raw xdpPulseEvent
		if _, err := binary.Decode(r.RawSample, binary.NativeEndian, &raw); err != nil {
			panic(err) // the length was checked
		}
		return PulseEvent{
			At:      carp.BootTime(time.Duration(raw.At)),
			Group:   raw.Group,
			Session: raw.Session,
			Term:    raw.Term,
			Had:     raw.Had,
			Acked:   raw.Why == xdpReasonR_PULSE_CLAIMED,
			Role:    carp.State(raw.Role),
		}, nil
	}
}

// Close ends a Read that waits, and all that follow.
func (e *PulseEvents) Close() error { return e.reader.Close() }
