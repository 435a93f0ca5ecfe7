package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	flowPort     = 4000
	flowPatience = 4 * time.Second // more than one TCP retransmission
)

// Flows are connections of several kinds from the client to the server, idle
// after a first exchange. Check lets the server speak first on each.
type Flows struct {
	Opened int // that completed the first exchange
	Tried  int

	tcp   []net.Listener
	udp   net.PacketConn
	conns []net.Conn // the client's ends, by id
	wg    sync.WaitGroup

	mu       sync.Mutex
	tell     map[string]func(string) error // how the server reaches a flow, by id
	accepted []net.Conn                    // the server's TCP ends
}

// flowKinds is what OpenFlows opens, in this order.
var flowKinds = []struct {
	network, addr string
	n             int
}{
	{"tcp4", fmt.Sprintf("%s:%d", serverAddr, flowPort), 4},
	{"udp4", fmt.Sprintf("%s:%d", serverAddr, flowPort), 4},
	{"tcp6", fmt.Sprintf("[2001:db8:1::100]:%d", flowPort), 2},
}

// OpenFlows opens the flows. A flow that does not come up is counted as tried
// and not as opened; an error means that the lab itself failed. Close it.
func (n *Net) OpenFlows(ctx context.Context) (*Flows, error) {
	f := &Flows{tell: map[string]func(string) error{}}
	err := n.Server.NS.Do(func() error {
		var lc net.ListenConfig
		for _, k := range flowKinds {
			if k.network == "udp4" {
				c, err := lc.ListenPacket(ctx, k.network, k.addr)
				if err != nil {
					return err
				}
				f.udp = c
				continue
			}
			l, err := lc.Listen(ctx, k.network, k.addr)
			if err != nil {
				return err
			}
			f.tcp = append(f.tcp, l)
		}
		return nil
	})
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("listen for flows: %w", err)
	}
	for _, l := range f.tcp {
		f.wg.Go(func() { f.acceptTCP(l) })
	}
	f.wg.Go(f.acceptUDP)

	// All at once: a path that is down costs the patience of one flow, not of ten.
	var up sync.WaitGroup
	var opened sync.Mutex
	for _, k := range flowKinds {
		for i := range k.n {
			f.Tried++
			id := fmt.Sprintf("%s-%d", k.network, i)
			up.Go(func() {
				var c net.Conn
				err := n.Client.NS.Do(func() error {
					var err error
					c, err = (&net.Dialer{Timeout: flowPatience}).DialContext(ctx, k.network, k.addr)
					return err
				})
				if err != nil {
					return
				}
				_, err = c.Write([]byte(id))
				if err == nil {
					err = expect(c, id)
				}
				if err != nil {
					_ = c.Close()
					return
				}
				opened.Lock()
				defer opened.Unlock()
				f.conns = append(f.conns, c)
				f.Opened++
			})
		}
	}
	up.Wait()
	return f, nil
}

// expect reads until the text has come.
func expect(c net.Conn, text string) error {
	if err := c.SetReadDeadline(time.Now().Add(flowPatience)); err != nil {
		return err
	}
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	if string(buf[:n]) != text {
		return fmt.Errorf("got %q, want %q", buf[:n], text)
	}
	return nil
}

func (f *Flows) acceptTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.accepted = append(f.accepted, c)
		f.mu.Unlock()
		f.wg.Go(func() {
			buf := make([]byte, 64)
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			f.greet(string(buf[:n]), func(text string) error { _, err := c.Write([]byte(text)); return err })
		})
	}
}

func (f *Flows) acceptUDP() {
	buf := make([]byte, 64)
	for {
		n, from, err := f.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		f.greet(string(buf[:n]), func(text string) error { _, err := f.udp.WriteTo([]byte(text), from); return err })
	}
}

// greet answers the first message of a flow and remembers how to reach it.
func (f *Flows) greet(id string, tell func(string) error) {
	f.mu.Lock()
	f.tell[id] = tell
	f.mu.Unlock()
	_ = tell(id)
}

// Check lets the server speak first on every open flow and returns on how many
// the client heard it. It can be called once.
func (f *Flows) Check() int {
	f.mu.Lock()
	for id, tell := range f.tell {
		_ = tell("again " + id)
	}
	f.mu.Unlock()
	heard := make(chan bool)
	for _, c := range f.conns {
		go func() {
			err := c.SetReadDeadline(time.Now().Add(flowPatience))
			if err == nil {
				_, err = c.Read(make([]byte, 64))
			}
			heard <- err == nil
		}()
	}
	alive := 0
	for range f.conns {
		if <-heard {
			alive++
		}
	}
	return alive
}

// Close closes all ends.
func (f *Flows) Close() {
	var errs []error
	for _, l := range f.tcp {
		errs = append(errs, l.Close())
	}
	if f.udp != nil {
		errs = append(errs, f.udp.Close())
	}
	f.mu.Lock()
	for _, c := range append(f.conns, f.accepted...) {
		errs = append(errs, c.Close())
	}
	f.mu.Unlock()
	f.wg.Wait()
	_ = errors.Join(errs...) // nothing depends on a flow that is being thrown away
}
