package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/xcarp/xcarp/internal/nstest"
)

// strictRules is what a careful operator runs on both routers: new connections
// from the LAN only, but for one forwarded port; nothing that conntrack does not
// know; everything from the LAN leaves with the shared address.
const strictRules = `table inet fw {
	chain input { type filter hook input priority 0; iifname "wan0" tcp dport 1-65535 accept; };
	chain forward {
		type filter hook forward priority 0; policy drop;
		ct state established,related accept;
		ct state invalid drop;
		iifname "lan0" ct state new accept;
		iifname "wan0" ct status dnat accept;
	};
	chain pre { type nat hook prerouting priority -100; iifname "wan0" ip daddr 203.0.113.1 tcp dport 8080 dnat ip to 10.0.0.100:8081; };
	chain post { type nat hook postrouting priority 100; oifname "wan0" ip saddr 10.0.0.0/24 snat ip to 203.0.113.1; };
}`

// rules loads the ruleset on both routers. A connection picked up in the middle
// is no connection.
func (p *pair) rules() {
	p.tb.Helper()
	for _, n := range []*node{p.a, p.b} {
		n.ns.Exec("nft", strictRules)
		n.ns.Sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")
	}
}

// cut blocks all ports of the node at the switch; carrier stays.
func (p *pair) cut(n *node) {
	p.tb.Helper()
	p.ports(n, "state 0")
}

// ports sets all ports of a node at once: one after the other is another fault.
func (p *pair) ports(n *node, to string) {
	p.tb.Helper()
	var batch strings.Builder
	for _, port := range []string{n.lanPort, n.wanPort, n.syncPort} {
		fmt.Fprintf(&batch, "link set dev %s %s\n", port, to)
	}
	p.sw.Exec("bridge", "-batch", n.write("ports", batch.String()))
}

// heal lets the node's frames pass again.
func (p *pair) heal(n *node) {
	p.tb.Helper()
	p.ports(n, "state 3")
}

// echoServer answers what it is told, on TCP and UDP.
func (h host) echoServer(tb testing.TB, addr string) {
	tb.Helper()
	h.Must(func() error {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		c, err := net.ListenPacket("udp", addr)
		if err != nil {
			return err
		}
		tb.Cleanup(func() { l.Close(); c.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					_, _ = io.Copy(conn, conn)
				}()
			}
		}()
		go func() {
			buf := make([]byte, 2048)
			for {
				n, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteTo(buf[:n], from)
			}
		}()
		return nil
	})
}

// A flow is one open connection with an echo at its far end.
type flow struct {
	name string
	conn net.Conn
	said int
}

func (h host) dial(tb testing.TB, name, network, addr string) *flow {
	tb.Helper()
	f := &flow{name: name}
	h.Must(func() (err error) { f.conn, err = net.DialTimeout(network, addr, 10*time.Second); return err })
	tb.Cleanup(func() { f.conn.Close() })
	return f
}

// echo says a line and reads it back. A datagram is said again until the answer
// comes; TCP does that by itself.
func (f *flow) echo(limit time.Duration) error {
	f.said++
	line := fmt.Sprintf("%s %06d\n", f.name, f.said)
	deadline := time.Now().Add(limit)
	_, isUDP := f.conn.(*net.UDPConn)
	got := make([]byte, len(line))
	if _, err := io.WriteString(f.conn, line); err != nil {
		return err
	}
	for {
		until := deadline
		if isUDP {
			until = time.Now().Add(100 * time.Millisecond)
		}
		if err := f.conn.SetReadDeadline(until); err != nil {
			return err
		}
		_, err := io.ReadFull(f.conn, got)
		var timeout net.Error
		switch {
		case err == nil && string(got) == line:
			return nil
		case err == nil && isUDP: // an answer to an earlier try
		case err == nil:
			return fmt.Errorf("said %q, heard %q", line, got)
		case isUDP && errors.As(err, &timeout) && timeout.Timeout() && time.Now().Before(deadline):
			if _, err := io.WriteString(f.conn, line); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// Every kind of connection lives on when its router dies, and again when the
// router comes back and takes its role.
func TestEveryKindOfFlowSurvives(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.rules()
	p.server.echoServer(t, ":7000")
	p.client.echoServer(t, ":8081")
	p.up()
	open := func(round int) []*flow {
		name := func(s string) string { return fmt.Sprintf("%s of round %d", s, round) }
		return []*flow{
			p.client.dial(t, name("TCP through SNAT"), "tcp", "203.0.113.100:7000"),
			p.client.dial(t, name("UDP through SNAT"), "udp", "203.0.113.100:7000"),
			p.client.dial(t, name("TCP over IPv6"), "tcp", "[2001:db8:1::100]:7000"),
			p.client.dial(t, name("UDP over IPv6"), "udp", "[2001:db8:1::100]:7000"),
			p.server.dial(t, name("TCP through DNAT"), "tcp", "203.0.113.1:8080"),
		}
	}
	alive := func(when string, flows []*flow) {
		t.Helper()
		for _, f := range flows {
			if err := f.echo(20 * time.Second); err != nil {
				t.Errorf("%s: %s: %v", when, f.name, err)
			}
		}
	}
	flows := open(1)
	alive("at first", flows)

	p.cut(p.a)
	p.b.waitState(12*time.Second, "MASTER", "lan", "wan")
	alive("after the takeover", flows)
	during := open(2)
	alive("opened during the cut", during)

	p.heal(p.a)
	p.a.waitState(30*time.Second, "BACKUP", "lan", "wan") // whatever it thought, it has the older table
	p.a.waitState(30*time.Second, "MASTER", "lan", "wan")
	p.b.waitState(10*time.Second, "BACKUP", "lan", "wan")
	alive("after the failback", append(flows, during...))
}

// A router that took over without the flow's entry does not reset it.
func TestTakeoverSendsNoResets(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, n := range []*node{p.a, p.b} {
		n.reconfigure(withoutSync)
	}
	p.rules()
	p.a.start()
	p.a.waitState(15*time.Second, "MASTER", "lan", "wan")
	p.b.start()
	p.b.waitState(15*time.Second, "BACKUP", "lan", "wan")
	tap := newTap(t, p.sw, p.b.wanPort)
	p.cut(p.a)
	p.b.waitState(12*time.Second, "MASTER", "lan", "wan")
	nstest.Eventually(t, 5*time.Second, "the kernel owns the address", func() bool { return p.b.holds("wan0", "203.0.113.1/32") })
	// What the far end would repeat: data of a connection that b does not know.
	segment := segmentFor(t, mac(t, p.server.NS, "eth0"))
	for range 20 {
		tap.send(segment)
	}
	reset := func(pk gopacket.Packet) bool {
		tcp, ok := pk.Layer(layers.LayerTypeTCP).(*layers.TCP)
		return ok && tcp.RST
	}
	nstest.Eventually(t, 5*time.Second, "20 segments in the trap", func() bool {
		return strings.Contains(p.b.ns.Exec("nft", "list", "table", "inet", "xcarp"), "counter packets 20 ")
	})
	if n := tap.count(reset); n != 0 {
		t.Errorf("%d resets after the takeover, want none", n)
	}
	// The control: without the trap the same segments are reset.
	p.b.ns.Exec("nft", "delete", "table", "inet", "xcarp")
	tap.send(segment)
	nstest.Eventually(t, 5*time.Second, "a reset without the trap", func() bool { return tap.count(reset) > 0 })
}

// segmentFor is data in the middle of a TCP connection to the shared WAN address,
// from the server.
func segmentFor(tb testing.TB, src net.HardwareAddr) []byte {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.IP{203, 0, 113, 100}, DstIP: net.IP{203, 0, 113, 1}}
	tcp := &layers.TCP{SrcPort: 7000, DstPort: 45000, Seq: 1000, Ack: 2000, ACK: true, PSH: true, Window: 500}
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		tb.Fatal(err)
	}
	dst := net.HardwareAddr{0, 0, 0x5e, 0, 1, wanVHID}
	return serialize(tb, &layers.Ethernet{SrcMAC: src, DstMAC: dst, EthernetType: layers.EthernetTypeIPv4}, ip, tcp, gopacket.Payload("more"))
}

// withoutSync cuts the sync section out of a configuration.
func withoutSync(config string) string {
	var b strings.Builder
	for line := range strings.Lines(config) {
		if !strings.HasPrefix(line, "sync:") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// holds says whether the node's kernel has the address on the interface.
func (n *node) holds(dev, addr string) bool {
	n.tb.Helper()
	return strings.Contains(n.ns.Exec("ip", "addr", "show", "dev", dev), addr+" ")
}
