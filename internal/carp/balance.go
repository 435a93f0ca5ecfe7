package carp

import (
	"crypto/sha1"
	"encoding/binary"
)

// BalanceKey returns where the hash of neighbours begins by which vhids share an
// address: its words b and c before a MAC is mixed in, as carp_hash of ip_carp.c
// computes them. The same password gives the same key on every little-endian
// machine.
func BalanceKey(password string) [2]uint32 {
	var key [PassLen + 1]byte
	copy(key[:PassLen], password)
	var pad [sha1.BlockSize]byte
	copy(pad[:], key[:])
	for i := range pad {
		pad[i] ^= 0x36
	}
	// The inner hash of the digest before the vhid: carp_hmac_prepare.
	sum := sha1.Sum(append(pad[:], carpVersion, carpType))
	w := func(i int) uint32 { return binary.LittleEndian.Uint32(sum[4*i:]) }
	return [2]uint32{w(0) ^ w(1), (w(2) ^ w(3)) + binary.LittleEndian.Uint32(key[:])}
}
