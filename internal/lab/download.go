package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultRate is the pace of the download in bytes per second.
	DefaultRate = 40e6

	downloadPort = 5001
	paceInterval = 2 * time.Millisecond
)

// Download is one TCP connection through the pair: the server pushes a paced
// stream of seeded random bytes, the client reads it; both hash.
type Download struct {
	lab     *Net
	ln      net.Listener
	client  net.Conn
	block   int // bytes of one write
	sent    atomic.Int64
	got     atomic.Int64
	stop    atomic.Bool
	wg      sync.WaitGroup
	serverH hash.Hash
	clientH hash.Hash
	ended   chan struct{} // closed when the client reads no more

	complete bool // the client read to the end of the stream; valid after ended

	mu       sync.Mutex
	arrivals []Arrival
	server   net.Conn
}

// StartDownload starts the transfer at a pace in bytes per second. Stop it.
func (n *Net) StartDownload(ctx context.Context, rate float64, seed uint64) (*Download, error) {
	d := &Download{
		lab: n, block: max(1, int(rate*paceInterval.Seconds())),
		serverH: sha256.New(), clientH: sha256.New(), ended: make(chan struct{}),
	}
	err := n.Server.NS.Do(func() error {
		var err error
		d.ln, err = (&net.ListenConfig{}).Listen(ctx, "tcp4", fmt.Sprintf("%s:%d", serverAddr, downloadPort))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen for the download: %w", err)
	}
	d.wg.Go(func() { d.push(seed) })
	err = n.Client.NS.Do(func() error {
		var err error
		d.client, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp4", d.ln.Addr().String())
		return err
	})
	if err != nil {
		d.stop.Store(true)
		return nil, errors.Join(fmt.Errorf("connect the download: %w", err), d.close())
	}
	d.wg.Go(d.pull)
	return d, nil
}

// push is the server.
func (d *Download) push(seed uint64) {
	conn, err := d.ln.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	d.mu.Lock()
	d.server = conn
	d.mu.Unlock()
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	random := rand.NewChaCha8(key)
	buf := make([]byte, d.block)
	due := time.Now()
	for !d.stop.Load() {
		_, _ = random.Read(buf) // never fails
		n, err := conn.Write(buf)
		d.serverH.Write(buf[:n])
		d.sent.Add(int64(n))
		if err != nil {
			return
		}
		// What was missed in a stall stays missed: a burst would hide the next.
		if due = due.Add(paceInterval); time.Since(due) > 10*paceInterval {
			due = time.Now()
		}
		time.Sleep(time.Until(due))
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(io.Discard, conn) // until the client has closed
}

// pull is the client.
func (d *Download) pull() {
	defer close(d.ended)
	buf := make([]byte, 256<<10)
	for {
		n, err := d.client.Read(buf)
		at := d.lab.now()
		if n > 0 {
			d.clientH.Write(buf[:n])
			total := d.got.Add(int64(n))
			d.mu.Lock()
			d.arrivals = append(d.arrivals, Arrival{At: at, Total: total})
			d.mu.Unlock()
		}
		if err != nil {
			d.complete = errors.Is(err, io.EOF)
			return
		}
	}
}

// Arrivals returns when payload reached the client so far.
func (d *Download) Arrivals() []Arrival {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Arrival(nil), d.arrivals...)
}

// Unsent returns an offset in the stream that the server has not reached:
// payload beyond it was handed to the server's kernel after this call.
func (d *Download) Unsent() int64 { return max(d.sent.Load(), d.got.Load()) + int64(d.block) }

// Got returns the number of bytes that the client has read.
func (d *Download) Got() int64 { return d.got.Load() }

// Stop ends the transfer within the limit and reports whether the client got
// every byte that the server sent, by count and SHA-256.
func (d *Download) Stop(limit time.Duration) (intact bool) {
	d.stop.Store(true)
	deadline := time.Now().Add(limit)
	_ = d.client.SetReadDeadline(deadline)
	d.mu.Lock()
	if d.server != nil {
		_ = d.server.SetDeadline(deadline)
	}
	d.mu.Unlock()
	<-d.ended // the client must have read to the end before it may close
	_ = d.client.Close()
	d.wg.Wait()
	_ = d.ln.Close()
	return d.complete && d.sent.Load() == d.got.Load() &&
		bytes.Equal(d.serverH.Sum(nil), d.clientH.Sum(nil))
}

func (d *Download) close() error {
	err := d.ln.Close()
	d.wg.Wait()
	return err
}
