package daemon

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/loader"
)

func TestHintNamesTheCause(t *testing.T) {
	prefixes := []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("10.0.0.5/24"), netip.MustParsePrefix("2001:db8::1/64")}
	own := []netip.Addr{prefixes[0].Addr(), prefixes[1].Addr(), prefixes[2].Addr()}
	peer, stranger := netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("10.0.0.66")
	now := carp.BootTime(time.Hour)
	signed := func(password string, addrs []netip.Addr, change ...func(*carp.Advert)) []byte {
		a := carp.Advert{VHID: 7, AdvBase: 1, AdvSkew: 100, Counter: 99}
		carp.NewKey(password, 7, addrs, carp.OpenBSD).Sign(&a)
		for _, c := range change {
			c(&a)
		}
		b, err := a.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	trailed := func(advert []byte, key byte) []byte {
		return append(append(advert, 'X', 'C', 1, key), make([]byte, carp.TrailerLen-4)...)
	}
	with := func(a string) []netip.Addr { return append(own[:3:3], netip.MustParseAddr(a)) }
	for _, c := range []struct {
		name     string
		why      string
		from     netip.Addr
		data     []byte
		believed bool // the peer is heard and believed
		want     string
	}{
		{"an address less", "badauth", peer, signed("secret", own[1:]), false, "10.0.0.3 lacks 10.0.0.1"},
		{"an IPv6 address less", "badauth", peer, signed("secret", own[:2]), false, "10.0.0.3 lacks 2001:db8::1"},
		{"an address more", "badauth", peer, signed("secret", with("10.0.0.200")), false, "10.0.0.3 has 10.0.0.200 as well"},
		{"an IPv6 address more", "badauth", peer, signed("secret", with("2001:db8::fe")), false, "10.0.0.3 has 2001:db8::fe as well"},
		{"an address of another group more", "badauth", peer, signed("secret", with("192.0.2.77")), false, "10.0.0.3 has 192.0.2.77 as well"},
		{"no addresses", "badauth", peer, signed("secret", nil), false, "10.0.0.3 has none"},
		{"another password", "badauth", peer, signed("other", own), false, "another password"},
		{"another cluster", "badauth", stranger, signed("other", nil, func(a *carp.Advert) { a.AdvBase = 3 }), false, "another owner: 10.0.0.66 with advbase 3, here it is 1"},
		{"a stranger beside the peer", "badauth", stranger, signed("other", own), true, "has another owner, or a member another password"},
		{"as the peer, whose own are right", "badauth", peer, signed("other", own), true, "somebody forges adverts as 10.0.0.3"},
		{"another password, our trailer", "digest", peer, signed("other", own), true, "another password"},
		{"an address less, our trailer", "digest", peer, signed("secret", own[1:]), true, "10.0.0.3 lacks 10.0.0.1"},
		{"VRRPv3", "advert_version", peer, []byte{0x31, 7, 100, 1, 0, 100, 0, 0}, false, "VRRPv3 with the same id 7"},
		{"VRRPv2", "advert_version", peer, []byte{0x21, 7, 100, 1, 0, 1, 0, 0}, false, "VRRPv2 with the same id 7"},
		{"a reminder of our own", "advert_version", peer, []byte{0xf1, 7, 1, 0, 0, 0, 0, 0}, false, ""},
		{"replay", "replay", peer, signed("secret", own), false, "somebody repeats"},
		{"signed with a key of ours that is wrong", "badauth", peer, trailed(signed("other", own), 0x81), true, "somebody forges adverts as 10.0.0.3"},
		{"a key that we do not have", "badauth", peer, trailed(signed("other", own), 0x8b), true, "10.0.0.3 signs with a key that we do not have: id 8b, ours: 81; copy"},
		{"a key that we do not have, the password right", "badtrailer", peer, trailed(signed("secret", own), 0x8b), true, "a key that we do not have: id 8b, ours: 81"},
		{"no trailer", "badtrailer", peer, signed("secret", own), false, "does not sign with our key_file"},
		{"through a router", "badttl", peer, signed("secret", own), false, "come through a router"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := clues{vhid: 7, advbase: 1, password: "secret", keys: []byte{0x81}, prefixes: prefixes, others: []netip.Addr{netip.MustParseAddr("192.0.2.77")}}
			if c.believed {
				k.believe(peer, now)
			}
			got := k.look(&loader.Sample{At: now, Why: c.why, From: c.from, TTL: 63, Len: len(c.data), Data: c.data})
			if !strings.Contains(got, c.want) || (c.want == "") != (got == "") {
				t.Errorf("got hint %q, want one with %q", got, c.want)
			}
			if shown := k.hint(now.Add(hintFor - 1)); shown != got {
				t.Errorf("shown is %q, want %q", shown, got)
			}
			if shown := k.hint(now.Add(hintFor)); shown != "" {
				t.Errorf("after its time %q is shown", shown)
			}
		})
	}
}

func TestHintOfAMistakeBeforeOneOfAnAttack(t *testing.T) {
	now := carp.BootTime(time.Hour)
	k := clues{vhid: 7, advbase: 1, password: "secret"}
	k.believe(netip.MustParseAddr("10.0.0.3"), now.Add(-spoofedFor))
	if _, text := k.cause(&loader.Sample{At: now, Why: "badauth", From: netip.MustParseAddr("10.0.0.3"),
		Data: append([]byte{0x21, 7, 0, 7, 0, 1, 0, 0}, make([]byte, 28)...)}); !strings.Contains(text, "another password") {
		t.Errorf("a peer that has sent no right ones for a while: %q, want another password", text)
	}
	k.look(&loader.Sample{At: now, Why: "advert_version", From: netip.MustParseAddr("10.0.0.9"), Data: []byte{0x31, 7}})
	k.look(&loader.Sample{At: now.Add(time.Second), Why: "ratelimit", From: netip.MustParseAddr("10.0.0.66"), Data: []byte{0x21, 7}})
	if got := k.hint(now.Add(time.Second)); !strings.Contains(got, "VRRPv3") {
		t.Errorf("got %q, want the VRRP router", got)
	}
}

func TestWhatIsWorthAThought(t *testing.T) {
	for _, tt := range []struct {
		verdict carp.Verdict
		why     string
	}{
		{carp.Verdict{}, ""},
		{carp.Verdict{Why: carp.DropAuth}, "badauth"},
		{carp.Verdict{Why: carp.DropReplay, Alarm: carp.AlarmRelabeled}, "replay"},
		{carp.Verdict{Alarm: carp.AlarmDigest}, "digest"},
		{carp.Verdict{Alarm: carp.AlarmWorse}, ""}, // the goodbye of a plain peer
		{carp.Verdict{Alarm: carp.AlarmBetter}, ""},
		{carp.Verdict{Alarm: carp.AlarmPlain}, ""},
	} {
		if why, ok := doubtful(&tt.verdict); why != tt.why || ok != (why != "") {
			t.Errorf("%v, alarm %v: got %q, %v; want %q", tt.verdict.Why, tt.verdict.Alarm, why, ok, tt.why)
		}
	}
}
