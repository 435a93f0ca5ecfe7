package test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// A tap sits on the switch port of a node: it sees every frame that the node
// sends, and puts frames onto the wire towards it, past all switching.
type tap struct {
	tb   testing.TB
	fd   int
	done chan struct{}

	mu   sync.Mutex
	from []gopacket.Packet // sent by the node
}

func newTap(tb testing.TB, sw *nstest.NS, port string) *tap {
	tb.Helper()
	t := &tap{tb: tb, done: make(chan struct{})}
	sw.Must(func() error {
		i, err := net.InterfaceByName(port)
		if err != nil {
			return err
		}
		if t.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20),
			unix.SetsockoptTimeval(t.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
			unix.Bind(t.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: i.Index}),
		)
	})
	stop := make(chan struct{})
	go t.read(stop)
	tb.Cleanup(func() {
		close(stop)
		<-t.done
		unix.Close(t.fd)
	})
	return t
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func (t *tap) read(stop chan struct{}) {
	defer close(t.done)
	buf := make([]byte, 64<<10)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, from, err := unix.Recvfrom(t.fd, buf, 0)
		if err != nil {
			continue // the time-out, to look at stop
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); !ok || ll.Pkttype == unix.PACKET_OUTGOING {
			continue // towards the node
		}
		p := gopacket.NewPacket(append([]byte(nil), buf[:n]...), layers.LayerTypeEthernet, gopacket.DecodeOptions{})
		p.Metadata().Timestamp = time.Now()
		t.mu.Lock()
		t.from = append(t.from, p)
		t.mu.Unlock()
	}
}

// forget drops what was seen so far.
func (t *tap) forget() {
	t.mu.Lock()
	t.from = nil
	t.mu.Unlock()
}

// count returns how many of the frames that the node sent are such.
func (t *tap) count(such func(gopacket.Packet) bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, p := range t.from {
		if such(p) {
			n++
		}
	}
	return n
}

// send puts a frame onto the wire towards the node.
func (t *tap) send(frame []byte) {
	t.tb.Helper()
	if _, err := unix.Write(t.fd, frame); err != nil {
		t.tb.Fatalf("send: %v", err)
	}
}

// fromVMAC matches frames whose source is the vMAC of a vhid.
func fromVMAC(vhid uint8) func(gopacket.Packet) bool {
	return func(p gopacket.Packet) bool {
		eth, ok := p.LinkLayer().(*layers.Ethernet)
		return ok && eth.SrcMAC.String() == vMAC(int(vhid))
	}
}

// answersFor matches ARP replies, NAs and echo replies for a shared address.
func answersFor(addr netip.Addr) func(gopacket.Packet) bool {
	return func(p gopacket.Packet) bool {
		if a, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
			spa, _ := netip.AddrFromSlice(a.SourceProtAddress)
			return a.Operation == layers.ARPReply && spa == addr
		}
		if na, ok := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement); ok {
			target, _ := netip.AddrFromSlice(na.TargetAddress)
			return target == addr
		}
		if ip, ok := p.NetworkLayer().(*layers.IPv4); ok {
			src, _ := netip.AddrFromSlice(ip.SrcIP)
			icmp, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
			return ok && icmp.TypeCode.Type() == layers.ICMPv4TypeEchoReply && src.Unmap() == addr
		}
		return false
	}
}

var (
	askerMAC = net.HardwareAddr{0x02, 0xaa, 0, 0, 0, 1}
	asker4   = netip.MustParseAddr("10.0.0.77")
	asker6   = netip.MustParseAddr("fd00:1::77")
	shared4  = netip.MustParseAddr("10.0.0.1")
	shared6  = netip.MustParseAddr("fd00:1::1")
)

func serialize(tb testing.TB, l ...gopacket.SerializableLayer) []byte {
	tb.Helper()
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// arpRequest asks for the shared IPv4 address.
func arpRequest(tb testing.TB) []byte {
	return serialize(tb,
		&layers.Ethernet{SrcMAC: askerMAC, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: layers.ARPRequest, SourceHwAddress: askerMAC, SourceProtAddress: asker4.AsSlice(),
			DstHwAddress: make([]byte, 6), DstProtAddress: shared4.AsSlice(),
		})
}

// solicitation asks for the shared IPv6 address.
func solicitation(tb testing.TB) []byte {
	target := shared6.As16()
	group := netip.AddrFrom16([16]byte{0xff, 0x02, 11: 1, 12: 0xff, 13: target[13], 14: target[14], 15: target[15]})
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: asker6.AsSlice(), DstIP: group.AsSlice()}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)}
	if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
		tb.Fatal(err)
	}
	return serialize(tb,
		&layers.Ethernet{SrcMAC: askerMAC, DstMAC: net.HardwareAddr{0x33, 0x33, 0xff, target[13], target[14], target[15]}, EthernetType: layers.EthernetTypeIPv6},
		ip, icmp,
		&layers.ICMPv6NeighborSolicitation{TargetAddress: shared6.AsSlice(), Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: askerMAC}}})
}

// echoRequest pings the shared IPv4 address at a MAC.
func echoRequest(tb testing.TB, dst net.HardwareAddr, seq uint16) []byte {
	return serialize(tb,
		&layers.Ethernet{SrcMAC: askerMAC, DstMAC: dst, EthernetType: layers.EthernetTypeIPv4},
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: asker4.AsSlice(), DstIP: shared4.AsSlice()},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: 77, Seq: seq},
		gopacket.Payload(binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))))
}
