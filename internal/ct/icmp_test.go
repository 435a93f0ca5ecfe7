package ct

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestTheAnswerToAnICMPMessage(t *testing.T) {
	for _, c := range []struct {
		proto              uint8
		typ, code, inverse uint16
	}{
		{unix.IPPROTO_ICMP, 8, 0, 0},
		{unix.IPPROTO_ICMP, 0, 0, 8},
		{unix.IPPROTO_ICMP, 13, 0, 14},
		{unix.IPPROTO_ICMP, 18, 3, 17},
		{unix.IPPROTO_ICMP, 3, 1, 3}, // unreachable: no answer
		{unix.IPPROTO_ICMPV6, 128, 0, 129},
		{unix.IPPROTO_ICMPV6, 140, 2, 139},
		{unix.IPPROTO_ICMPV6, 8, 0, 8},
	} {
		if got, want := inverseICMP(c.proto, c.typ<<8|c.code), c.inverse<<8|c.code; got != want {
			t.Errorf("protocol %d type %d code %d: got %#x, want %#x", c.proto, c.typ, c.code, got, want)
		}
	}
}
