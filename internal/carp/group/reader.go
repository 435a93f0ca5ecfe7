package group

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// reader hands over frames one by one as they come: nothing batches, or a
// goodbye would wait (ucarp's takes up to a second).
type reader struct {
	conn   net.PacketConn
	frames chan *buffer
	free   chan *buffer
	stop   chan struct{} // closed by the receiver when it takes no more
	done   chan struct{} // closed when run has ended
	err    error         // why, after done; nil if it was stopped
}

// buffer is room for a frame. It travels from free to frames and back.
type buffer struct {
	frame []byte
	room  [2048]byte // an advert is short; a longer frame is cut and refused
}

func newReader(c net.PacketConn) *reader {
	r := &reader{
		conn:   c,
		frames: make(chan *buffer),
		free:   make(chan *buffer, 2),
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	for range cap(r.free) {
		r.free <- new(buffer)
	}
	return r
}

func (r *reader) run() {
	defer close(r.done)
	for {
		b := <-r.free // there are as many buffers as places: never empty for long
		n, _, err := r.conn.ReadFrom(b.room[:])
		switch {
		case err != nil && r.stopped():
			return // of the Close, whatever the conn calls it
		case errors.Is(err, unix.ENETDOWN):
			// Told once each time when the interface goes down; the socket
			// goes on when it is up again.
			r.free <- b
			continue
		case err != nil:
			r.err = err
			return
		}
		b.frame = b.room[:n]
		select {
		case r.frames <- b:
		case <-r.stop:
			return
		}
	}
}

func (r *reader) stopped() bool {
	select {
	case <-r.stop:
		return true
	default:
		return false
	}
}
