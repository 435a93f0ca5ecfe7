package sync

import "time"

// window is how many data frames may be unacknowledged. It is the flow control:
// the receiver acknowledges after the records are in its table.
const window = 128

const (
	rtoMin = 20 * time.Millisecond
	rtoMax = 200 * time.Millisecond
)

// inFlight is one data frame that has not been acknowledged.
type inFlight struct {
	seq     uint64
	at      time.Duration
	entries []*entry
}

// flight holds the frames in flight, oldest first, in a ring that keeps the
// memory of its frames.
type flight struct {
	ring    [window]inFlight
	head, n int

	srtt, rttvar time.Duration
	backoff      uint // doublings of the timeout since the last ack
}

func (f *flight) full() bool       { return f.n == window }
func (f *flight) first() *inFlight { return &f.ring[f.head] }

// push returns the next frame to fill.
func (f *flight) push(seq uint64, now time.Duration) *inFlight {
	x := &f.ring[(f.head+f.n)%window]
	f.n++
	x.seq, x.at, x.entries = seq, now, x.entries[:0]
	return x
}

func (f *flight) pop() {
	f.head = (f.head + 1) % window
	f.n--
}

// measure takes the round trip of a frame that was acknowledged: RFC 6298,
// section 2. Every frame has its own number, so none is ambiguous.
func (f *flight) measure(rtt time.Duration) {
	f.backoff = 0
	if f.srtt == 0 {
		f.srtt, f.rttvar = rtt, rtt/2
		return
	}
	f.rttvar += (max(f.srtt-rtt, rtt-f.srtt) - f.rttvar) / 4
	f.srtt += (rtt - f.srtt) / 8
}

// rto is how long to wait for an ack.
func (f *flight) rto() time.Duration {
	d := rtoMax / 2
	if f.srtt != 0 {
		d = f.srtt + 4*f.rttvar
	}
	return min(max(d, rtoMin)<<min(f.backoff, 8), rtoMax)
}
