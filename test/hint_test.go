package test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/nstest"
)

// Frames as they come from a LAN where somebody has made a mistake: show says
// which, whatever else is wrong.
func TestHintOfRealFrames(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.b.start()
	p.b.waitState(15*time.Second, "MASTER", "lan")
	tap := newTap(t, p.sw, p.b.lanPort)
	lists := []string{"10.0.0.1", "fd00:1::1"}
	strange := func(from string, secret [32]byte) advert {
		v := carp.Advert{VHID: lanVHID, AdvBase: 1, AdvSkew: 50, Counter: 1 << 50}
		g := carp.NewGuard(carp.GuardConfig{
			VHID: lanVHID, Key: carp.NewKey(carp.DerivePassword(secret, lanVHID), lanVHID, []netip.Addr{shared4, shared6}, carp.OpenBSD),
			Keys: []*carp.TrailerKey{carp.NewTrailerKey(secret, "lan", lanVHID)}, Send: true, Node: 77, Epoch: 1,
		})
		return carp.AppendFrame(nil, carp.VirtualMAC(lanVHID), netip.MustParseAddr(from), g.Sign(nil, &v, 1))
	}
	// The first of them is the one that is shown, so the worst to find comes first.
	for _, c := range []struct {
		name, want string
		frame      advert
	}{
		{"another key", "10.0.0.81 (00:00:5e:00:01:02) signs with a key that we do not have: id", strange("10.0.0.81", [32]byte{9})},
		{"another password", "another password", signed("another", "10.0.0.82", carp.Advert{VHID: lanVHID, AdvBase: 1, AdvSkew: 9, Counter: 5}, lists...)},
		{"another owner of the vhid", "has another owner: 10.0.0.83 (00:00:5e:00:01:02) with advbase 3, here it is 1",
			signed("another", "10.0.0.83", carp.Advert{VHID: lanVHID, AdvBase: 3, AdvSkew: 9, Counter: 5}, "192.0.2.1")},
		{"VRRP with the same id", "VRRPv2 with the same id 2: 10.0.0.84",
			carp.AppendFrame(nil, carp.VirtualMAC(lanVHID), netip.MustParseAddr("10.0.0.84"), []byte{0x21, lanVHID, 100, 1, 0, 1, 0, 0, 10, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0})},
		{"other addresses", "the address lists differ: 10.0.0.85 has 10.0.0.7 as well",
			signed(derived(lanVHID), "10.0.0.85", carp.Advert{VHID: lanVHID, AdvBase: 1, AdvSkew: 9, Counter: 5}, append(lists, "10.0.0.7")...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got string
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("the last hint: %s", got)
				}
			})
			nstest.Eventually(t, 20*time.Second, "a hint with "+c.want, func() bool {
				tap.send(c.frame) // one sample a second of each reason
				got = p.b.group("lan").Hint
				return strings.Contains(got, c.want)
			})
			out, err := p.b.xcarp("show", "lan")
			if err != nil || !strings.Contains(out, "hint") {
				t.Errorf("show has no hint: %v\n%s", err, out)
			}
		})
	}
	if s := p.b.group("lan").State; s != "MASTER" {
		t.Errorf("it is %s after it, want MASTER", s)
	}
}
