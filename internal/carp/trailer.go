package carp

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
)

// TrailerLen is the length of what follows the 36 bytes of an advert of ours.
const TrailerLen = 48

const (
	trailerMagic   = 0x5843 // "XC"
	trailerVersion = 1
	trailerSigned  = 30 // bytes of the trailer under its MAC
	trailerMAC     = 16 // bytes of it that are sent
)

// Trailer is what the digest of CARP leaves open: it covers all 36 bytes and
// says who speaks, since when, and as master of which term. Peers that do not
// know it ignore what comes after the header, as every ip_carp.c does.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------------------------------+---------------+---------------+
//	|          magic "XC"           |  version = 1  |    key id     |
//	+-------------------------------+---------------+---------------+
//	|                        node id (64 bit)                       |
//	|                                                               |
//	+---------------------------------------------------------------+
//	|                        epoch (64 bit)                         |
//	|                                                               |
//	+---------------------------------------------------------------+
//	|                         term (64 bit)                         |
//	|                                                               |
//	+-------------------------------+-------------------------------+
//	|        flags, ignored         |                               |
//	+-------------------------------+                               +
//	|          HMAC-SHA256 over the 36 bytes and these 30,          |
//	|                        first 128 bit                          |
//	+                               +-------------------------------+
//	|                               |            balance            |
//	+-------------------------------+-------------------------------+
//
// All fields are big endian. The balance makes the one's complement sum of the
// trailer 0xffff: so the checksum of the header is right over the 36 bytes and
// over the whole payload, whichever a receiver looks at. It is not signed.
//
// The sequence number is the counter of the header. Adverts of a node are
// ordered by epoch, then by counter; see Mark.
type Trailer struct {
	KeyID uint8
	Node  uint64 // a random number, as long as the sender keeps it
	Epoch uint64 // raised whenever the sender starts anew
	Term  uint64 // of the sender's mastership; see Machine.Term
}

// FamilyStep is between the counters of the two frames of an advert that goes out
// in both families.
const FamilyStep = 1 << 15

// tag is the part of a node's id that all its counters carry below FamilyStep. It
// tells a stripped advert of the node from one of a plain peer that counts on
// from where the node was: FreeBSD, NetBSD and ucarp do.
func tag(node uint64) uint64 { return node & (FamilyStep - 1) }

// untagged is what stands for a node's id in the counters of its adverts without
// a trailer: peers that have heard it sign would take them for stripped ones.
func untagged(node uint64) uint64 { return ^node }

// TrailerKey makes and checks the MAC of trailers, in memory of its own. It is
// not for two goroutines at once.
type TrailerKey struct {
	id    uint8
	key   [32]byte
	inner [sha256.BlockSize + AdvertLen + trailerSigned]byte
	outer [sha256.BlockSize + sha256.Size]byte
}

// NewTrailerKey derives the key of one group from the secret that all nodes
// share:
//
//	HKDF-SHA256(secret, no salt, info = "xcarp trailer", 0, group, 0, vhid as one byte)
//
// The name is in it so that an advert of one vhid is worth nothing on another
// carpdev that has the same vhid.
func NewTrailerKey(secret [32]byte, group string, vhid uint8) *TrailerKey {
	b := derive(secret, "xcarp trailer\x00"+group+"\x00"+string([]byte{vhid}), 32)
	k := &TrailerKey{id: KeyID(secret), key: [32]byte(b)}
	for i := range sha256.BlockSize {
		k.inner[i], k.outer[i] = 0x36, 0x5c
	}
	for i, x := range k.key {
		k.inner[i] ^= x
		k.outer[i] ^= x
	}
	return k
}

// KeyID returns the number by which a receiver finds the secret among several:
// the first byte of HKDF-SHA256(secret, no salt, info = "xcarp key id").
func KeyID(secret [32]byte) uint8 { return derive(secret, "xcarp key id", 1)[0] }

// ID returns the KeyID of the secret.
func (k *TrailerKey) ID() uint8 { return k.id }

// Bytes returns the key itself, for a dataplane that checks trailers, too.
func (k *TrailerKey) Bytes() [32]byte { return k.key }

func (k *TrailerKey) mac(header, signed []byte) [trailerMAC]byte {
	copy(k.inner[sha256.BlockSize:], header)
	copy(k.inner[sha256.BlockSize+AdvertLen:], signed)
	in := sha256.Sum256(k.inner[:])
	copy(k.outer[sha256.BlockSize:], in[:])
	out := sha256.Sum256(k.outer[:])
	return [trailerMAC]byte(out[:])
}

// append adds the trailer to b, whose last AdvertLen bytes are the header.
func (k *TrailerKey) append(b []byte, t Trailer) []byte {
	header := b[len(b)-AdvertLen:]
	at := len(b)
	b = binary.BigEndian.AppendUint16(b, trailerMagic)
	b = append(b, trailerVersion, k.id)
	b = binary.BigEndian.AppendUint64(b, t.Node)
	b = binary.BigEndian.AppendUint64(b, t.Epoch)
	b = binary.BigEndian.AppendUint64(b, t.Term)
	b = append(b, 0, 0)
	mac := k.mac(header, b[at:])
	b = append(b, mac[:]...)
	return binary.BigEndian.AppendUint16(b, ^sum(0, b[at:]))
}

// verify reports whether the key signed the trailer that follows the header.
func (k *TrailerKey) verify(header, trailer []byte) bool {
	mac := k.mac(header, trailer[:trailerSigned])
	return subtle.ConstantTimeCompare(mac[:], trailer[trailerSigned:trailerSigned+trailerMAC]) == 1
}

// parseTrailer reads a trailer of this version. Bytes after it are of a later
// one. It checks form only.
func parseTrailer(b []byte) (t Trailer, ok bool) {
	if len(b) < TrailerLen || binary.BigEndian.Uint16(b) != trailerMagic || b[2] != trailerVersion {
		return t, false
	}
	return Trailer{
		KeyID: b[3],
		Node:  binary.BigEndian.Uint64(b[4:]),
		Epoch: binary.BigEndian.Uint64(b[12:]),
		Term:  binary.BigEndian.Uint64(b[20:]),
	}, true
}

// ParseTrailer is the trailer that follows the header of an advert, as far as its
// form goes: nothing says that it is true.
func ParseTrailer(b []byte) (Trailer, bool) { return parseTrailer(b) }

func derive(secret [32]byte, info string, n int) []byte {
	b, err := hkdf.Key(sha256.New, secret[:], nil, info, n)
	if err != nil {
		panic(err) // only for more bytes than HKDF can give
	}
	return b
}
