package sync

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	stdsync "sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/ct"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	addrA = netip.MustParseAddrPort("10.9.0.1:4112")
	addrB = netip.MustParseAddrPort("10.9.0.2:4112")
)

// node is one Mirror with its table, and what it asked of the election.
type node struct {
	tb    testing.TB
	m     *Mirror
	table *memTable
	stop  func()

	mu      stdsync.Mutex
	demoted []int      // every change
	asked   []Demotion // all that the mirror asked for; demoted is what concerns the groups held
	roles   []GroupRole
}

type option func(*Config)

// start starts a node of the pair a, b with a table that may have a past.
func start(tb testing.TB, n *network, name string, table *memTable, opts ...option) *node {
	tb.Helper()
	addr, peer, other := addrA, "b", addrB
	if name == "b" {
		addr, peer, other = addrB, "a", addrA
	}
	x := &node{tb: tb, table: table}
	cfg := Config{
		Node: name, Key: [32]byte{1}, Local: addr, Peers: map[string]netip.AddrPort{peer: other},
		Table: table, Log: zap.NewNop(),
		Demote: func(n Demotion) {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.asked = append(x.asked, n)
			if len(x.demoted) == 0 || n.Held != x.demoted[len(x.demoted)-1] {
				x.demoted = append(x.demoted, n.Held)
			}
		},
		OnRoles: func(_ string, r []GroupRole) {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.roles = r
		},
	}
	for _, o := range opts {
		o(&cfg)
	}
	if cfg.Conn == nil {
		cfg.Conn = n.listen(cfg.Local)
	}
	var err error
	if x.m, err = New(cfg); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.m.Run(ctx) }()
	var once stdsync.Once
	x.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				tb.Errorf("Run of %s: %v", name, err)
			}
		})
	}
	return x
}

func (x *node) status() PeerStatus { return x.m.Status()[0] }

func (x *node) demotion() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.demoted) == 0 {
		return -1
	}
	return x.demoted[len(x.demoted)-1]
}

// last is what the mirror asked for last.
func (x *node) last() Demotion {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.asked) == 0 {
		return Demotion{-1, -1}
	}
	return x.asked[len(x.asked)-1]
}

func (x *node) demotions() []int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.demoted)
}

// wait sleeps until ok, for at most d of the bubble's time, and fails after.
func wait(tb testing.TB, d time.Duration, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(d); ; {
		synctest.Wait()
		if ok() {
			return
		}
		if !time.Now().Before(end) {
			tb.Fatalf("not within %v: %s", d, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// states is the table without its timeouts.
func (t *memTable) states() map[ct.Tuple]ct.Flow {
	m := t.all()
	for k, f := range m {
		f.Timeout = 0
		m[k] = f
	}
	return m
}

func equal(a, b *node) bool { return maps.Equal(a.table.states(), b.table.states()) }

func waitEqual(tb testing.TB, a, b *node, d time.Duration, flows int) {
	tb.Helper()
	wait(tb, d, "equal tables", func() bool { return len(a.table.all()) == flows && equal(a, b) })
}

// pair starts a as owner and b, and waits until both are in sync.
func pair(tb testing.TB, n *network, opts ...option) (a, b *node) {
	tb.Helper()
	a, b = start(tb, n, "a", newMemTable(), opts...), start(tb, n, "b", newMemTable(), opts...)
	a.m.Own(true)
	wait(tb, 5*time.Second, "in sync", func() bool { return a.status().InSync && b.status().InSync })
	return a, b
}

// settled starts an owner that has had its flows for a while.
func settled(tb testing.TB, n *network, flows int) *node {
	tb.Helper()
	a := start(tb, n, "a", newMemTable())
	a.m.Own(true)
	a.table.traffic(many(flows)...)
	time.Sleep(10 * time.Second)
	return a
}

func udp(i int) ct.Flow {
	o := ct.Tuple{Src: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Dst: netip.MustParseAddr("198.51.100.7"),
		Proto: protoUDP, SrcPort: uint16(1024 + i), DstPort: 53}
	return ct.Flow{Orig: o, Reply: o.Inverse(), Timeout: 30 * time.Second}
}

func tcp(i int, s ct.TCPState) ct.Flow {
	o := ct.Tuple{Src: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Dst: netip.MustParseAddr("198.51.100.7"),
		Proto: protoTCP, SrcPort: uint16(1024 + i), DstPort: 443}
	f := ct.Flow{Orig: o, Reply: o.Inverse(), Timeout: 432000 * time.Second, TCP: ct.TCP{State: s, WScaleOrig: 7, WScaleReply: 8}}
	if s != ct.TCPSynSent {
		f.Status = ct.SeenReply
	}
	if s >= ct.TCPEstablished {
		f.Status |= ct.Assured
	}
	// Half of them behind SNAT.
	if i%2 == 0 {
		f.Reply.Dst, f.Reply.DstPort = netip.MustParseAddr("203.0.113.1"), uint16(20000+i)
	}
	return f
}

func many(n int) []ct.Flow {
	fs := make([]ct.Flow, n)
	for i := range fs {
		fs[i] = tcp(i, ct.TCPEstablished)
	}
	return fs
}

// bubble runs f in a synctest bubble with a network.
func bubble(t *testing.T, f func(t *testing.T, n *network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newNetwork()) })
}
