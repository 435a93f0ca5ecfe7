package track

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/command"
	"github.com/xcarp/xcarp/internal/nstest"
)

// ask asks the probe once inside the namespace and returns its error as text.
func ask(tb testing.TB, n *nstest.NS, p Probe) string {
	tb.Helper()
	got := ""
	n.Must(func() error {
		ctx, cancel := context.WithTimeout(tb.Context(), 500*time.Millisecond)
		defer cancel()
		r, err := p.Check(ctx)
		if err != nil {
			got = err.Error()
			return nil
		}
		switch p.(type) {
		case Ping, ARP, TCP:
			if r.RTT <= 0 {
				got = "no round trip time"
			}
		}
		return nil
	})
	return got
}

// expect asks and compares; a want that ends in "…" is a beginning.
func expect(tb testing.TB, n *nstest.NS, p Probe, want string) {
	tb.Helper()
	got := ask(tb, n, p)
	if begin, ok := strings.CutSuffix(want, "…"); ok && strings.HasPrefix(got, begin) {
		return
	}
	if got != want {
		tb.Errorf("%+v: got %q, want %q", p, got, want)
	}
}

// neighbours are a router and a gateway on one link.
func neighbours(tb testing.TB) (router, gateway *nstest.NS) {
	tb.Helper()
	router, gateway = nstest.New(tb, "router"), nstest.New(tb, "gateway")
	nstest.Veth(tb, router, "wan0", gateway, "eth0")
	for _, a := range []struct {
		ns  *nstest.NS
		dev string
		n   int
	}{{router, "wan0", 2}, {gateway, "eth0", 254}} {
		a.ns.Addr(a.dev, fmt.Sprintf("203.0.113.%d/24", a.n))
		a.ns.Addr(a.dev, fmt.Sprintf("2001:db8:1::%d/64", a.n))
	}
	// Solicitations in the first moments of a link can get lost.
	nstest.Eventually(tb, 10*time.Second, "the gateway answers", func() bool {
		return ask(tb, router, Ping{Addr: netip.MustParseAddr("2001:db8:1::254")}) == ""
	})
	return router, gateway
}

func TestPing(t *testing.T) {
	router, gateway := neighbours(t)
	v4 := Ping{Addr: netip.MustParseAddr("203.0.113.254")}
	v6 := Ping{Addr: netip.MustParseAddr("2001:db8:1::254")}
	expect(t, router, v4, "")
	expect(t, router, v6, "")
	expect(t, router, Ping{v4.Addr, "wan0"}, "")
	expect(t, router, Ping{v4.Addr, "lo"}, "no answer from 203.0.113.254 within …")
	expect(t, router, Ping{v4.Addr, "wan9"}, "ping 203.0.113.254: no such device")
	expect(t, router, Ping{Addr: netip.MustParseAddr("198.51.100.1")}, "ping 198.51.100.1: network is unreachable")

	// It goes away without a trace: the carrier stays.
	gateway.Sysctl("net/ipv4/icmp_echo_ignore_all", "1")
	gateway.Sysctl("net/ipv6/icmp/echo_ignore_all", "1")
	expect(t, router, v4, "no answer from 203.0.113.254 within …")
	expect(t, router, v6, "no answer from 2001:db8:1::254 within …")
	gateway.Sysctl("net/ipv4/icmp_echo_ignore_all", "0")
	gateway.Sysctl("net/ipv6/icmp/echo_ignore_all", "0")
	expect(t, router, v4, "")
	expect(t, router, v6, "")
}

func TestPingLinkLocal(t *testing.T) {
	router, gateway := neighbours(t)
	gateway.Addr("eth0", "fe80::254/64")
	nstest.Eventually(t, 10*time.Second, "the gateway answers", func() bool {
		return ask(t, router, Ping{netip.MustParseAddr("fe80::254"), "wan0"}) == ""
	})
	expect(t, router, Ping{netip.MustParseAddr("fe80::254"), "lo"}, "ping fe80::254: …")
}

func TestARP(t *testing.T) {
	router, gateway := neighbours(t)
	p := ARP{netip.MustParseAddr("203.0.113.254"), "wan0"}
	gateway.Sysctl("net/ipv4/icmp_echo_ignore_all", "1") // which ARP does not mind
	expect(t, router, p, "")
	expect(t, router, ARP{netip.MustParseAddr("203.0.113.77"), "wan0"}, "no answer from 203.0.113.77 on wan0 within …")
	expect(t, router, ARP{p.Addr, "wan9"}, "no interface wan9")
	gateway.Exec("ip", "link", "set", "eth0", "arp", "off")
	expect(t, router, p, "no answer from 203.0.113.254 on wan0 within …")
	gateway.Exec("ip", "link", "set", "eth0", "arp", "on")
	expect(t, router, p, "")
	// Without an own address it asks all the same.
	router.Exec("ip", "addr", "flush", "dev", "wan0")
	router.Exec("ip", "addr", "add", "203.0.113.1/32", "dev", "wan0")
	expect(t, router, p, "")
}

func TestTCP(t *testing.T) {
	router, gateway := neighbours(t)
	p := TCP{Addr: netip.MustParseAddrPort("203.0.113.254:179")}
	expect(t, router, p, "connect to 203.0.113.254:179: connection refused")
	var l net.Listener
	gateway.Must(func() (err error) { l, err = net.Listen("tcp", ":179"); return err })
	expect(t, router, p, "")
	expect(t, router, TCP{p.Addr, "wan0"}, "")
	expect(t, router, TCP{Addr: netip.MustParseAddrPort("[2001:db8:1::254]:179")}, "")
	l.Close()
	expect(t, router, p, "connect to 203.0.113.254:179: connection refused")
	gateway.Exec("ip", "link", "set", "eth0", "down")
	router.Exec("ip", "neigh", "replace", "203.0.113.254", "lladdr", "02:00:00:00:00:01", "dev", "wan0")
	if got := ask(t, router, p); !strings.HasPrefix(got, "no answer from 203.0.113.254:179 within ") && !strings.Contains(got, "unreachable") {
		t.Errorf("got %q", got)
	}
}

func TestLinkAndRoute(t *testing.T) {
	router, gateway := neighbours(t)
	link := Link{"wan0"}
	route := func(p, dev string) Route { return Route{netip.MustParsePrefix(p), dev} }
	expect(t, router, link, "")
	expect(t, router, Link{"ppp0"}, "no interface ppp0")
	expect(t, router, route("203.0.113.0/24", ""), "")
	expect(t, router, route("203.0.113.0/24", "wan0"), "")
	expect(t, router, route("203.0.113.0/24", "lo"), "no route 203.0.113.0/24 by lo")
	for _, family := range []struct{ all, special, gateway, flag string }{
		{"0.0.0.0/0", "192.0.2.0/24", "203.0.113.254", "-4"},
		{"::/0", "2001:db8:ffff::/48", "2001:db8:1::254", "-6"},
	} {
		expect(t, router, route(family.all, ""), "no route "+family.all)
		router.Exec("ip", family.flag, "route", "add", "blackhole", "default", "metric", "5000")
		expect(t, router, route(family.all, ""), "no route "+family.all) // it leads nowhere
		router.Exec("ip", family.flag, "route", "add", "default", "via", family.gateway)
		expect(t, router, route(family.all, ""), "")
		expect(t, router, route(family.all, "wan0"), "")
		expect(t, router, route(family.special, ""), "no route "+family.special)
		router.Exec("ip", family.flag, "route", "add", family.special, "via", family.gateway)
		expect(t, router, route(family.all, ""), "") // behind the special one
		expect(t, router, route(family.special, ""), "")
	}
	gateway.Exec("ip", "link", "set", "eth0", "down")
	nstest.Eventually(t, 5*time.Second, "wan0 without carrier", func() bool { return ask(t, router, link) != "" })
	expect(t, router, link, "wan0 is …")
	expect(t, router, route("0.0.0.0/0", ""), "no route 0.0.0.0/0")
	router.Exec("ip", "link", "set", "wan0", "down")
	expect(t, router, link, "wan0 is switched off")
}

// The kernel's events wake the tracks that they are about.
func TestWatcher(t *testing.T) {
	router, gateway := neighbours(t)
	var w *Watcher
	router.Must(func() (err error) { w, err = NewWatcher(zap.NewNop()); return err })
	link, def, other := New(Config{Probe: Link{"wan0"}}), New(Config{Probe: Route{Prefix: netip.MustParsePrefix("0.0.0.0/0")}}), New(Config{Probe: Exists{"/"}})
	for _, tr := range []*Track{link, def, other} {
		w.Add(tr)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	woken := func(tr *Track, why string) {
		t.Helper()
		select {
		case <-tr.wake:
		case <-time.After(5 * time.Second):
			t.Errorf("%s wakes nobody", why)
		}
	}
	router.Exec("ip", "route", "add", "198.51.100.0/24", "via", "203.0.113.254")
	router.Exec("ip", "route", "add", "default", "via", "203.0.113.254")
	woken(def, "a default route")
	if len(link.wake) > 0 {
		t.Error("a route wakes the track of a link")
	}
	router.Exec("ip", "route", "del", "default")
	woken(def, "the end of a default route")
	gateway.Exec("ip", "link", "set", "eth0", "down")
	woken(link, "a carrier that is gone")
	woken(def, "a carrier that is gone")
	if len(other.wake) > 0 {
		t.Error("links and routes wake the track of a file")
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	look := func(p Probe, want string, demote int) {
		t.Helper()
		r, err := p.Check(t.Context())
		got := ""
		if err != nil {
			got = strings.ReplaceAll(err.Error(), path, "F")
		}
		if got != want || r.Demote != demote {
			t.Errorf("%T: got %q and %d, want %q and %d", p, got, r.Demote, want, demote)
		}
	}
	look(Exists{path}, "F does not exist", 0)
	look(Absent{path}, "", 0)
	look(Number{path}, "F does not exist", 0)
	for text, want := range map[string]struct {
		err    string
		demote int
	}{
		"0\n": {"", 0}, "17\n": {"F says 17", 17}, "256": {`F holds "256", not a number from 0 to 255`, 0}, "": {`F holds "", not a number from 0 to 255`, 0},
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		look(Number{path}, want.err, want.demote)
	}
	look(Exists{path}, "", 0)
	look(Absent{path}, "F exists", 0)
}

// sleeper starts a process that has the name and returns how to end it.
func sleeper(tb testing.TB, name string) (pid int, end func()) {
	tb.Helper()
	sleep := nstest.RequireProgram(tb, "sleep")
	cmd := &exec.Cmd{Path: sleep, Args: []string{name, "1000"}}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	over := false
	end = func() {
		if !over {
			over = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	tb.Cleanup(end)
	return cmd.Process.Pid, end
}

func TestProcess(t *testing.T) {
	name := fmt.Sprintf("xcarp-test-process-%d", os.Getpid())
	p := ByName(name)
	woken := make(chan struct{}, 1)
	p.Notify(func() { woken <- struct{}{} })
	look := func(p *Process, want string) {
		t.Helper()
		got := ""
		if _, err := p.Check(t.Context()); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	look(p, "no process "+name)
	_, end := sleeper(t, name)
	_, end2 := sleeper(t, name)
	look(p, "")
	look(p, "")
	end()
	end2()
	select {
	case <-woken:
	case <-time.After(10 * time.Second):
		t.Error("the end of the process wakes nobody")
	}
	look(p, "no process "+name)
	pid, end := sleeper(t, name)
	look(p, "")

	file := filepath.Join(t.TempDir(), "pid")
	f := ByPIDFile(file)
	look(f, file+" does not exist")
	if err := os.WriteFile(file, []byte(strconv.Itoa(pid)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	look(f, "")
	end()
	look(f, fmt.Sprintf("process %d of %s does not run", pid, file))
	if err := os.WriteFile(file, []byte("no\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	look(f, file+` holds "no", not the number of a process`)
}

func TestCommand(t *testing.T) {
	sh := nstest.RequireProgram(t, "sh")
	me := command.Spec{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	me.Argv = []string{sh, "-c", `test "$XCARP_TRACK" = db || { echo "not $XCARP_TRACK"; exit 1; }`}
	if _, err := NewCommand(me, "XCARP_TRACK=db").Check(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := NewCommand(me, "XCARP_TRACK=web").Check(t.Context()); err == nil || err.Error() != "exit status 1: not web" {
		t.Errorf("got %v", err)
	}
}

// A command that hangs is down within fall timeouts, and is gone after each.
func TestCommandThatHangs(t *testing.T) {
	sh := nstest.RequireProgram(t, "sh")
	marker := fmt.Sprintf("1%d", os.Getpid())
	me := command.Spec{Argv: []string{sh, "-c", "sleep " + marker + " & sleep " + marker}, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	changes := make(chan Status, 8)
	tr := New(Config{Name: "hang", Every: 200 * time.Millisecond, Timeout: 200 * time.Millisecond, Rise: 1, Fall: 3, Demote: 100,
		Probe: NewCommand(me), OnChange: func(s Status) { changes <- s }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx) }()
	select {
	case s := <-changes:
		if s.State != Down || s.Demote != 100 || s.Checks != 3 || !strings.HasPrefix(s.Err, "timeout: killed after ") {
			t.Errorf("got %+v", s)
		}
	case <-time.After(10 * time.Second):
		t.Error("a command that hangs decides nothing")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	nstest.Eventually(t, 5*time.Second, "no process is left", func() bool {
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range all {
			if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), "sleep\x00"+marker) {
				return false
			}
		}
		return true
	})
}
