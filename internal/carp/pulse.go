package carp

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

const (
	// EtherPulse is the EtherType of pulses: IEEE 802, local experiments.
	EtherPulse = 0x88b5

	// PulseLen is the length of a pulse after the Ethernet header. A frame of it
	// is longer than Ethernet's shortest: no padding.
	PulseLen = 48

	pulseVersion = 1
	pulseSigned  = 40
)

// PulseKind is what a pulse is for.
type PulseKind uint8

// The kinds: docs/pulses.md says who sends which, and what is in them.
const (
	PulseAsk     PulseKind = iota + 1 // who is not master asks how the peer is
	PulseAnswer                       // its dataplane says so
	PulseClaim                        // who wants to be master
	PulseAck                          // whose dataplane was claimed from: it is not, from now on
	PulseRefusal                      // likewise: it is what it was
	pulseKinds
)

var pulseNames = [pulseKinds]string{"", "ask", "answer", "claim", "ack", "refusal"}

// String returns the kind's name.
func (k PulseKind) String() string {
	if k > 0 && k < pulseKinds {
		return pulseNames[k]
	}
	return fmt.Sprintf("PulseKind(%d)", uint8(k))
}

// Pulse is a question whether a peer's dataplane acts for a group, or the answer.
// docs/pulses.md has the picture of it.
type Pulse struct {
	Kind      PulseKind
	Role      State
	Demotion  uint8
	Age       time.Duration // of the last sign of life of the daemon; whole milliseconds
	Path      uint16        // the asker's number for where it asks
	Session   uint32        // names the key; never 0
	Group     uint32        // see PulseGroup
	Nonce     uint64        // the asker's boot clock, in ns: no two are the same
	Term      uint64
	Lease     time.Duration // what is left of the role; whole microseconds
	Challenge uint32        // the answerer's boot clock >> 16
}

// PulseGroup returns the number of a group in pulses: the first 32 bits of the
// SHA-256 of its name.
func PulseGroup(name string) uint32 {
	h := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint32(h[:])
}

// AppendBinary implements encoding.BinaryAppender: what is signed, without the MAC.
// An age or a lease that is too long for its field is sent as the longest.
func (p *Pulse) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, pulseVersion, byte(p.Kind), byte(p.Role), p.Demotion)
	b = binary.BigEndian.AppendUint16(b, uint16(min(max(p.Age.Milliseconds(), 0), math.MaxUint16)))
	b = binary.BigEndian.AppendUint16(b, p.Path)
	b = binary.BigEndian.AppendUint32(b, p.Session)
	b = binary.BigEndian.AppendUint32(b, p.Group)
	b = binary.BigEndian.AppendUint64(b, p.Nonce)
	b = binary.BigEndian.AppendUint64(b, p.Term)
	b = binary.BigEndian.AppendUint32(b, uint32(min(max(p.Lease.Microseconds(), 0), math.MaxUint32)))
	return binary.BigEndian.AppendUint32(b, p.Challenge), nil
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler. It checks form only: see
// PulseKey.Verify.
func (p *Pulse) UnmarshalBinary(b []byte) error {
	if len(b) != PulseLen {
		return fmt.Errorf("pulse of %d bytes: %w", len(b), ErrLength)
	}
	if b[0] != pulseVersion || b[1] == 0 || b[1] >= byte(pulseKinds) || State(b[2]) > Drain {
		return fmt.Errorf("pulse of version %d, kind %d, role %d: %w", b[0], b[1], b[2], ErrVersion)
	}
	*p = Pulse{
		Kind:      PulseKind(b[1]),
		Role:      State(b[2]),
		Demotion:  b[3],
		Age:       time.Duration(binary.BigEndian.Uint16(b[4:])) * time.Millisecond,
		Path:      binary.BigEndian.Uint16(b[6:]),
		Session:   binary.BigEndian.Uint32(b[8:]),
		Group:     binary.BigEndian.Uint32(b[12:]),
		Nonce:     binary.BigEndian.Uint64(b[16:]),
		Term:      binary.BigEndian.Uint64(b[24:]),
		Lease:     time.Duration(binary.BigEndian.Uint32(b[32:])) * time.Microsecond,
		Challenge: binary.BigEndian.Uint32(b[36:]),
	}
	return nil
}

// PulseKey makes and checks the MAC of pulses: the key of one session. As two words
// it is what the dataplane takes.
type PulseKey [2]uint64

// NewPulseKey returns the key of 16 bytes.
func NewPulseKey(b [16]byte) PulseKey {
	return PulseKey{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])}
}

// Append appends the pulse and its MAC.
func (k PulseKey) Append(b []byte, p *Pulse) []byte {
	at := len(b)
	b, _ = p.AppendBinary(b)
	return binary.LittleEndian.AppendUint64(b, siphash(k[0], k[1], b[at:]))
}

// AppendFrame appends the Ethernet frame of a pulse. src is the NIC's own MAC: a
// pulse never moves a switch's table.
func (k PulseKey) AppendFrame(b []byte, dst, src MAC, p *Pulse) []byte {
	return k.Append(appendEther(b, dst, src, EtherPulse), p)
}

// Verify reports whether the key signed the pulse.
func (k PulseKey) Verify(b []byte) bool {
	if len(b) != PulseLen {
		return false
	}
	want := binary.LittleEndian.AppendUint64(make([]byte, 0, 8), siphash(k[0], k[1], b[:pulseSigned]))
	return subtle.ConstantTimeCompare(want, b[pulseSigned:]) == 1
}
