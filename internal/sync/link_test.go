package sync

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/ct"
	"github.com/xcarp/xcarp/internal/nstest"
)

// TestRealLink runs two Mirrors over UDP sockets bound to a veth pair.
func TestRealLink(t *testing.T) {
	na, nb := nstest.New(t, "a"), nstest.New(t, "b")
	nstest.Veth(t, na, "sync0", nb, "sync0")
	na.Addr("sync0", "10.9.0.1/24")
	nb.Addr("sync0", "10.9.0.2/24")
	node := func(ns *nstest.NS, name, peer string, local, other netip.AddrPort) (*Mirror, *memTable) {
		table := newMemTable()
		var m *Mirror
		ns.Must(func() (err error) {
			m, err = New(Config{Node: name, Key: [32]byte{3}, Dev: "sync0", Local: local,
				Peers: map[string]netip.AddrPort{peer: other}, Table: table})
			return err
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		return m, table
	}
	a, ta := node(na, "a", "b", addrA, addrB)
	b, tb := node(nb, "b", "a", addrB, addrA)
	if want := 1500 - 28; a.payload != want {
		t.Errorf("payload: got %d, want %d of the device", a.payload, want)
	}
	a.Own(true)
	nstest.Eventually(t, 10*time.Second, "in sync", func() bool { return a.Status()[0].InSync && b.Status()[0].InSync })
	begin := time.Now()
	ta.traffic(many(2000)...)
	nstest.Eventually(t, 10*time.Second, "2000 flows", func() bool { return len(tb.all()) == 2000 })
	t.Logf("2000 flows in %v", time.Since(begin))
	for i := range 200 {
		ta.traffic(tcp(i, ct.TCPFinWait))
		time.Sleep(time.Millisecond) // the rate of the events: the lag is that of an idle link
	}
	nstest.Eventually(t, 10*time.Second, "updates", func() bool { return tb.all()[tcp(199, 0).Orig].TCP.State == ct.TCPFinWait })
	s := a.Status()[0]
	t.Logf("lag %v, rtt %v, lost frames %d, %d bytes for %d records", s.Lag, s.RTT, s.LostFrames, s.Bytes, s.Sent)
	if s.Lag == 0 || s.Lag > time.Second {
		t.Errorf("lag: got %v", s.Lag)
	}
}
