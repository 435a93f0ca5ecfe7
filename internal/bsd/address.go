package bsd

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// parseAddress reads A or A/N. An address with a wrong length is an error, any
// other word is no address.
func parseAddress(w word) (a Address, ok bool, err error) {
	ip, length, slash := strings.Cut(w.text, "/")
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return a, false, nil
	}
	if addr.Zone() != "" {
		return a, false, fail(w, fmt.Sprintf("address %s has a zone", w.text), "leave it out: the carpdev says which link")
	}
	a = Address{Prefix: netip.PrefixFrom(addr, -1), Addr: addr, Span: w.Span}
	if !slash {
		return a, true, nil
	}
	n, err := strconv.Atoi(length)
	if err != nil || n < 1 || n > addr.BitLen() {
		return a, false, fail(w, fmt.Sprintf("prefix length %q of address %s is wrong", length, addr),
			fmt.Sprintf("write 1 to %d", addr.BitLen()))
	}
	a.Prefix = netip.PrefixFrom(addr, n)
	return a, true, nil
}

// mask reads what may follow an address: its mask, and a broadcast address.
func (p *parser) mask(a Address) (Address, error) {
	var err error
	w, ok := p.peek()
	switch {
	case !ok:
		return a, nil
	case w.text == "netmask" || w.text == "prefixlen":
		p.at++
		v, ok := p.next()
		if !ok {
			return a, fail(w, w.text+" has no value", "write "+map[string]string{"netmask": "netmask 255.255.255.0", "prefixlen": "prefixlen 64"}[w.text])
		}
		n := 0
		if w.text == "netmask" {
			n, err = netmask(a.Addr, v)
		} else {
			n, err = prefixLen(a.Addr, v)
		}
		if err != nil {
			return a, err
		}
		a.Prefix = netip.PrefixFrom(a.Addr, n)
	case a.Bits() < 0 && a.Addr.Is4() && isDotted(w.text):
		// Behind an address a bare address is its mask, whatever it looks like.
		n, err := netmask(a.Addr, w)
		if err != nil {
			return a, err
		}
		p.at++
		a.Prefix = netip.PrefixFrom(a.Addr, n)
		if next, ok := p.peek(); ok && (next.text == "NONE" || isDotted(next.text)) {
			p.at++ // the broadcast address, which follows from the mask
		}
	}
	return a, nil
}

func isDotted(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is4()
}

// netmask reads 255.255.255.0 or 0xffffff00.
func netmask(of netip.Addr, w word) (int, error) {
	const fix = "write one such as 255.255.255.0 or 0xffffff00"
	if !of.Is4() {
		return 0, fail(w, fmt.Sprintf("netmask for the IPv6 address %s", of), "write prefixlen 64")
	}
	var m uint32
	if hex, ok := strings.CutPrefix(w.text, "0x"); ok {
		n, err := strconv.ParseUint(hex, 16, 32)
		if err != nil {
			return 0, fail(w, fmt.Sprintf("netmask cannot be %q", w.text), fix)
		}
		m = uint32(n)
	} else {
		a, err := netip.ParseAddr(w.text)
		if err != nil || !a.Is4() {
			return 0, fail(w, fmt.Sprintf("netmask cannot be %q", w.text), fix)
		}
		b := a.As4()
		m = uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	}
	n := bits.LeadingZeros32(^m)
	if n == 0 || n < 32 && m<<n != 0 {
		return 0, fail(w, fmt.Sprintf("%s is not the mask of a subnet", w.text), fix)
	}
	return n, nil
}

func prefixLen(of netip.Addr, w word) (int, error) {
	n, err := strconv.Atoi(w.text)
	if err != nil || n < 1 || n > of.BitLen() {
		return 0, fail(w, fmt.Sprintf("prefixlen of %s cannot be %q", of, w.text), fmt.Sprintf("write 1 to %d", of.BitLen()))
	}
	return n, nil
}

// noMask complains of an address that does not say which subnet it is in. The BSDs
// would guess the class of long ago, and the other member perhaps another mask.
func noMask(a Address) error {
	fix := fmt.Sprintf("add netmask 255.255.255.0, or write %s/24", a.Addr)
	if a.Addr.Is6() {
		fix = fmt.Sprintf("add prefixlen 64, or write %s/64", a.Addr)
	}
	return &Error{a.Span, fmt.Sprintf("address %s has no mask", a.Addr), fix}
}
