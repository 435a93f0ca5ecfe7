package config

import (
	"net/netip"
	"strings"
	"testing"
)

// TestWhereAdvertsGo reads every form of the keys, on the node n.
func TestWhereAdvertsGo(t *testing.T) {
	ip := netip.MustParseAddr
	both := func(more string) string {
		return strings.Replace(g(more), "[10.0.0.1/24]", `[10.0.0.1/24, "fe80::1/64"]`, 1)
	}
	for _, c := range []struct {
		name, text string
		want       Group
	}{
		{"nothing", both(""), Group{DSCP: 56}},
		{"one peer", both(", carppeer: 10.0.0.3"), Group{DSCP: 56, Peer4: ip("10.0.0.3")}},
		{"one of each family", both(`, carppeer: [10.0.0.3, "fe80::3"]`), Group{DSCP: 56, Peer4: ip("10.0.0.3"), Peer6: ip("fe80::3")}},
		{"by node", both(`, carppeer: {m: 10.0.0.2, n: ["fe80::3"]}`), Group{DSCP: 56, Peer6: ip("fe80::3")}},
		{"other groups", both(`, mcast: 239.1.2.3, mcast6: "ff02::1:2"`), Group{DSCP: 56, Mcast4: ip("239.1.2.3"), Mcast6: ip("ff02::1:2")}},
		{"a peer and a group", both(`, carppeer: 10.0.0.3, mcast6: "ff02::1:2"`), Group{DSCP: 56, Peer4: ip("10.0.0.3"), Mcast6: ip("ff02::1:2")}},
		{"dscp for all", both("") + "dscp: 4\n", Group{DSCP: 4}},
		{"dscp for one", both(", dscp: 0") + "dscp: 4\n", Group{DSCP: 0}},
		{"lladdr", both(", lladdr: 02:00:c0:ff:ee:01"), Group{DSCP: 56, LLAddr: []byte{2, 0, 0xc0, 0xff, 0xee, 1}}},
	} {
		cfg, err := load(t, c.text)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := cfg.Groups[0]
		if got.Peer4 != c.want.Peer4 || got.Peer6 != c.want.Peer6 || got.Mcast4 != c.want.Mcast4 || got.Mcast6 != c.want.Mcast6 ||
			got.DSCP != c.want.DSCP || string(got.LLAddr) != string(c.want.LLAddr) {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
		if bad := conforms(t, c.text); bad != "" {
			t.Errorf("%s: the schema refuses it: %s", c.name, bad)
		}
	}
	cfg, err := load(t, g("")+"senderr_demotion_factor: 0\nifdown_demotion_factor: 100\n")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.SendErr != 0 || cfg.IfDown != 100 {
		t.Errorf("factors: got %d and %d, want 0 and 100", cfg.SendErr, cfg.IfDown)
	}
}
