package lab

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/xcarp/xcarp/internal/carp"
)

func captured(t *testing.T) []byte {
	t.Helper()
	a := carp.Advert{VHID: lanVHID, AdvBase: 1, AdvSkew: 7, Counter: 5}
	carp.NewKey("secret", lanVHID, nil, carp.OpenBSD).Sign(&a)
	a.Trailer = bytes.Repeat([]byte{9}, carp.TrailerLen)
	b, err := a.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return carp.AppendFrame(nil, carp.VirtualMAC(lanVHID), netip.MustParseAddr("10.0.0.2"), b)
}

func TestFramesOfAttacks(t *testing.T) {
	key := carp.NewKey("secret", lanVHID, nil, carp.OpenBSD)
	for _, c := range []struct {
		attack Attack
		frames int
		signed bool
		base   uint8
		skew   int // -1: any
	}{{Forged, 1024, false, 1, -1}, {Replayed, 1, true, 1, 7}, {Relabelled, 3, true, 0, 0}} {
		frames, err := c.attack.Frames(captured(t), carp.MAC{2, 0, 0, 0, 0, 1})
		if err != nil || len(frames) != c.frames {
			t.Fatalf("%s: %d frames, %v, want %d", c.attack, len(frames), err, c.frames)
		}
		for _, f := range frames {
			r, why := carp.ParseFrame(f)
			if why != carp.Accepted {
				t.Fatalf("%s: %v", c.attack, why)
			}
			if r.MAC != (carp.MAC{2, 0, 0, 0, 0, 1}) || r.VHID != lanVHID || r.AdvBase != c.base || c.skew >= 0 && int(r.AdvSkew) != c.skew {
				t.Errorf("%s: %+v", c.attack, r)
			}
			if got := key.Verify(&r.Advert); got != c.signed {
				t.Errorf("%s: digest right is %v, want %v", c.attack, got, c.signed)
			}
		}
	}
	if _, err := ParseAttack("forgde"); err == nil || !strings.Contains(err.Error(), "forged") {
		t.Errorf("of a misspelt attack: %v, want the list", err)
	}
}

func TestShieldPromises(t *testing.T) {
	good := func() ShieldResult {
		return ShieldResult{System: "xcarp", Attack: Forged, Seconds: 10, LogLines: 2, CPUPercent: 1, FailoverMS: 3000, BoundMS: failoverMS,
			AdvertsSent: 20, AdvertsAccepted: 20, AdvertsPassed: 20, Refused: map[string]uint64{"badauth": 1000}}
	}
	for _, c := range []struct {
		name   string
		break_ func(*ShieldResult)
		want   string
	}{
		{"kept", func(*ShieldResult) {}, ""},
		{"ucarp promises nothing", func(r *ShieldResult) { r.System, r.Transitions = "ucarp", 9 }, ""},
		{"moved", func(r *ShieldResult) { r.Transitions = 1 }, "1 transitions"},
		{"busy", func(r *ShieldResult) { r.CPUPercent = 5.1 }, "5.1 %"},
		{"chatty", func(r *ShieldResult) { r.LogLines = 11 }, "11 lines"},
		{"late", func(r *ShieldResult) { r.FailoverMS = failoverMS + 1 }, "failover after"},
		{"never", func(r *ShieldResult) { r.FailoverMS = 0 }, "failover after"},
		{"deaf", func(r *ShieldResult) { r.AdvertsAccepted, r.AdvertsPassed = 1, 1 }, "1 genuine adverts"},
		{"refused by the daemon", func(r *ShieldResult) { r.AdvertsPassed = 30 }, "30 adverts passed XDP"},
		{"limited", func(r *ShieldResult) { r.Refused["ratelimit"] = 1 }, "genuine adverts were refused"},
		{"no flood", func(r *ShieldResult) { r.Refused = nil }, "no forged advert"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := good()
			c.break_(&r)
			r.judge()
			text, kept := ShieldText([]ShieldResult{r})
			if kept != (c.want == "") || !strings.Contains(text, c.want) {
				t.Errorf("kept %v, want %q in\n%s", kept, c.want, text)
			}
		})
	}
}
