package test

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/ct"
	"github.com/xcarp/xcarp/internal/nstest"
)

// testMark marks the flows that the tests make, so that a table can be compared
// without the nodes' own connections.
const testMark = 0x7e57

var (
	unstable = regexp.MustCompile(`\s(use|id|packets|bytes|delta-time|secctx)=\S+`)
	timeout  = regexp.MustCompile(`^(\S+\s+\d+\s+\S+\s+\d+\s+)\d+\s`)
)

// table reads the marked flows of a node with conntrack(8): tuples, NAT, mark,
// state, one line each, sorted, without what is each node's own.
func (n *node) table() []string {
	n.tb.Helper()
	nstest.RequireProgram(n.tb, "conntrack")
	var flows []string
	for _, family := range []string{"ipv4", "ipv6"} {
		// Its summary on stderr would fall into the middle of a line.
		out := n.ns.Exec("sh", "-c", fmt.Sprintf("conntrack -L -f %s -m %d -o extended 2>/dev/null", family, testMark))
		for line := range strings.Lines(out) {
			line = unstable.ReplaceAllString(timeout.ReplaceAllString(line, "$1"), "")
			flows = append(flows, strings.Join(strings.Fields(line), " "))
		}
	}
	slices.Sort(flows)
	return flows
}

// editTable changes a node's table as a foreign program would.
func (n *node) editTable(c ct.Change, flows []ct.Flow) {
	n.tb.Helper()
	var table *ct.Table
	n.ns.Must(func() (err error) {
		table, err = ct.Open(ct.Options{Log: zap.NewNop()})
		return err
	})
	defer table.Close()
	ops := make([]ct.Op, len(flows))
	for i := range flows {
		ops[i] = ct.Op{Change: c, Flow: flows[i]}
	}
	table.Apply(ops, func(i int, err error) {
		n.tb.Errorf("flow %d of the test: %v: %+v", i, err, ops[i].Flow)
	})
}

// manyFlows makes flows of both families, plain and translated in either way and
// both ways at once.
func manyFlows(udp, tcp int) []ct.Flow {
	var flows []ct.Flow
	for i := range udp + tcp {
		f := ct.Flow{
			Orig: ct.Tuple{
				Src: netip.AddrFrom4([4]byte{10, 0, byte(1 + i/200), byte(1 + i%200)}), Dst: netip.MustParseAddr("198.51.100.7"),
				Proto: unix.IPPROTO_UDP, SrcPort: uint16(20000 + i), DstPort: 53,
			},
			Status:  ct.SeenReply | ct.Assured,
			Mark:    testMark,
			Timeout: 120 * time.Second,
		}
		shared := netip.MustParseAddr("203.0.113.1")
		inside := netip.MustParseAddr("10.0.0.200")
		if i%2 == 1 {
			b := netip.MustParseAddr("fd00:1:0:0:1::").As16()
			b[13], b[14], b[15] = byte(i>>16), byte(i>>8), byte(i)
			f.Orig.Src, f.Orig.Dst = netip.AddrFrom16(b), netip.MustParseAddr("2001:db8:2::7")
			shared, inside = netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("fd00:1::200")
		}
		if i >= udp {
			f.Orig.Proto, f.Orig.DstPort = unix.IPPROTO_TCP, 443
			f.TCP = ct.TCP{State: ct.TCPEstablished, WScaleOrig: 7, WScaleReply: 9}
			f.Timeout = time.Hour
		}
		f.Reply = f.Orig.Inverse()
		switch i / 2 % 4 {
		case 1: // SNAT
			f.Reply.Dst, f.Reply.DstPort = shared, uint16(40000+i)
		case 2: // DNAT
			f.Orig.Dst = shared
			f.Reply.Src, f.Reply.SrcPort = inside, 8080
		case 3: // both
			f.Orig.Dst = shared
			f.Reply.Src, f.Reply.SrcPort = inside, 8081
			f.Reply.Dst, f.Reply.DstPort = netip.MustParseAddr("10.0.0.1"), uint16(40000+i)
			if !f.Orig.Src.Is4() {
				f.Reply.Dst = netip.MustParseAddr("fd00:1::1")
			}
		}
		flows = append(flows, f)
	}
	return flows
}

// waitEqual waits until both nodes hold the same n marked flows.
func (p *pair) waitEqual(limit time.Duration, n int) {
	p.tb.Helper()
	var a, b []string
	deadline := time.Now().Add(limit)
	for {
		a, b = p.a.table(), p.b.table()
		if len(a) == n && slices.Equal(a, b) {
			return
		}
		if time.Now().After(deadline) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, n := range []*node{p.a, p.b} {
		if s := n.status(); s != nil {
			p.tb.Logf("sync of %s: %+v", n.name, s.Sync)
		}
	}
	p.tb.Fatalf("tables not equal within %v: %d flows on a and %d on b, want %d: %s", limit, len(a), len(b), n, firstDifference(a, b))
}

func firstDifference(a, b []string) string {
	for _, l := range a {
		if _, ok := slices.BinarySearch(b, l); !ok {
			return "only on a: " + l
		}
	}
	for _, l := range b {
		if _, ok := slices.BinarySearch(a, l); !ok {
			return "only on b: " + l
		}
	}
	return "none"
}

func TestFlowsExistOnThePeer(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.up()
	flows := manyFlows(1000, 200)
	p.a.editTable(ct.New, flows)
	p.waitEqual(10*time.Second, len(flows))

	// What conntrack(8) made on a, written out, is what conntrack(8) reads on b.
	for _, f := range []struct{ make, want string }{
		{"-p tcp -s 10.0.0.9 -d 198.51.100.9 --sport 1001 --dport 22 --state ESTABLISHED -u SEEN_REPLY,ASSURED -t 300 -n 203.0.113.1:5001",
			"ipv4 2 tcp 6 ESTABLISHED src=10.0.0.9 dst=198.51.100.9 sport=1001 dport=22 src=198.51.100.9 dst=203.0.113.1 sport=22 dport=5001 [ASSURED] mark=32343"},
		{"-p udp -s 192.0.2.9 -d 203.0.113.1 --sport 1002 --dport 53 -t 300 -u SEEN_REPLY -g 10.0.0.53:5353",
			"ipv4 2 udp 17 src=192.0.2.9 dst=203.0.113.1 sport=1002 dport=53 src=10.0.0.53 dst=192.0.2.9 sport=5353 dport=1002 mark=32343"},
		{"-p tcp -s 2001:db8:9::9 -d 2001:db8:8::8 --sport 1003 --dport 443 --state FIN_WAIT -u SEEN_REPLY,ASSURED -t 300",
			"ipv6 10 tcp 6 FIN_WAIT src=2001:db8:9::9 dst=2001:db8:8::8 sport=1003 dport=443 src=2001:db8:8::8 dst=2001:db8:9::9 sport=443 dport=1003 [ASSURED] mark=32343"},
	} {
		// Before the protocol conntrack(8) takes another mark than it is given.
		p.a.ns.Exec("conntrack", append(append([]string{"-I"}, strings.Fields(f.make)...), "-m", fmt.Sprint(testMark))...)
		nstest.Eventually(t, 10*time.Second, "on b: "+f.want, func() bool { return slices.Contains(p.b.table(), f.want) })
		which, _, _ := strings.Cut(f.make, "--dport")
		p.a.ns.Exec("conntrack", append([]string{"-D"}, strings.Fields(which)...)...)
	}
	p.waitEqual(10*time.Second, len(flows))

	// Half of the UDP flows go, and a TCP connection moves on.
	p.a.editTable(ct.Destroy, flows[:500])
	p.waitEqual(10*time.Second, len(flows)-500)
	closing := flows[1000]
	closing.TCP.State = ct.TCPTimeWait
	p.a.editTable(ct.Update, []ct.Flow{closing})
	p.waitEqual(10*time.Second, len(flows)-500)
	if got := strings.Join(p.b.table(), "\n"); strings.Count(got, "TIME_WAIT") != 1 {
		t.Errorf("want one flow in TIME_WAIT on b, got:\n%s", got)
	}

	// An accident on the backup is repaired and reaches the master never.
	p.b.ns.Exec("conntrack", "-F")
	p.waitEqual(15*time.Second, len(flows)-500)

	p.a.editTable(ct.Destroy, flows[500:])
	p.waitEqual(10*time.Second, 0)
}

func TestTablesBecomeEqualUnderLossAndRestart(t *testing.T) {
	t.Parallel()
	nstest.RequireProgram(t, "nft")
	p := newPair(t)
	p.up()
	for _, n := range []*node{p.a, p.b} {
		n.ns.Exec("nft", `table inet loss { chain in { type filter hook input priority 0; iifname "sync0" udp dport 4112 numgen random mod 100 < 30 counter drop; }; }`)
	}
	flows := manyFlows(1000, 200)
	p.a.editTable(ct.New, flows[:400])
	p.a.editTable(ct.New, flows[400:800])
	p.b.kill(unix.SIGKILL)
	p.a.editTable(ct.Destroy, flows[:200]) // while b cannot hear it
	p.a.editTable(ct.New, flows[800:])
	p.b.start()
	p.waitEqual(30*time.Second, len(flows)-200)
	if out := p.b.ns.Exec("nft", "list", "table", "inet", "loss"); strings.Contains(out, "packets 0 ") {
		t.Errorf("nothing was lost, so nothing is proven:\n%s", out)
	}
	if got := p.a.log.transitions("lan"); slices.Contains(got[slices.Index(got, "MASTER")+1:], "BACKUP") {
		t.Errorf("the master lost its role meanwhile: %v", got)
	}
}

func TestBusyUDPFlowOutlivesTheHold(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, n := range []*node{p.a, p.b} {
		n.reconfigure(func(s string) string {
			return strings.Replace(s, "fw-b: 172.30.0.3}}", "fw-b: 172.30.0.3}, hold: 5s}", 1)
		})
		// Shorter than the hold: only the mirror can keep the copy alive.
		n.ns.Sysctl("net/netfilter/nf_conntrack_udp_timeout", "4")
		n.ns.Sysctl("net/netfilter/nf_conntrack_udp_timeout_stream", "4")
	}
	// A router without a ruleset tracks nothing.
	for _, n := range []*node{p.a, p.b} {
		n.ns.Exec("nft", fmt.Sprintf(`table inet fw { chain pass { type filter hook forward priority 0; ct mark set %d; }; }`, testMark))
	}
	p.up()
	send := p.client.udp(t, "203.0.113.100:9")
	busy := time.After(20 * time.Second)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		send()
		select {
		case <-tick.C:
			continue
		case <-busy:
		}
		break
	}
	if b := p.b.table(); !slices.ContainsFunc(b, func(l string) bool { return strings.Contains(l, "udp") && strings.Contains(l, "dport=9") }) {
		t.Errorf("the flow that was busy for 20 s is not on b, which has %q; on a: %q", b, p.a.table())
	}
}
