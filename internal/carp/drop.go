package carp

import "fmt"

// Drop says why a received frame was not believed. A Drop is counted, never
// an error.
type Drop uint8

// The reasons, in the order in which they are looked for. Those that BSD's
// `netstat -s -p carp` has carry the names of struct carpstats.
const (
	Accepted    Drop = iota
	DropNotCARP      // notcarp: another protocol, no fault of the sender
	DropHeader       // hdrops: the frame ends before its headers do, or a fragment, or a bad IP header
	DropTTL          // badttl: TTL or hop limit is not 255, so it crossed a router
	DropLength       // badlen: fewer than 36 bytes after the IP header
	DropSum          // badsum: the checksum over the 36 bytes is wrong
	DropVersion      // badver: another version, type or authlen; VRRP most likely
	DropVHID         // badvhid: not one of ours
	DropLoop         // loop: our own advert came back
	DropAuth         // badauth: password or address list differ
	DropReplay       // replay: an advert that is not newer than the last one, or somebody's with other values in it
	DropTrailer      // badtrailer: not signed by our key, where it must be
	DropPinned       // pinned: a plain peer that claims to be better than it was
	DropFamily       // badif: of a family that the group has no address of
	drops
)

// Drops is the number of Drop values: the length of an array of counters.
const Drops = int(drops)

var dropNames = [Drops]string{
	"accepted", "notcarp", "hdrops", "badttl", "badlen", "badsum", "badver", "badvhid", "loop", "badauth",
	"replay", "badtrailer", "pinned", "badif",
}

// String returns the name of the reason's counter.
func (d Drop) String() string {
	if d < drops {
		return dropNames[d]
	}
	return fmt.Sprintf("Drop(%d)", uint8(d))
}
