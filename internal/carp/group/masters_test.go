package group

import (
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/xcarp/xcarp/internal/carp"
)

func isIP6(b []byte) bool { return b[12] == 0x86 && b[13] == 0xdd }

// TestAFamilySilentAloneIsAnAlarm: contract.md, section 5. One line, one count, and
// no transition.
func TestAFamilySilentAloneIsAnAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		core, logs := observer.New(zap.InfoLevel)
		a := start(t, s, 1, carp.Config{AdvBase: 1})
		b := start(t, s, 2, carp.Config{AdvBase: 1, AdvSkew: 100}, func(c *Config) { c.Log = zap.New(core) })
		time.Sleep(10 * time.Second)
		if st := b.Status(); st.SilentFamily != "" || st.SilentAlarms != 0 {
			t.Errorf("both families are heard: silent %q, %d alarms", st.SilentFamily, st.SilentAlarms)
		}

		s.set(func() { s.lose = func(_ *port, f []byte) bool { return isIP6(f) } })
		time.Sleep(20 * time.Second)
		st := b.Status()
		if st.SilentFamily != "IPv6" || st.SilentAlarms != 1 {
			t.Errorf("IPv6 is lost: silent %q, %d alarms, want IPv6 and 1", st.SilentFamily, st.SilentAlarms)
		}
		if n := logs.FilterMessageSnippet("one family of adverts is silent").Len(); n != 1 {
			t.Errorf("%d log lines, want 1", n)
		}
		wantState(t, b, carp.Backup)

		s.set(func() { s.lose = nil })
		time.Sleep(2 * time.Second)
		if st := b.Status(); st.SilentFamily != "" || st.SilentAlarms != 1 {
			t.Errorf("IPv6 is back: silent %q, %d alarms, want none and 1", st.SilentFamily, st.SilentAlarms)
		}
		if n := logs.FilterMessageSnippet("is heard again").Len(); n != 1 {
			t.Errorf("%d log lines of the return, want 1", n)
		}
		s.set(func() { s.lose = func(_ *port, f []byte) bool { return !isIP6(f) } })
		time.Sleep(8 * time.Second)
		if st := b.Status(); st.SilentFamily != "IPv4" || st.SilentAlarms != 2 {
			t.Errorf("IPv4 is lost: silent %q, %d alarms, want IPv4 and 2", st.SilentFamily, st.SilentAlarms)
		}
		b.stop(t)
		a.stop(t)
	})
}

// TestBothFamiliesLostAreNoFamilyAlarm: a dead master is not a silent family.
func TestBothFamiliesLostAreNoFamilyAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(segment)
		a := start(t, s, 1, carp.Config{AdvBase: 1})
		b := start(t, s, 2, carp.Config{AdvBase: 1, AdvSkew: 100})
		time.Sleep(10 * time.Second)
		s.set(func() { s.lose = func(*port, []byte) bool { return true } })
		time.Sleep(20 * time.Second)
		s.set(func() { s.lose = nil })
		time.Sleep(20 * time.Second)
		if st := b.Status(); st.SilentAlarms != 0 {
			t.Errorf("%d alarms, want none", st.SilentAlarms)
		}
		b.stop(t)
		a.stop(t)
	})
}

// TestADualStackMasterIsOneMaster, however it counts its frames; two masters are
// two.
func TestADualStackMasterIsOneMaster(t *testing.T) {
	ip := netip.MustParseAddr
	for _, tt := range []struct {
		name    string
		adverts []carp.Heard
		want    []string
	}{
		{"as xcarp and FreeBSD count", []carp.Heard{
			{From: ip("192.0.2.1"), Advert: carp.Advert{AdvBase: 1, Counter: 70}},
			{From: ip("fe80::1"), Advert: carp.Advert{AdvBase: 1, Counter: 71}}}, []string{"192.0.2.1 fe80::1"}},
		{"IPv6 first", []carp.Heard{
			{From: ip("fe80::1"), Advert: carp.Advert{AdvBase: 1, Counter: 70}},
			{From: ip("192.0.2.1"), Advert: carp.Advert{AdvBase: 1, Counter: 71}}}, []string{"192.0.2.1 fe80::1"}},
		{"as OpenBSD does not", []carp.Heard{
			{From: ip("192.0.2.1"), Advert: carp.Advert{AdvBase: 1, Counter: 9}},
			{From: ip("fe80::1"), Advert: carp.Advert{AdvBase: 1, Counter: 9}},
			{From: ip("192.0.2.1"), Advert: carp.Advert{AdvBase: 1, Counter: 9}}}, []string{"192.0.2.1 fe80::1"}},
		{"by its trailer, whatever the counters", []carp.Heard{
			{From: ip("192.0.2.1"), Node: 5, Advert: carp.Advert{AdvBase: 1, Counter: 1 << 40}},
			{From: ip("fe80::1"), Node: 5, Advert: carp.Advert{AdvBase: 1, Counter: 9}}}, []string{"192.0.2.1 fe80::1"}},
		{"two nodes that speak from the shared address", []carp.Heard{
			{From: ip("192.0.2.100"), Node: 5, Advert: carp.Advert{AdvBase: 1, Counter: 1}},
			{From: ip("192.0.2.100"), Node: 6, Advert: carp.Advert{AdvBase: 1, Counter: 2}}},
			[]string{"192.0.2.100 invalid IP", "192.0.2.100 invalid IP"}},
		{"two masters", []carp.Heard{
			{From: ip("192.0.2.1"), Advert: carp.Advert{AdvBase: 1, Counter: 1 << 60}},
			{From: ip("192.0.2.2"), Advert: carp.Advert{AdvBase: 1, Counter: 1 << 20}},
			{From: ip("fe80::1"), Advert: carp.Advert{AdvBase: 1, Counter: 1<<60 + 1}},
			{From: ip("fe80::2"), Advert: carp.Advert{AdvBase: 1, Counter: 1<<20 + 1}}},
			[]string{"192.0.2.1 fe80::1", "192.0.2.2 fe80::2"}},
	} {
		g := New(Config{Machine: carp.Config{VHID: 7, AdvBase: 1}, Addrs: []netip.Prefix{vip4, vip6},
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}})
		for i := range tt.adverts {
			g.received(&carp.Verdict{Heard: tt.adverts[i]})
		}
		var got []string
		for _, m := range g.Status().Masters {
			got = append(got, m.Addr.String()+" "+m.Addr6.String())
		}
		if len(got) != len(tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
			continue
		}
		for i := range got {
			if got[i] != tt.want[i] {
				t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
			}
		}
	}
}
