package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
)

// Attack is what a host on the LAN does to the election.
type Attack string

// The attacks. None of them knows a key.
const (
	// Forged adverts have the right vhid, TTL and checksum, a spoofed source, and
	// a wrong digest.
	Forged Attack = "forged"

	// Replayed is a genuine advert that was captured, byte for byte.
	Replayed Attack = "replayed"

	// Relabelled is the same with an advbase and advskew of 0, so that it claims
	// to be better than any master; the checksum is repaired. Once with what
	// follows the header, once without.
	Relabelled Attack = "relabelled"
)

// Attacks are all of them.
var Attacks = []Attack{Forged, Replayed, Relabelled}

// Capture waits on an interface for an advert of the vhid and returns the whole
// frame. do runs a function in the namespace of the interface with that index.
func Capture(ctx context.Context, do func(func() error) error, index int, vhid uint8) ([]byte, error) {
	fd, err := packetSocket(do, index, unix.ETH_P_ALL, nil)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 2048)
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("capture an advert of vhid %d: %w", vhid, err)
		}
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, 200); err != nil && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("capture an advert of vhid %d: %w", vhid, err)
		}
		k, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			continue // nothing yet
		}
		if r, why := carp.ParseFrame(buf[:k]); why == carp.Accepted && r.VHID == vhid && r.From.Is4() && !r.Goodbye() {
			return append([]byte(nil), buf[:k]...), nil
		}
	}
}

// Frames makes the frames of an attack from a captured advert. Ethernet's source
// is the attacker's own: the switch must not learn the virtual MAC at his port.
func (a Attack) Frames(captured []byte, mac carp.MAC) ([][]byte, error) {
	r, why := carp.ParseFrame(captured)
	if why != carp.Accepted {
		return nil, fmt.Errorf("captured frame: %v", why)
	}
	frame := func(from netip.Addr, payload []byte) []byte { return carp.AppendFrame(nil, mac, from, payload) }
	payload := append([]byte(nil), r.Payload...)
	switch a {
	case Forged:
		var all [][]byte
		rng := rand.New(rand.NewPCG(1, 2)) // the same each time
		for range 1024 {
			b := append([]byte(nil), payload...)
			binary.BigEndian.PutUint64(b[8:], rng.Uint64())
			for i := 16; i < carp.AdvertLen; i++ {
				b[i] = byte(rng.Uint32())
			}
			b[2] = byte(rng.Uint32()) // advskew
			all = append(all, frame(r.From, repair(b)))
		}
		return all, nil
	case Replayed:
		return [][]byte{frame(r.From, payload)}, nil
	case Relabelled:
		b := append([]byte(nil), payload...)
		b[2], b[5] = 0, 0
		repair(b)
		other := netip.AddrFrom4([4]byte{10, 0, 0, 66})
		return [][]byte{frame(r.From, b), frame(r.From, b[:carp.AdvertLen]), frame(other, b[:carp.AdvertLen])}, nil
	}
	return nil, fmt.Errorf("attack %q is unknown", a)
}

// repair makes the checksum of an advert right over its header.
func repair(b []byte) []byte {
	b[6], b[7] = 0, 0
	var s uint32
	for i := 0; i < carp.AdvertLen; i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	binary.BigEndian.PutUint16(b[6:], ^uint16(s))
	return b
}

// captureLimit is more than any advert interval of the lab.
const captureLimit = 10 * time.Second

// ParseAttack reads the name of an attack.
func ParseAttack(s string) (Attack, error) {
	for _, a := range Attacks {
		if string(a) == s {
			return a, nil
		}
	}
	return "", fmt.Errorf("adverts %q are unknown, there are %v", s, Attacks)
}
