package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	streamPort     = 5002
	streamInterval = 10 * time.Millisecond
	streamMessage  = 8 // bytes: a number
)

// Streams are two TCP connections from the client: on one it asks every 10 ms
// and the server echoes, on the other the server pushes as often by itself.
type Streams struct {
	Echo, Push *Stream

	ln    net.Listener
	stop  chan struct{}
	conns []net.Conn
	wg    sync.WaitGroup
}

// Stream is what reached the client on one of them.
type Stream struct {
	lab  *Net
	sent atomic.Int64 // bytes given to the kernel of who speaks first

	mu       sync.Mutex
	arrivals []Arrival
}

// OpenStreams connects both and starts them. Close it.
func (n *Net) OpenStreams(ctx context.Context) (*Streams, error) {
	s := &Streams{Echo: &Stream{lab: n}, Push: &Stream{lab: n}, stop: make(chan struct{})}
	err := n.Server.NS.Do(func() (err error) {
		s.ln, err = (&net.ListenConfig{}).Listen(ctx, "tcp4", fmt.Sprintf("%s:%d", serverAddr, streamPort))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen for streams: %w", err)
	}
	for _, st := range []*Stream{s.Echo, s.Push} {
		var near, far net.Conn
		err := n.Client.NS.Do(func() (err error) {
			near, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp4", s.ln.Addr().String())
			return err
		})
		if err == nil {
			s.conns = append(s.conns, near)
			if far, err = s.ln.Accept(); err == nil {
				s.conns = append(s.conns, far)
			}
		}
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("connect a stream: %w", err)
		}
		speaker := near
		if st == s.Push {
			speaker = far
		} else {
			s.wg.Go(func() { _, _ = io.Copy(far, far) }) // the echo, until the connection ends
		}
		s.wg.Go(func() { st.speak(speaker, s.stop) })
		s.wg.Go(func() { st.hear(near) })
	}
	return s, nil
}

// speak sends a number each interval, whatever comes back.
func (st *Stream) speak(c net.Conn, stop <-chan struct{}) {
	tick := time.NewTicker(streamInterval)
	defer tick.Stop()
	var b [streamMessage]byte
	for i := uint64(0); ; i++ {
		binary.BigEndian.PutUint64(b[:], i)
		n, err := c.Write(b[:])
		st.sent.Add(int64(n))
		if err != nil {
			return
		}
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

func (st *Stream) hear(c net.Conn) {
	var total int64
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			total += int64(n)
			st.mu.Lock()
			st.arrivals = append(st.arrivals, Arrival{At: st.lab.now(), Total: total})
			st.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// Arrivals returns when payload reached the client so far.
func (st *Stream) Arrivals() []Arrival {
	st.mu.Lock()
	defer st.mu.Unlock()
	return append([]Arrival(nil), st.arrivals...)
}

// Unsent returns an offset that the speaker has not reached.
func (st *Stream) Unsent() int64 { return st.sent.Load() }

// Got returns the number of bytes that reached the client.
func (st *Stream) Got() int64 {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.arrivals) == 0 {
		return 0
	}
	return st.arrivals[len(st.arrivals)-1].Total
}

// Close ends both.
func (s *Streams) Close() {
	close(s.stop)
	errs := []error{s.ln.Close()}
	for _, c := range s.conns {
		errs = append(errs, c.Close())
	}
	s.wg.Wait()
	_ = errors.Join(errs...) // nothing depends on a stream that is being thrown away
}
