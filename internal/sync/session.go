package sync

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"

	"github.com/flynn/noise"
)

// Session is one established Noise session with a peer. seal and open may be
// used by one goroutine each.
type Session struct {
	local, remote uint32 // ids: frames to us carry local
	boot          uint64 // the peer's

	out, in           cipher.AEAD
	outNonce, inNonce [12]byte // so that none is allocated per frame

	sent    uint64 // last sequence number given out
	top     uint64 // highest sequence number accepted
	applied ack    // data frames whose records are in the table
}

// newSession takes over the keys of a finished handshake. The ciphers are those
// of Noise, with the nonce set by the sequence number (Noise, section 11.4:
// out-of-order transport messages).
func newSession(local uint32, peer greeting, out, in *noise.CipherState) *Session {
	return &Session{local: local, remote: peer.session, boot: peer.boot, out: aead(out), in: aead(in)}
}

func aead(s *noise.CipherState) cipher.AEAD {
	k := s.UnsafeKey()
	c, err := aes.NewCipher(k[:])
	if err != nil {
		panic(err) // only for a wrong key length
	}
	a, err := cipher.NewGCM(c)
	if err != nil {
		panic(err)
	}
	return a
}

// next gives out a sequence number, for one seal. Its first is 1.
func (s *Session) next() uint64 {
	s.sent++
	return s.sent
}

// seal appends the frame that holds the plaintext.
func (s *Session) seal(b []byte, seq uint64, plain []byte) []byte {
	at := len(b)
	b = append(b, frameData)
	b = binary.BigEndian.AppendUint32(b, s.remote)
	b = binary.BigEndian.AppendUint64(b, seq)
	binary.BigEndian.PutUint64(s.outNonce[4:], seq)
	return s.out.Seal(b, s.outNonce[:], plain, b[at:])
}

// open appends the plaintext of the frame to b and returns its sequence number.
func (s *Session) open(b, frame []byte) ([]byte, uint64, error) {
	if len(frame) < headerLen+tagLen+1 {
		return b, 0, fmt.Errorf("data of %d bytes: %w", len(frame), errFrame)
	}
	seq := binary.BigEndian.Uint64(frame[5:])
	copy(s.inNonce[4:], frame[5:headerLen])
	plain, err := s.in.Open(b, s.inNonce[:], frame[headerLen:], frame[:headerLen])
	if err != nil {
		return b, 0, fmt.Errorf("open frame %d: %w", seq, errKey)
	}
	return plain, seq, nil
}
