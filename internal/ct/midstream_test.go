package ct

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// A strict firewall: nothing passes without an entry, and no entry is made from
// the middle of a stream. Input stays silent: a router that owns the address
// and lacks the entry would answer RST.
const strict = `
add table inet f
add chain inet f forward { type filter hook forward priority 0; policy drop; }
add rule inet f forward ct state invalid counter drop
add rule inet f forward ct state established accept
add rule inet f forward tcp flags & (syn|ack) == syn ct state new accept
add chain inet f input { type filter hook input priority 0; policy drop; }`

const snat = `
add table inet n
add chain inet n post { type nat hook postrouting priority 100; }
add rule inet n post oifname "right" ip saddr 10.7.0.2 tcp dport 8080 snat ip to 10.8.0.1:61000`

// What a node has whose ruleset translates nothing, but whose peer's does.
const emptyNAT = `
delete table inet n
add table inet n
add chain inet n post { type nat hook postrouting priority 100; }`

// path is client - router - server, with a paced download through it.
type path struct {
	router *nstest.NS
	table  *Table       // the router's, listening from before the first packet
	got    atomic.Int64 // bytes that reached the client
}

func newPath(t *testing.T, rules string) *path {
	t.Helper()
	nstest.RequireProgram(t, "nft")
	client, router, server := nstest.New(t, "client"), nstest.New(t, "router"), nstest.New(t, "server")
	nstest.Veth(t, client, "eth0", router, "left")
	nstest.Veth(t, router, "right", server, "eth0")
	client.Addr("eth0", "10.7.0.2/24")
	router.Addr("left", "10.7.0.1/24")
	router.Addr("right", "10.8.0.1/24")
	server.Addr("eth0", "10.8.0.2/24")
	client.Exec("ip", "route", "add", "default", "via", "10.7.0.1")
	server.Exec("ip", "route", "add", "default", "via", "10.8.0.1")
	router.Sysctl("net/ipv4/ip_forward", "1")
	router.Exec("nft", rules)
	router.Sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")
	router.Sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "0")

	var l net.Listener
	server.Must(func() (err error) {
		l, err = net.Listen("tcp4", "10.8.0.2:8080")
		return err
	})
	p := &path{router: router, table: openIn(t, router, Options{})}
	if err := p.table.Listen(true); err != nil {
		t.Fatal(err)
	}
	var sent net.Conn
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		var err error
		if sent, err = l.Accept(); err != nil {
			return
		}
		defer sent.Close()
		raw, _ := sent.(*net.TCPConn).SyscallConn()
		raw.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, 4<<20)
		})
		for chunk := make([]byte, 16<<10); ; {
			sent.SetWriteDeadline(time.Now().Add(30 * time.Second))
			if _, err := sent.Write(chunk); err != nil {
				return
			}
		}
	}()
	var c net.Conn
	client.Must(func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 7, 0, 2), Port: 40001}, Timeout: 10 * time.Second}
		c, err = d.DialContext(t.Context(), "tcp4", "10.8.0.2:8080")
		return err
	})
	go func() {
		defer func() { done <- struct{}{} }()
		for chunk := make([]byte, 16<<10); ; {
			n, err := c.Read(chunk)
			if err != nil {
				return
			}
			p.got.Add(int64(n))
		}
	}()
	t.Cleanup(func() {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
		l.Close()
		if sent != nil {
			sent.Close()
		}
		<-done
		<-done
	})
	return p
}

func (p *path) flows(t *testing.T, what string) {
	t.Helper()
	want := p.got.Load() + 512<<10
	nstest.Eventually(t, 15*time.Second, what, func() bool { return p.got.Load() >= want })
}

func TestAStreamSurvivesFlushAndInjection(t *testing.T) {
	for name, c := range map[string]struct{ rules, after string }{
		"plain":                       {strict, ""},
		"snat":                        {strict + snat, ""},
		"snat, on a node without one": {strict + snat, emptyNAT},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPath(t, c.rules)
			p.flows(t, "the stream begins")
			var ops []Op
			if err := p.table.Dump(t.Context(), func(f *Flow) error {
				if f.Orig.Proto == unix.IPPROTO_TCP {
					f.TCP.FlagsOrig, f.TCP.FlagsReply = 0, 0 // Apply adds what it needs
					ops = append(ops, Op{New, *f})
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if len(ops) != 1 {
				t.Fatalf("got %d flows, want 1", len(ops))
			}
			if c.after != "" {
				p.router.Exec("nft", c.after)
			}
			p.router.Exec("conntrack", "-F")
			p.table.Apply(ops, func(_ int, err error) { t.Error(err) })
			p.flows(t, "the stream goes on")
		})
	}
}

func TestEventsOfATranslatedStream(t *testing.T) {
	p := newPath(t, strict+snat)
	p.flows(t, "the stream begins")
	events := heard(t, p.table, unexpected(t))
	p.router.Exec("conntrack", "-D", "-p", "tcp")
	for _, want := range []Change{New, Update, Destroy} {
		e := await(t, events, want.String(), func(e Event) bool { return e.Change == want && e.Flow.Orig.Proto == unix.IPPROTO_TCP })
		if a, port, ok := e.Flow.SNAT(); !ok || a != addr("10.8.0.1") || port != 61000 {
			t.Errorf("%v: snat: got %v %d %t", want, a, port, ok)
		}
	}
}
