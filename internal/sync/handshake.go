package sync

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/flynn/noise"
)

// protocolVersion is in every handshake; nodes of different versions refuse
// each other.
const protocolVersion = 1

// Handshakes are retried with a growing pause, by the initiator's timer or the
// responder's hint.
const (
	handshakeMin = 100 * time.Millisecond
	handshakeMax = 500 * time.Millisecond
)

var cipherSuite = noise.NewCipherSuite(noise.DH25519, noise.CipherAESGCM, noise.HashBLAKE2s)

var (
	errKey     = errors.New("other key")
	errName    = errors.New("unexpected node name")
	errVersion = errors.New("other protocol version")
)

// greeting is the payload of both handshake messages.
//
//	 0         1         5      13        21
//	+---------+---------+------+---------+------+-----+
//	| version | session | boot | counter | from | to  |
//	+---------+---------+------+---------+------+-----+
//
// Names are preceded by their length in one byte.
type greeting struct {
	session  uint32 // under which the sender wants to be addressed
	boot     uint64 // random per Mirror
	counter  uint64 // increases with every handshake of a boot: no replay of an old one
	from, to string // node names
}

func (g *greeting) marshal() []byte {
	b := []byte{protocolVersion}
	b = binary.BigEndian.AppendUint32(b, g.session)
	b = binary.BigEndian.AppendUint64(b, g.boot)
	b = binary.BigEndian.AppendUint64(b, g.counter)
	return appendText(appendText(b, g.from), g.to)
}

// parse checks the form and that the greeting is meant for us.
func (g *greeting) parse(b []byte, from, to string) error {
	r := reader{b: b}
	if v := r.u8(); v != protocolVersion {
		return fmt.Errorf("version %d: %w", v, errVersion)
	}
	*g = greeting{session: r.u32(), boot: r.u64(), counter: r.u64(), from: r.text(), to: r.text()}
	if r.short || len(r.b) != 0 {
		return fmt.Errorf("greeting of %d bytes: %w", len(b), errFrame)
	}
	if g.from != from || g.to != to {
		return fmt.Errorf("from %q to %q: %w", g.from, g.to, errName)
	}
	return nil
}

func newHandshake(psk *[32]byte, initiator bool) (*noise.HandshakeState, error) {
	hs, err := noise.NewHandshakeState(noise.Config{
		CipherSuite:           cipherSuite,
		Random:                rand.Reader,
		Pattern:               noise.HandshakeNN,
		Initiator:             initiator,
		Prologue:              []byte("xcarp sync"),
		PresharedKey:          psk[:],
		PresharedKeyPlacement: 0,
	})
	if err != nil {
		return nil, fmt.Errorf("set up handshake: %w", err)
	}
	return hs, nil
}

// initiation is a handshake that we have begun.
type initiation struct {
	state *noise.HandshakeState
	local uint32
}

// initiate returns the first frame of a handshake with the peer.
func initiate(psk *[32]byte, g greeting) (*initiation, []byte, error) {
	hs, err := newHandshake(psk, true)
	if err != nil {
		return nil, nil, err
	}
	b := binary.BigEndian.AppendUint32([]byte{frameInit}, g.session)
	b, _, _, err = hs.WriteMessage(b, g.marshal())
	if err != nil {
		return nil, nil, fmt.Errorf("write handshake to %q: %w", g.to, err)
	}
	return &initiation{hs, g.session}, b, nil
}

// finish reads the answer (without its 5 bytes of header).
func (i *initiation) finish(msg []byte, from, to string) (*Session, error) {
	payload, out, in, err := i.state.ReadMessage(nil, msg)
	if err != nil {
		return nil, fmt.Errorf("read handshake of %q: %w", from, errKey)
	}
	var g greeting
	if err := g.parse(payload, from, to); err != nil {
		return nil, err
	}
	return newSession(i.local, g, out, in), nil
}

// respondAny answers with whichever key the first message was sealed.
func respondAny(keys [][32]byte, msg []byte, answer greeting) (s *Session, g greeting, frame []byte, err error) {
	for i := range keys {
		if s, g, frame, err = respond(&keys[i], msg, answer); !errors.Is(err, errKey) {
			break
		}
	}
	return s, g, frame, err
}

// respond reads the first message (without its header) and returns the session
// and the answering frame. answer.session is the id we choose.
func respond(psk *[32]byte, msg []byte, answer greeting) (*Session, greeting, []byte, error) {
	var g greeting
	hs, err := newHandshake(psk, false)
	if err != nil {
		return nil, g, nil, err
	}
	payload, _, _, err := hs.ReadMessage(nil, msg)
	if err != nil {
		return nil, g, nil, fmt.Errorf("read handshake of %q: %w", answer.to, errKey)
	}
	if err := g.parse(payload, answer.to, answer.from); err != nil {
		return nil, g, nil, err
	}
	b := binary.BigEndian.AppendUint32([]byte{frameResp}, g.session)
	b, in, out, err := hs.WriteMessage(b, answer.marshal())
	if err != nil {
		return nil, g, nil, fmt.Errorf("write handshake to %q: %w", answer.to, err)
	}
	return newSession(answer.session, g, out, in), g, b, nil
}
