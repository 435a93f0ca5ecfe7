package lab

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/probe"
)

// standinEnv makes the test program stand in for xcarp; its value is how long
// fw-b waits in silence.
const standinEnv = "XLAB_STANDIN"

// TestMain lets the test program be the daemon, too.
func TestMain(m *testing.M) {
	if silence := os.Getenv(standinEnv); silence != "" && len(os.Args) > 1 {
		switch os.Args[1] {
		case "keygen", "run", "show":
			if err := standin(silence, os.Args[1], os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	runtime.GOMAXPROCS(max(8, runtime.NumCPU())) // as the command does
	os.Exit(m.Run())
}

// standin is a pair made of plain kernel means. fw-a is always MASTER and sends
// heartbeats over the sync cable; fw-b takes the shared addresses and MACs when
// it has heard none for a time, and gives them up when it hears one again. It
// mirrors no state.
func standin(silence, command string, args []string) error {
	fs := flag.NewFlagSet(command, flag.ContinueOnError)
	config, runDir := fs.String("config", "", ""), fs.String("run-dir", "", "")
	fs.String("state-dir", "", "")
	fs.String("pin-dir", "", "")
	fs.String("o", "", "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	stateFile := filepath.Join(*runDir, "state.json")
	switch command {
	case "keygen":
		fmt.Println("c3RhbmQtaW4ga2V5LCBvZiAzMiBieXRlcyBleGFjdGx5IQ==")
		return nil
	case "show":
		b, err := os.ReadFile(stateFile)
		os.Stdout.Write(b)
		return err
	}
	limit, err := time.ParseDuration(silence)
	if err != nil {
		return err
	}
	yaml, err := os.ReadFile(*config)
	if err != nil {
		return err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	d := &standinDaemon{router: router{h, func(f func() error) error { return f() }}, file: stateFile}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	if strings.Contains(string(yaml), "node: fw-a\n") {
		return d.beat(term)
	}
	return d.listen(term, limit)
}

type standinDaemon struct {
	router
	file string
	role Role
}

// become changes the role: addresses, log, what show prints.
func (d *standinDaemon) become(r Role) error {
	if err := d.take(r == Master); err != nil {
		return err
	}
	for vhid := range 2 {
		line, _ := json.Marshal(map[string]any{
			"ts": float64(time.Now().UnixMicro()) / 1e6, "msg": "state", "vhid": vhid + 1, "from": d.role, "to": r, "reason": "stand-in",
		})
		fmt.Println(string(line))
	}
	d.role = r
	state := fmt.Sprintf(`{"groups":[{"name":"wan","state":"%[1]s","xdp_mode":"none"},{"name":"lan","state":"%[1]s","xdp_mode":"none"}],"sync":[{"in_sync":true}]}`, r)
	if err := os.WriteFile(d.file+".new", []byte(state), 0o600); err != nil {
		return err
	}
	return os.Rename(d.file+".new", d.file)
}

// beat is fw-a. 4112 is the port that the ruleset lets in.
func (d *standinDaemon) beat(term <-chan os.Signal) error {
	if err := d.become(Master); err != nil {
		return err
	}
	c, err := net.Dial("udp4", "172.30.0.2:4112")
	if err != nil {
		return err
	}
	// So that the switch finds fw-a again after a cut. Heartbeats do not wait for that,
	// nor for a busy machine: their age at the fault is part of what is measured.
	announce, announced := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(announced)
		for range announce {
			_ = d.announce()
		}
	}()
	probe.OwnThread()
	pause := unix.NsecToTimespec(int64(10 * time.Millisecond))
	for i := 0; ; i++ {
		if _, err := c.Write([]byte{1}); err == nil && i%10 == 0 {
			select {
			case announce <- struct{}{}:
			default:
			}
		}
		select {
		case <-term:
			close(announce)
			<-announced
			return d.take(false)
		default:
			_ = unix.Nanosleep(&pause, nil)
		}
	}
}

// listen is fw-b.
func (d *standinDaemon) listen(term <-chan os.Signal, silence time.Duration) error {
	if err := d.become(Backup); err != nil {
		return err
	}
	c, err := net.ListenPacket("udp4", "172.30.0.2:4112")
	if err != nil {
		return err
	}
	last := time.Now()
	for buf := make([]byte, 8); ; {
		select {
		case <-term:
			return d.take(false)
		default:
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, _, err := c.ReadFrom(buf); err == nil {
			last = time.Now()
		}
		want := Backup
		if time.Since(last) > silence {
			want = Master
		}
		if want != d.role {
			if err := d.become(want); err != nil {
				return err
			}
		}
	}
}

// router is where addresses are taken: a lab's node, or where the process is.
type router struct {
	h  *netlink.Handle
	do func(func() error) error
}

// take gives a node the shared addresses and MACs.
func take(n *Node) error { return router{n.h, n.NS.Do}.take(true) }

// shared is what the active router holds.
var shared = []struct {
	dev, v4, v6 string
	mac         net.HardwareAddr
}{
	{"eth0", SharedWAN, "2001:db8:1::1", net.HardwareAddr{0, 0, 0x5e, 0, 1, 1}},
	{"eth1", SharedLAN, "fd00:1::1", net.HardwareAddr{0, 0, 0x5e, 0, 1, 2}},
}

// take gives the router the shared addresses and MACs, or takes them away.
func (r router) take(on bool) error {
	for _, sh := range shared {
		l, err := r.h.LinkByName(sh.dev)
		if err != nil {
			return err
		}
		mac := sh.mac
		if !on {
			mac = net.HardwareAddr{2, 0, 0, 0, byte(l.Attrs().Index), byte(os.Getpid())}
		}
		if err := r.h.LinkSetHardwareAddr(l, mac); err != nil {
			return err
		}
		for _, cidr := range []string{sh.v4 + "/24", sh.v6 + "/64"} {
			a, err := netlink.ParseAddr(cidr)
			if err != nil {
				return err
			}
			if on {
				a.Flags |= unix.IFA_F_NODAD
				err = r.h.AddrReplace(l, a)
			} else if err = r.h.AddrDel(l, a); errors.Is(err, unix.EADDRNOTAVAIL) {
				err = nil
			}
			if err != nil {
				return fmt.Errorf("%s on %s: %w", cidr, sh.dev, err)
			}
		}
	}
	if !on {
		return nil
	}
	return r.announce()
}

// announce sends a gratuitous ARP request for each shared address.
func (r router) announce() error {
	for _, sh := range shared {
		l, err := r.h.LinkByName(sh.dev)
		if err != nil {
			return err
		}
		fd, err := packetSocket(r.do, l.Attrs().Index, 0, nil)
		if err != nil {
			return err
		}
		addr := netip.MustParseAddr(sh.v4)
		_, err = unix.Write(fd, arpRequest(sh.mac, addr, addr))
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return err
		}
	}
	return nil
}

func pid() string { return fmt.Sprint(os.Getpid()) }
