package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	askInterval = 50 * time.Millisecond
	askers      = 100 // addresses to ask from, so that an answer says which request it is for
)

// Asker asks for the shared LAN addresses by ARP and by neighbour solicitation
// from the switch, and listens on the ports of both routers. Each request comes
// from an address of its own that nobody has; so an answer tells its request, and
// the client's own neighbour table is left alone.
type Asker struct {
	lab     *Net
	send    int
	mac     net.HardwareAddr
	taps    [2]int
	stop    chan struct{}
	wg      sync.WaitGroup
	err     error
	asked   []time.Duration
	answers [2]map[int]bool // by request, which router answered
}

// StartAsker starts asking. Stop it.
func (n *Net) StartAsker() (*Asker, error) {
	br, err := n.sw.h.LinkByName("br-lan")
	if err != nil {
		return nil, fmt.Errorf("find the LAN's switch: %w", err)
	}
	a := &Asker{lab: n, send: -1, taps: [2]int{-1, -1}, mac: br.Attrs().HardwareAddr, stop: make(chan struct{}), answers: [2]map[int]bool{{}, {}}}
	if a.send, err = packetSocket(n.sw.ns.Do, br.Attrs().Index, 0, nil); err != nil {
		return nil, err
	}
	for i, r := range n.Routers() {
		// A bridge takes the frames of its ports before sockets of one protocol
		// see them; only ETH_P_ALL comes first.
		if a.taps[i], err = packetSocket(n.sw.ns.Do, n.sw.ports[portKey{r.Name, "lan"}].Attrs().Index, unix.ETH_P_ALL, answerFilter); err != nil {
			a.close()
			return nil, err
		}
	}
	a.wg.Go(a.run)
	return a, nil
}

// answerFilter lets ARP and neighbour advertisements through.
var answerFilter = assemble([]bpf.Instruction{
	0: bpf.LoadAbsolute{Off: 12, Size: 2},
	1: bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_ARP, SkipTrue: 5},
	2: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: 5},
	3: bpf.LoadAbsolute{Off: 14 + 6, Size: 1},
	4: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 3},
	5: bpf.LoadAbsolute{Off: 14 + 40, Size: 1},
	6: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: neighbourAdvert, SkipTrue: 1},
	7: bpf.RetConstant{Val: 128},
	8: bpf.RetConstant{Val: 0},
})

// Messages of RFC 4861.
const (
	neighbourSolicit = 135
	neighbourAdvert  = 136
)

func (a *Asker) run() {
	shared4, shared6 := netip.MustParseAddr(SharedLAN), netip.MustParseAddr(SharedLAN6)
	tick := time.NewTicker(askInterval)
	defer tick.Stop()
	for i := 0; ; i++ {
		at := a.lab.now()
		own4, own6 := askerAddrs(i)
		for _, frame := range [][]byte{arpRequest(a.mac, own4, shared4), neighbourRequest(a.mac, own6, shared6)} {
			if _, err := unix.Write(a.send, frame); err != nil && !errors.Is(err, unix.ENOBUFS) {
				a.err = fmt.Errorf("ask for a shared address: %w", err)
				return
			}
			a.asked = append(a.asked, at)
		}
		select {
		case <-a.stop:
			return
		case <-tick.C:
		}
		a.listen()
	}
}

// askerAddrs are the addresses from which the ith request of each kind comes.
// They come again after five seconds: no answer is as late as that.
func askerAddrs(i int) (v4, v6 netip.Addr) {
	k := byte(110 + i%askers)
	v4 = netip.AddrFrom4([4]byte{10, 0, 0, k})
	b := netip.MustParseAddr("fd00:1::").As16()
	b[14], b[15] = 0xa5, k
	return v4, netip.AddrFrom16(b)
}

// listen notes who answered which request.
func (a *Asker) listen() {
	n := len(a.asked) / 2 // of each kind
	for i, fd := range a.taps {
		for _, frame := range incoming(fd) {
			k, kind, ok := answerTo(frame)
			if !ok {
				continue
			}
			// The latest request from that address.
			if last := n - 1 - ((n-1-k)%askers+askers)%askers; last >= 0 {
				a.answers[i][2*last+kind] = true
			}
		}
	}
}

// answerTo says which request a frame answers: the number of its address, and 0
// for ARP, 1 for neighbour discovery.
func answerTo(frame []byte) (k, kind int, ok bool) {
	if len(frame) >= 42 && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_ARP && frame[21] == 2 {
		to := netip.AddrFrom4([4]byte(frame[38:42]))
		from := netip.AddrFrom4([4]byte(frame[28:32]))
		k = int(to.As4()[3]) - 110
		own, _ := askerAddrs(max(k, 0))
		return k, 0, k >= 0 && k < askers && to == own && from.String() == SharedLAN
	}
	if len(frame) >= 14+40+24 && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IPV6 && frame[14+40] == neighbourAdvert {
		to := netip.AddrFrom16([16]byte(frame[14+24 : 14+40]))
		target := netip.AddrFrom16([16]byte(frame[14+40+8 : 14+40+24]))
		k = int(to.As16()[15]) - 110
		_, own := askerAddrs(max(k, 0))
		return k, 1, k >= 0 && k < askers && to == own && target.String() == SharedLAN6
	}
	return 0, 0, false
}

// neighbourRequest is the frame of RFC 4861: who has target, tell sender.
func neighbourRequest(mac net.HardwareAddr, sender, target netip.Addr) []byte {
	src, dst := sender.As16(), target.As16()
	group := [16]byte{0xff, 0x02, 10: 0, 11: 1, 12: 0xff, 13: dst[13], 14: dst[14], 15: dst[15]} // solicited-node
	msg := make([]byte, 0, 32)
	msg = append(msg, neighbourSolicit, 0, 0, 0, 0, 0, 0, 0)
	msg = append(msg, dst[:]...)
	msg = append(msg, 1, 1) // source link-layer address
	msg = append(msg, mac...)
	sum := uint32(unix.IPPROTO_ICMPV6 + len(msg))
	for _, part := range [][]byte{src[:], group[:], msg} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(part[i])<<8 | uint32(part[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(msg[2:], ^uint16(sum))

	b := []byte{0x33, 0x33, 0xff, dst[13], dst[14], dst[15]}
	b = append(b, mac...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IPV6)
	b = append(b, 0x60, 0, 0, 0, 0, byte(len(msg)), unix.IPPROTO_ICMPV6, 255)
	b = append(b, src[:]...)
	b = append(b, group[:]...)
	return append(b, msg...)
}

// Answers is how requests were answered.
type Answers struct {
	Queries, Answered, Double int
}

// Stop ends the asking. Between two instants, how were requests answered?
func (a *Asker) Stop() (func(from, to time.Duration) Answers, error) {
	close(a.stop)
	a.wg.Wait()
	a.listen()
	a.close()
	return func(from, to time.Duration) (sum Answers) {
		for i, at := range a.asked {
			if at < from || at >= to {
				continue
			}
			sum.Queries++
			if a.answers[0][i] && a.answers[1][i] {
				sum.Double++
			}
			if a.answers[0][i] || a.answers[1][i] {
				sum.Answered++
			}
		}
		return sum
	}, a.err
}

func (a *Asker) close() {
	for _, fd := range []int{a.send, a.taps[0], a.taps[1]} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}
