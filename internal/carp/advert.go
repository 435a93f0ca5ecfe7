package carp

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// AdvertLen is the length of an advert without a trailer.
const AdvertLen = 36

const (
	carpVersion = 2
	carpType    = 1 // CARP_ADVERTISEMENT
	authLen     = 7 // 32-bit words of counter and digest
)

// What makes bytes no advert.
var (
	ErrLength  = errors.New("shorter than 36 bytes")
	ErrVersion = errors.New("not CARP version 2")
)

// Advert is what a master tells the others: struct carp_header of ip_carp.h.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------+-------+---------------+---------------+---------------+
//	|version| type  |     vhid      |    advskew    |  authlen = 7  |
//	+-------+-------+---------------+---------------+---------------+
//	|   demotion    |    advbase    |           checksum            |
//	+---------------+---------------+-------------------------------+
//	|                      counter (64 bit)                         |
//	|                                                               |
//	+---------------------------------------------------------------+
//	|                  HMAC-SHA1 digest (160 bit)                   |
//	|                              ...                              |
//	+---------------------------------------------------------------+
//
// All fields are big endian. The checksum is the plain Internet checksum over
// the 36 bytes, without a pseudo header, for IPv6, too. The demotion is
// OpenBSD's; the others send 0 there and ignore it.
type Advert struct {
	VHID     uint8
	AdvBase  uint8 // seconds
	AdvSkew  uint8 // 1/256 seconds
	Demotion uint8 // of the sender, 0 when it is healthy
	Counter  uint64
	Digest   [20]byte

	// Trailer is what follows the header; it shares the memory that was
	// decoded. Nobody's election looks at it.
	Trailer []byte
}

// Goodbye reports whether the advert is a master's last: advbase and advskew
// of 255 make every backup believe that it would time out anyway.
func (a *Advert) Goodbye() bool { return a.AdvBase == 255 && a.AdvSkew == 255 }

// rank orders adverts: the lower demotion is better, then the shorter interval.
func (a *Advert) rank() int {
	return int(a.Demotion)<<16 | int(a.AdvBase)<<8 | int(a.AdvSkew)
}

// AppendBinary implements encoding.BinaryAppender. It computes the checksum.
func (a *Advert) AppendBinary(b []byte) ([]byte, error) {
	at := len(b)
	b = append(b, carpVersion<<4|carpType, a.VHID, a.AdvSkew, authLen, a.Demotion, a.AdvBase, 0, 0)
	b = binary.BigEndian.AppendUint64(b, a.Counter)
	b = append(b, a.Digest[:]...)
	binary.BigEndian.PutUint16(b[at+6:], ^sum(0, b[at:]))
	return append(b, a.Trailer...), nil
}

// MarshalBinary implements encoding.BinaryMarshaler.
func (a *Advert) MarshalBinary() ([]byte, error) {
	return a.AppendBinary(make([]byte, 0, AdvertLen+len(a.Trailer)))
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler. It checks form only,
// and not the checksum: see ParseFrame. The type is not looked at, as in every
// ip_carp.c. Unlike there the authlen is, for VRRPv2 has the same first byte.
func (a *Advert) UnmarshalBinary(b []byte) error {
	if len(b) < AdvertLen {
		return fmt.Errorf("advert of %d bytes: %w", len(b), ErrLength)
	}
	if b[0]>>4 != carpVersion || b[3] != authLen {
		return fmt.Errorf("advert of version %d, authlen %d: %w", b[0]>>4, b[3], ErrVersion)
	}
	a.decode(b)
	return nil
}

// decode fills a from at least AdvertLen bytes.
func (a *Advert) decode(b []byte) {
	a.VHID, a.AdvSkew, a.Demotion, a.AdvBase = b[1], b[2], b[4], b[5]
	a.Counter = binary.BigEndian.Uint64(b[8:])
	a.Digest = [20]byte(b[16:])
	a.Trailer = nil
	if len(b) > AdvertLen {
		a.Trailer = b[AdvertLen:]
	}
}

// sum adds b to the one's complement sum s, as in RFC 1071. The checksum of
// data is its complement; data with its checksum in it sums up to 0xffff.
func sum(s uint16, b []byte) uint16 {
	n := uint64(s)
	for ; len(b) >= 4; b = b[4:] {
		n += uint64(binary.BigEndian.Uint32(b))
	}
	if len(b) >= 2 {
		n += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		n += uint64(b[0]) << 8
	}
	for n>>16 != 0 {
		n = n&0xffff + n>>16
	}
	return uint16(n)
}
