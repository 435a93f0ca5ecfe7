package daemon

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/xcarp/xcarp/internal/carp"
)

// What nodes tell each other about pulses, over the sync channel: docs/pulses.md.
//
//	keys      session (4), our half of the key (32), the half we know of yours (32)
//	devices   MAC of the sync device (6), then per group: length of the name (1), the
//	          name, MAC of its carpdev (6)
//	take      names of groups, each with its length: claim them, I hand over
//	unheard   likewise: I do not hear you on their carpdevs
const (
	tellKeys byte = iota + 1
	tellDevices
	tellTake
	tellUnheard
	tellStory // see story.go; also without pulses
)

// tellMax bounds a message: a frame of 1280 bytes holds it.
const tellMax = 1100

var errTold = errors.New("malformed message about pulses")

// half is what one node gives to a key.
type half [32]byte

// pulseKey derives the key under which a node answers in a session. The halves are
// secret: they come over the sync channel, which has the nodes' key.
func pulseKey(answers, asks half, session uint32) (carp.PulseKey, error) {
	b, err := hkdf.Key(sha256.New, append(answers[:], asks[:]...), nil, fmt.Sprintf("pulse %d", session), 16)
	if err != nil {
		return carp.PulseKey{}, fmt.Errorf("derive the key of pulses: %w", err)
	}
	return carp.NewPulseKey([16]byte(b)), nil
}

// keysMessage is what it says on the sync channel.
type keysMessage struct {
	session uint32
	ours    half
	yours   half // zero: not known
}

func newHalf() (h half) {
	rand.Read(h[:]) // never fails
	return h
}

func newSession() uint32 {
	var b [4]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint32(b[:]) | 1
}

func (k *keysMessage) append(b []byte) []byte {
	b = append(b, tellKeys)
	b = binary.BigEndian.AppendUint32(b, k.session)
	b = append(b, k.ours[:]...)
	return append(b, k.yours[:]...)
}

func parseKeys(b []byte) (keysMessage, error) {
	if len(b) != 4+32+32 {
		return keysMessage{}, fmt.Errorf("%d bytes: %w", len(b), errTold)
	}
	k := keysMessage{session: binary.BigEndian.Uint32(b), ours: half(b[4:]), yours: half(b[36:])}
	if k.session == 0 || k.ours == (half{}) {
		return k, fmt.Errorf("no session: %w", errTold)
	}
	return k, nil
}

// appendDevices appends as many messages as it takes.
func appendDevices(sync carp.MAC, groups []string, mac func(string) carp.MAC) (all [][]byte) {
	begin := func() []byte { return append([]byte{tellDevices}, sync[:]...) }
	b := begin()
	for _, g := range groups {
		if len(b)+1+len(g)+6 > tellMax {
			all, b = append(all, b), begin()
		}
		m := mac(g)
		b = append(b, byte(len(g)))
		b = append(b, g...)
		b = append(b, m[:]...)
	}
	return append(all, b)
}

func parseDevices(b []byte, each func(group string, mac carp.MAC)) (sync carp.MAC, err error) {
	if len(b) < 6 {
		return sync, fmt.Errorf("%d bytes: %w", len(b), errTold)
	}
	sync, b = carp.MAC(b), b[6:]
	for len(b) > 0 {
		n := int(b[0])
		if len(b) < 1+n+6 {
			return sync, fmt.Errorf("cut off: %w", errTold)
		}
		each(string(b[1:1+n]), carp.MAC(b[1+n:]))
		b = b[1+n+6:]
	}
	return sync, nil
}

// appendNames appends messages with names of groups.
func appendNames(kind byte, groups []string) (all [][]byte) {
	b := []byte{kind}
	for _, g := range groups {
		if len(b)+1+len(g) > tellMax {
			all, b = append(all, b), []byte{kind}
		}
		b = append(append(b, byte(len(g))), g...)
	}
	return append(all, b)
}

func parseNames(b []byte) (names []string, err error) {
	for len(b) > 0 {
		n := int(b[0])
		if len(b) < 1+n {
			return names, fmt.Errorf("cut off: %w", errTold)
		}
		names = append(names, string(bytes.Clone(b[1:1+n])))
		b = b[1+n:]
	}
	return names, nil
}
