package sync

import (
	"encoding/binary"
	"net/netip"
)

// reader takes values from the front of b. Past the end it returns zeros and
// sets short, so that a parser needs one check at its end.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.short, r.b = true, nil
		return nil
	}
	t := r.b[:n]
	r.b = r.b[n:]
	return t
}

func (r *reader) u8() byte {
	if t := r.take(1); t != nil {
		return t[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if t := r.take(2); t != nil {
		return binary.BigEndian.Uint16(t)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if t := r.take(4); t != nil {
		return binary.BigEndian.Uint32(t)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if t := r.take(8); t != nil {
		return binary.BigEndian.Uint64(t)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.short, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) addr(v6 bool) netip.Addr {
	if v6 {
		if t := r.take(16); t != nil {
			return netip.AddrFrom16([16]byte(t))
		}
		return netip.IPv6Unspecified()
	}
	if t := r.take(4); t != nil {
		return netip.AddrFrom4([4]byte(t))
	}
	return netip.IPv4Unspecified()
}

// text reads a string with its length in one byte before it.
func (r *reader) text() string { return string(r.take(int(r.u8()))) }

func appendText(b []byte, s string) []byte {
	s = s[:min(len(s), 255)]
	return append(append(b, byte(len(s))), s...)
}
