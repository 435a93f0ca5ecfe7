package ct

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// heard runs Events for the test and hands over copies of what it delivers.
func heard(tb testing.TB, t *Table, overrun func()) <-chan Event {
	tb.Helper()
	out := make(chan Event, 4096)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := t.Events(ctx, func(e *Event) { out <- *e }, overrun); err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(func() { cancel(); wg.Wait() })
	return out
}

func await(tb testing.TB, events <-chan Event, what string, ok func(Event) bool) Event {
	tb.Helper()
	limit := time.After(10 * time.Second)
	for {
		select {
		case e := <-events:
			if ok(e) {
				return e
			}
		case <-limit:
			tb.Fatalf("no event: %s", what)
		}
	}
}

func unexpected(tb testing.TB) func() {
	return func() { tb.Error("overrun") }
}

// tracked makes conntrack see the packets of the namespace.
const tracked = `add table inet t; add chain inet t c { type filter hook output priority 0; }; add rule inet t c ct state invalid counter`

func TestEventsOfRealTraffic(t *testing.T) {
	table, ns := open(t, Options{})
	other := openIn(t, ns, Options{})
	ns.Exec("nft", tracked)
	events := heard(t, table, unexpected(t))
	if err := table.Listen(true); err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	var c net.Conn
	ns.Must(func() (err error) {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return err
		}
		c, err = net.Dial("tcp", l.Addr().String())
		return err
	})
	defer l.Close()
	defer c.Close()
	local, remote := c.LocalAddr().String(), c.RemoteAddr().String()
	want := flow(unix.IPPROTO_TCP, local, remote)
	mine := func(change Change, s TCPState) func(Event) bool {
		return func(e Event) bool {
			return e.Change == change && e.Flow.Key() == want.Key() && e.Flow.TCP.State == s
		}
	}
	await(t, events, "the SYN", mine(New, TCPSynSent))
	e := await(t, events, "established", mine(Update, TCPEstablished))
	if e.Flow.Reply != want.Reply || e.Flow.Status != SeenReply|Assured || e.Flow.TCP.FlagsOrig&tcpWindowScale == 0 ||
		e.Flow.TCP.WScaleOrig == 0 || e.Flow.Timeout < time.Hour {
		t.Errorf("got %+v", e.Flow)
	}
	apply(t, other, Update, e.Flow.with(func(f *Flow) { f.Mark = 9 }))
	e = await(t, events, "the mark", func(e Event) bool { return e.Change == Update && e.Flow.Mark == 9 })
	if e.Flow.TCP != (TCP{}) && e.Flow.TCP.State != TCPEstablished {
		t.Errorf("got %+v", e.Flow)
	}
	ns.Exec("conntrack", "-D", "-p", "tcp")
	await(t, events, "the delete", func(e Event) bool { return e.Change == Destroy && e.Flow.Key() == want.Key() })

	if err := table.Listen(false); err != nil {
		t.Fatal(err)
	}
	ns.Exec("conntrack", "-F")
	var udp net.Conn
	send := func() {
		ns.Must(func() (err error) {
			if udp, err = net.Dial("udp", "127.0.0.1:9"); err == nil {
				_, err = udp.Write([]byte("x"))
				udp.Close()
			}
			return err
		})
	}
	send()
	if err := table.Listen(true); err != nil {
		t.Fatal(err)
	}
	unheard := udp.LocalAddr().(*net.UDPAddr).Port
	send()
	await(t, events, "the datagram after listening again", func(e Event) bool {
		if e.Flow.Orig.Proto == unix.IPPROTO_UDP && int(e.Flow.Orig.SrcPort) == unheard {
			t.Error("heard what happened while not listening")
		}
		return e.Change == New && e.Flow.Orig.Proto == unix.IPPROTO_UDP
	})
}

func TestOwnInjectionsAreNotHeard(t *testing.T) {
	table, ns := open(t, Options{})
	other := openIn(t, ns, Options{})
	if err := table.Listen(true); err != nil {
		t.Fatal(err)
	}
	own := flow(unix.IPPROTO_UDP, "10.0.0.1:1", "10.0.0.2:2")
	apply(t, table, New, own)
	apply(t, table, Destroy, own)
	if n, err := table.events.recv(make([]byte, 4096), unix.MSG_DONTWAIT); err != unix.EAGAIN {
		t.Errorf("the filter lets %d bytes through, %v", n, err)
	}
	events := heard(t, table, unexpected(t))
	foreign := flow(unix.IPPROTO_UDP, "10.0.0.1:3", "10.0.0.2:4")
	apply(t, table, New, own)
	apply(t, table, Update, own.with(func(f *Flow) { f.Mark = 3 }))
	apply(t, table, Destroy, own)
	apply(t, other, New, foreign)
	apply(t, other, Update, foreign.with(func(f *Flow) { f.Mark = 3 }))
	apply(t, other, Destroy, foreign)
	for _, want := range []Change{New, Update, Destroy} {
		e := await(t, events, want.String(), func(Event) bool { return true })
		if e.Change != want || e.Flow.Key() != foreign.Key() {
			t.Errorf("got %v %v, want %v of the other injector", e.Change, e.Flow.Key(), want)
		}
	}
	if len(events) > 0 {
		t.Errorf("and then %+v", <-events)
	}
}

func TestEventsGoOnAfterAnOverrun(t *testing.T) {
	table, ns := open(t, Options{RecvBuffer: 4096})
	other := openIn(t, ns, Options{})
	if err := table.Listen(true); err != nil {
		t.Fatal(err)
	}
	var flows []Flow
	for i := range 500 {
		flows = append(flows, flow(unix.IPPROTO_UDP, fmt.Sprintf("10.0.0.1:%d", i+1), "10.0.0.2:2"))
	}
	apply(t, other, New, flows...) // nobody reads yet
	var overruns atomic.Int32
	events := heard(t, table, func() { overruns.Add(1) })
	nstest.Eventually(t, 10*time.Second, "an overrun", func() bool { return overruns.Load() > 0 })
	last := flow(unix.IPPROTO_UDP, "10.0.0.3:1", "10.0.0.2:2")
	nstest.Eventually(t, 10*time.Second, "the queue is empty", func() bool {
		apply(t, other, New, last)
		apply(t, other, Destroy, last)
		for len(events) > 0 {
			if e := <-events; e.Flow.Key() == last.Key() {
				return true
			}
		}
		return false
	})
}

func TestEventsAreReadByOne(t *testing.T) {
	table, _ := open(t, Options{})
	for range 2 { // the second: an end leaves nothing behind
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- table.Events(ctx, func(*Event) {}, unexpected(t)) }()
		nstest.Eventually(t, 10*time.Second, "a reader", func() bool {
			if !table.reading.TryLock() {
				return true
			}
			table.reading.Unlock()
			return false
		})
		if err := table.Events(ctx, func(*Event) {}, unexpected(t)); !errors.Is(err, ErrBusy) {
			t.Errorf("got %v, want %v", err, ErrBusy)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestDecodingAnEventAllocatesNothing(t *testing.T) {
	msg := golden(t, "event_update.hex")
	var e Event
	var r record
	if n := testing.AllocsPerRun(100, func() {
		h, body, _, _ := next(msg)
		e.decode(h, body, &r)
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}
