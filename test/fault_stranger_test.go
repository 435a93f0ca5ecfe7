package test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/nstest"
)

// An own advert that comes back says nothing about others.
func TestFault10_OwnAdvertsComeBack(t *testing.T) {
	t.Parallel()
	a := attack(t)
	spoofed := a.v4.edit(func(ip, carp []byte) { badDigest(ip, carp); carp[2], carp[5] = 0, 0 })
	w := newWatch(t, a.a)
	to := a.taps[a.a]
	const times = 10
	for range times {
		to.send(a.v4)
		to.send(a.v6)
		to.send(spoofed) // from our own addresses, IP and MAC
	}
	w.refused(a.a, "lan", map[string]int{"loop": 2 * times, "badauth": times})
	w.unmoved(2)
	if n := strings.Count(a.a.log.String(), "our own advert came back"); n != 1 {
		t.Errorf("%d alarms of a loop in the log, want one", n)
	}
}

// What is meant for another segment, family or group is not for this one.
func TestFault11_OtherInterface(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, n := range []*node{p.a, p.b} {
		n.reconfigure(func(s string) string {
			return strings.Replace(s, "groups:\n", "groups:\n  four: {vhid: 9, carpdev: lan0, addresses: [10.0.0.9/24]}\n", 1)
		})
	}
	p.calm()
	a := p.attacker(t)
	wan := newTap(t, p.sw, p.b.wanPort)
	v4, v6 := newTap(t, p.sw, p.a.wanPort).capture(wanVHID)
	w := newWatch(t, a.a, a.b)

	a.taps[a.b].send(v4) // of the WAN's vhid
	a.taps[a.b].send(v6)
	wan.send(a.v4) // of the LAN's
	wan.send(a.v6)
	tag := func(vid uint16) advert {
		f := append(advert{}, a.v4[:12]...)
		f = append(f, 0x81, 0)
		f = binary.BigEndian.AppendUint16(f, vid)
		return append(f, a.v4[12:]...)
	}
	a.taps[a.b].send(tag(10))
	a.taps[a.b].send(tag(0))

	// To us alone, and from nobody who knows the password.
	own := mac(t, a.b.ns, "lan0")
	a.taps[a.b].send(a.v4.edit(func(ip, carp []byte) {
		badDigest(ip, carp)
		copy(ip[16:], []byte{10, 0, 0, 3})
	}).to(own))

	// From somebody who does, but in a family that the group has no address of.
	a.taps[a.b].send(signed(derived(9), "fe80::99", carp.Advert{VHID: 9, AdvBase: 1, Counter: 1}, "10.0.0.9"))

	// A priority tag (VLAN 0) is no VLAN: that advert is heard, and was before.
	w.refused(a.b, "lan", map[string]int{"badauth": 1, "replay": 1})
	w.refused(a.b, "wan", map[string]int{})
	w.refused(a.b, "four", map[string]int{"badif": 1})
	for dev, want := range map[string]map[string]int{
		"lan0": {"advert_vhid": 2},
		"wan0": {"advert_vhid": 2},
	} {
		counted(t, a.b.name+" "+dev, func() map[string]int { return only(w.strangers(a.b, dev), want) }, want)
	}
	// Where the driver leaves tags in the frame, XDP and tc both see them.
	if n := w.strangers(a.b, "lan0")["vlan"]; n < 2 {
		t.Errorf("%d frames counted as of a VLAN, want 2 at least", n)
	}
	w.unmoved(2)
}

// to returns the frame with another destination.
func (f advert) to(mac []byte) advert {
	f = append(advert{}, f...)
	copy(f, mac)
	return f
}

// derived is the password that the tests' key gives to groups without one.
func derived(vhid uint8) string {
	return carp.DerivePassword(testSecret, vhid)
}

// signed is an advert of a member without a trailer.
func signed(pass, from string, v carp.Advert, addrs ...string) advert {
	var shared []netip.Addr
	for _, a := range addrs {
		shared = append(shared, netip.MustParseAddr(a))
	}
	carp.NewKey(pass, v.VHID, shared, carp.OpenBSD).Sign(&v)
	b, _ := v.MarshalBinary() // there is no error
	return carp.AppendFrame(nil, carp.VirtualMAC(v.VHID), netip.MustParseAddr(from), b)
}

// VRRP has CARP's protocol number, and in version 2 even its first byte.
func TestFault12_VRRPWithOurID(t *testing.T) {
	t.Parallel()
	a := attack(t)
	vrrp := func(version byte, addrs int) advert {
		b := []byte{version<<4 | 1, lanVHID, 100, byte(addrs), 0, 1, 0, 0} // priority 100, every second
		for i := range addrs {
			b = append(b, 10, 0, 0, byte(200+i))
		}
		var pseudo []byte
		if version == 2 {
			b = append(b, make([]byte, 8)...) // authentication data
		} else {
			b[4], b[5] = 0, 100 // centiseconds
			pseudo = append(append(pseudo, a.v4.header()[12:20]...), 0, 112, 0, byte(len(b)))
		}
		binary.BigEndian.PutUint16(b[6:], ^onesSum(append(pseudo, b...)))
		return carp.AppendFrame(nil, carp.VirtualMAC(lanVHID), netip.MustParseAddr("10.0.0.50"), b)
	}
	w := newWatch(t, a.a, a.b)
	const times = 10
	for range times {
		a.tell(vrrp(2, 1), vrrp(2, 2), vrrp(3, 1), vrrp(3, 3))
	}
	// Seven addresses make it look like CARP to the last bit but the digest.
	a.tell(vrrp(2, 7))
	strange := map[string]int{"advert_version": 4 * times}
	for _, n := range []*node{a.a, a.b} {
		counted(t, n.name+" lan0", func() map[string]int { return only(w.strangers(n, "lan0"), strange) }, strange)
		w.refused(n, "lan", map[string]int{"badver": 4 * times, "badauth": 1})
		if log := n.log.String(); strings.Count(log, "VRRP router") != 1 {
			t.Errorf("%s: %d warnings of VRRP, want one", n.name, strings.Count(log, "VRRP router"))
		}
	}
	w.unmoved(2)
}

// stranger starts a ucarp on the client with our vhid.
func (p *pair) stranger(t *testing.T, addr, pass string) *process {
	t.Helper()
	u := startIn(t, p.client.NS, "ucarp", "--interface=eth0", "--srcip=10.0.0.100", "--addr="+addr,
		fmt.Sprintf("--vhid=%d", lanVHID), "--pass="+pass, "--advbase=1", "--advskew=0", "--preempt",
		"--upscript=/bin/true", "--downscript=/bin/true")
	u.waitLog(t, 15*time.Second, ucarpMaster, 1)
	return u
}

// Two clusters with one vhid are an operator's mistake, and no reason to be without
// a master.
func TestFault13_OtherPassword(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.calm()
	w := newWatch(t, p.a, p.b)
	u := p.stranger(t, "10.0.0.9", "another")
	for _, n := range []*node{p.a, p.b} {
		nstest.Eventually(t, 15*time.Second, "three adverts of the stranger refused", func() bool { return w.dropped(n, "lan")["badauth"] >= 3 })
		if n := strings.Count(n.log.String(), "another password"); n != 1 {
			t.Errorf("%d warnings of another password, want one", n)
		}
		figure(t, n.name+" lan", "%v", w.dropped(n, "lan"))
	}
	if strings.Contains(u.log.String(), ucarpBackup+"\n") && strings.Count(u.log.String(), ucarpMaster) > 1 {
		t.Errorf("the stranger changed its state:\n%s", u.log)
	}
	figure(t, "stranger", "MASTER of its own cluster")
	w.unmoved(3)
}

// The same vhid on two segments is two groups.
func TestFault14_SameVHIDOnTwoInterfaces(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, n := range []*node{p.a, p.b} {
		n.reconfigure(func(s string) string {
			s = strings.Replace(withoutSync(s), "vhid: 1,", fmt.Sprintf("vhid: %d,", lanVHID), 1)
			return strings.Replace(s, "bundle: [wan, lan]\n", "", 1)
		})
	}
	p.a.start()
	p.b.start()
	p.a.waitState(15*time.Second, "MASTER", "lan", "wan")
	p.b.waitState(15*time.Second, "BACKUP", "lan", "wan")
	a := p.attacker(t)
	w := newWatch(t, p.a, p.b)
	const times = 10
	for range times {
		a.tell(a.v4.edit(badDigest))
	}
	a.both(w, map[string]int{"badauth": times})
	for _, n := range []*node{p.a, p.b} {
		w.refused(n, "wan", map[string]int{})
	}
	w.unmoved(1)

	p.sw.Exec("bridge", "link", "set", "dev", p.a.lanPort, "state", "0")
	p.b.waitState(12*time.Second, "MASTER", "lan")
	for _, n := range []*node{p.a, p.b} {
		want := "MASTER"
		if n == p.b {
			want = "BACKUP"
		}
		if g := n.group("wan"); g.State != want {
			t.Errorf("wan of %s is %s (%s), want %s: only the LAN was cut", n.name, g.State, g.Reason, want)
		}
	}
	if got := p.b.log.transitions("wan"); strings.Join(got, " ") != "BACKUP" {
		t.Errorf("the WAN of the backup went through %v, want BACKUP alone", got)
	}
	figure(t, "lan cut off on fw-a", "lan moved, wan did not")
}

// Members with other address lists do not believe each other, and it is said why.
func TestFault15_OtherAddressList(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	ucarpConfig(p.a, 1, 0)
	ucarpConfig(p.b, 1, 100)
	p.a.start()
	p.b.start()
	p.a.waitState(15*time.Second, "MASTER", "lan")
	p.b.waitState(15*time.Second, "BACKUP", "lan")
	w := newWatch(t, p.a, p.b)
	p.stranger(t, "10.0.0.8", "carpdiem")
	for _, n := range []*node{p.a, p.b} {
		nstest.Eventually(t, 15*time.Second, "three adverts of the stranger refused", func() bool { return w.dropped(n, "lan")["badauth"] >= 3 })
		if n := strings.Count(n.log.String(), "another list of addresses"); n != 1 {
			t.Errorf("%d hints at another list of addresses, want one", n)
		}
		figure(t, n.name+" lan", "%v", w.dropped(n, "lan"))
	}
	w.unmoved(2)
}
