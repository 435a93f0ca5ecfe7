package doctor

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/nstest"
)

// frames of somebody else on the link: a router advertisement, VRRPv3, CARP.
func frames() [][]byte {
	mac := carp.MAC{2, 0, 0, 0, 0, 9}
	ra := append([]byte{0x33, 0x33, 0, 0, 0, 1}, mac[:]...)
	ra = append(ra, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, 58, 255)
	from, all := addr("fe80::9").As16(), addr("ff02::1").As16()
	ra = append(append(ra, from[:]...), all[:]...)
	ra = append(ra, icmpRouterAdvertisement, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0)
	vrrp := carp.AppendFrame(nil, mac, addr("10.0.0.9"), []byte{0x31, 7, 100, 1, 0, 100, 0, 0, 10, 0, 0, 1})
	a := carp.Advert{VHID: 5, AdvBase: 1}
	advert, err := a.MarshalBinary()
	if err != nil {
		panic(err)
	}
	return [][]byte{ra, vrrp, carp.AppendFrame(nil, mac, addr("10.0.0.9"), advert)}
}

// A veth filters nothing, so the NIC's side of it is looked at by its counter.
func TestListenAsksTheNICForAllMulticast(t *testing.T) {
	here, there := nstest.New(t, "here"), nstest.New(t, "there")
	nstest.Veth(t, here, "eth0", there, "eth0")
	var conn *packet.Conn
	here.Must(func() (err error) {
		conn, err = open("eth0")
		return err
	})
	during := here.Exec("ip", "-d", "link", "show", "dev", "eth0")
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(during, " allmulti 1 ") {
		t.Errorf("got %s, want allmulti 1", during)
	}
	if after := here.Exec("ip", "-d", "link", "show", "dev", "eth0"); !strings.Contains(after, " allmulti 0 ") {
		t.Errorf("after that: got %s, want allmulti 0", after)
	}
}

func TestListenHearsRoutersAndSpeakers(t *testing.T) {
	here, there := nstest.New(t, "here"), nstest.New(t, "there")
	nstest.Veth(t, here, "eth0", there, "eth0")
	ctx, done := context.WithCancel(t.Context())
	sent := make(chan error, 1)
	go func() { // again and again: when the listener begins is its own affair
		sent <- there.Do(func() error {
			s, err := rawSocket("eth0")
			if err != nil {
				return err
			}
			defer unix.Close(s)
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for {
				for _, f := range frames() {
					if _, err := unix.Write(s, f); err != nil {
						return err
					}
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return nil
				}
			}
		})
	}()
	var heard map[string]Heard
	here.Must(func() (err error) {
		heard, err = Listen(ctx, []string{"eth0", "eth0"}, time.Second)
		return err
	})
	done()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	h := heard["eth0"]
	if r, ok := h.Routers[addr("fe80::9")]; !ok || r.Lifetime != 30*time.Minute {
		t.Errorf("got routers %v, want fe80::9 for 30m", h.Routers)
	}
	for _, want := range []Speaker{{addr("10.0.0.9"), 7, "VRRPv3"}, {addr("10.0.0.9"), 5, "CARP"}} {
		if h.Speakers[want] == 0 {
			t.Errorf("got speakers %v, want %v", h.Speakers, want)
		}
	}
}

func rawSocket(dev string) (int, error) {
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	ifi, err := net.InterfaceByName(dev)
	if err == nil {
		err = unix.Bind(s, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
	}
	if err != nil {
		unix.Close(s)
		return 0, err
	}
	return s, nil
}

func TestLookReadsTheMachine(t *testing.T) {
	here, there := nstest.New(t, "here"), nstest.New(t, "there")
	nstest.Veth(t, here, "eth0", there, "eth0")
	here.Addr("eth0", "10.0.0.2/24")
	c := &config.Config{Groups: []config.Group{{Name: "lan", VHID: 7, Carpdev: "eth0", AdvBase: 1,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}}}}
	var m Machine
	here.Must(func() (err error) { m, err = Look(c); return err })
	d := m.Devices["eth0"]
	if d == nil || d.Driver != "veth" || d.MTU != 1500 || d.XDP != "" {
		t.Fatalf("got %+v, want a veth of 1500 without a program", d)
	}
	if d.ActsKnown && d.Acts&netdevXDPBasic == 0 {
		t.Errorf("got XDP features %#x of a veth, want it to run programs", d.Acts)
	}
	if !m.Own[addr("10.0.0.2")] || len(m.Lacks) > 0 || m.Release == "" {
		t.Errorf("got own %v, lacks %v, release %q", m.Own, m.Lacks, m.Release)
	}
	if _, ok := m.Sysctls["net.ipv4.conf.eth0.rp_filter"]; !ok {
		t.Errorf("got sysctls %v, want that of the carpdev", m.Sysctls)
	}
	for _, f := range Examine(c, m, nil, nil) {
		if f.Level == Fail {
			t.Errorf("%s: %s", f.About, f.What)
		}
	}
}

func TestWhoMakesUpAddressesIsNotRememberedWithoutEnd(t *testing.T) {
	h := Heard{Routers: map[netip.Addr]Router{}, Speakers: map[Speaker]int{}}
	for i := range 2 * heardMax {
		for _, f := range frames() {
			at := 14 + 12 // the source of an IPv4 packet
			if f[12] == 0x86 {
				at = 14 + 8
			}
			f[at+2], f[at+3] = byte(i>>8), byte(i)
			if f[12] == 0x08 { // its checksum
				f[14+10], f[14+11] = 0, 0
				sum := uint32(0)
				for k := 14; k < 34; k += 2 {
					sum += uint32(f[k])<<8 | uint32(f[k+1])
				}
				sum = sum&0xffff + sum>>16
				sum = ^(sum&0xffff + sum>>16)
				f[14+10], f[14+11] = byte(sum>>8), byte(sum)
			}
			h.note(f)
		}
	}
	if len(h.Routers) != heardMax || len(h.Speakers) != heardMax {
		t.Errorf("got %d routers and %d speakers, want %d of each", len(h.Routers), len(h.Speakers), heardMax)
	}
}
