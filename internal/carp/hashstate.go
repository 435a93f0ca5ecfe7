package carp

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"
)

// DigestState is what the dataplane needs to check a CARP digest: the two
// halves of HMAC-SHA1, hashed as far as they are the same for every advert. It
// is enough to sign adverts, and less than the password.
type DigestState struct {
	Inner, Outer [5]uint32

	// Tail is what is still to be hashed into Inner, with SHA-1's padding: the
	// rest of the addresses, 8 bytes for the counter at At, and one or two
	// Blocks in all.
	Tail   [2 * sha1.BlockSize]byte
	At     int
	Blocks int
}

// DigestStates returns the states of all that Verify accepts: one, or two where
// the variants differ.
func (k *Key) DigestStates() []DigestState {
	var all []DigestState
	for _, h := range k.accept {
		all = append(all, h.state())
	}
	return all
}

func (h *hmacSHA1) state() DigestState {
	n := len(h.inner) - 8 // without the counter
	whole := n / sha1.BlockSize * sha1.BlockSize
	s := DigestState{At: n - whole, Blocks: 1}
	copy(s.Inner[:], midstate(sha1.New(), h.inner[:whole]))
	copy(s.Outer[:], midstate(sha1.New(), h.outer[:sha1.BlockSize]))
	copy(s.Tail[:], h.inner[whole:n])
	if s.At+8+1+8 > sha1.BlockSize {
		s.Blocks = 2
	}
	s.Tail[s.At+8] = 0x80
	binary.BigEndian.PutUint64(s.Tail[s.Blocks*sha1.BlockSize-8:], uint64(len(h.inner))*8)
	return s
}

// TrailerState is the same for trailers: the two halves of HMAC-SHA256 after the
// pads.
type TrailerState struct{ Inner, Outer [8]uint32 }

// State returns the states of the key.
func (k *TrailerKey) State() (s TrailerState) {
	copy(s.Inner[:], midstate(sha256.New(), k.inner[:sha256.BlockSize]))
	copy(s.Outer[:], midstate(sha256.New(), k.outer[:sha256.BlockSize]))
	return s
}

// midstate returns the words of a hash after whole blocks. The standard library
// gives them in its binary form: a magic of four bytes, then the words.
func midstate(h hash.Hash, blocks []byte) []uint32 {
	h.Write(blocks)
	b, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic(err) // both hashes of the standard library can
	}
	w := make([]uint32, h.Size()/4)
	for i := range w {
		w[i] = binary.BigEndian.Uint32(b[4+4*i:])
	}
	return w
}
