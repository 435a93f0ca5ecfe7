package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/xcarp/xcarp/internal/bench"
)

const (
	openerPort  = 4001
	openerEvery = 10 * time.Millisecond
	openerLimit = 2000 // connections, whatever happens
)

// Opener opens TCP connections from the client to the server all the while, one every
// 10 ms, and says which of them did not live to the end.
type Opener struct {
	ln   net.Listener
	stop chan struct{}
	wg   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  []opened
	far    []net.Conn
}

type opened struct {
	at   time.Duration // when it was connected
	conn net.Conn
	bad  bool // not even the first byte came back
}

// StartOpener begins. Close it.
func (n *Net) StartOpener(ctx context.Context) (*Opener, error) {
	o := &Opener{stop: make(chan struct{})}
	err := n.Server.NS.Do(func() (err error) {
		o.ln, err = (&net.ListenConfig{}).Listen(ctx, "tcp4", fmt.Sprintf("%s:%d", serverAddr, openerPort))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen for new connections: %w", err)
	}
	o.wg.Go(func() {
		for {
			c, err := o.ln.Accept()
			if err != nil {
				return
			}
			o.mu.Lock()
			if o.closed {
				_ = c.Close()
			}
			o.far = append(o.far, c)
			o.mu.Unlock()
			o.wg.Go(func() { _, _ = io.Copy(c, c) }) // until it is closed
		}
	})
	o.wg.Go(func() {
		tick := time.NewTicker(openerEvery)
		defer tick.Stop()
		for range openerLimit {
			o.wg.Go(func() { o.open(n) })
			select {
			case <-o.stop:
				return
			case <-tick.C:
			}
		}
	})
	return o, nil
}

// open makes one. What does not connect has not been opened: that is a lost segment, and
// TCP's own business.
func (o *Opener) open(n *Net) {
	var c net.Conn
	err := n.Client.NS.Do(func() (err error) {
		c, err = (&net.Dialer{Timeout: flowPatience}).Dial("tcp4", o.ln.Addr().String())
		return err
	})
	if err != nil {
		return
	}
	at := n.now()
	if _, err = c.Write([]byte("hello")); err == nil {
		err = expect(c, "hello")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		_ = c.Close()
		return
	}
	o.conns = append(o.conns, opened{at, c, err != nil})
}

// Check ends the opening and asks for an echo on each connection that was opened between
// two instants. Times are relative to the first.
func (o *Opener) Check(from, to time.Duration) bench.Openings {
	close(o.stop)
	o.mu.Lock()
	all := append([]opened(nil), o.conns...)
	o.mu.Unlock()
	var r bench.Openings
	type verdict struct {
		at time.Duration
		ok bool
	}
	verdicts := make(chan verdict)
	n := 0
	for _, c := range all {
		if c.at < from || c.at > to {
			continue
		}
		n++
		go func() {
			_, err := c.conn.Write([]byte("again"))
			if err == nil && !c.bad {
				err = expect(c.conn, "again")
			}
			verdicts <- verdict{c.at - from, err == nil && !c.bad}
		}()
	}
	for range n {
		v := <-verdicts
		r.Opened++
		if v.ok {
			continue
		}
		if at := ms(v.at); r.Broken == 0 {
			r.FirstMS, r.LastMS = at, at
		} else {
			r.FirstMS, r.LastMS = min(r.FirstMS, at), max(r.LastMS, at)
		}
		r.Broken++
	}
	return r
}

// Close ends everything.
func (o *Opener) Close() {
	select {
	case <-o.stop:
	default:
		close(o.stop)
	}
	errs := []error{o.ln.Close()}
	o.mu.Lock()
	o.closed = true
	for _, c := range o.conns {
		errs = append(errs, c.conn.Close())
	}
	for _, c := range o.far {
		errs = append(errs, c.Close())
	}
	o.mu.Unlock()
	o.wg.Wait()
	_ = errors.Join(errs...) // nothing depends on a connection that is being thrown away
}
