package config

import (
	"fmt"
	"slices"
	"testing"
)

// elections are the names, vhids and advskews of all.
func elections(c *Config) string {
	var all []string
	for i := range c.Groups {
		for _, e := range c.Groups[i].Elections() {
			all = append(all, fmt.Sprintf("%s %d:%d of %s", e.Name, e.VHID, e.AdvSkew, e.Shared()))
		}
	}
	return fmt.Sprint(all)
}

func TestCarpNodesAreElections(t *testing.T) {
	for name, c := range map[string]struct{ text, want, balance string }{
		"alone":   {g(", advskew: 7"), "[g 1:7 of g]", " "},
		"shared":  {shared("carpnodes: {10: 100, 2: 0}, balance: arp"), "[g/2 2:0 of g g/10 10:100 of g]", "arp mac"},
		"by node": {shared("carpnodes: {m: {1: 9, 2: 0}, n: {1: 0, 2: 9}}, balance: arp, balance_by: source-ip"), "[g/1 1:0 of g g/2 2:9 of g]", "arp source-ip"},
		"default": {shared("carpnodes: {1: 0}"), "[g/1 1:0 of g]", "ip mac"},
		"BSD":     {"preempt: true\n" + line("carpnodes 5:100,6:0 balancing ip-stealth pass p carpdev em0 10.0.0.1/24"), "[carp1/5 5:100 of carp1 carp1/6 6:0 of carp1]", "ip-stealth mac"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := load(t, c.text)
			if err != nil {
				t.Fatal(err)
			}
			if got := elections(cfg); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if got := fmt.Sprint(cfg.Groups[0].Balance, " ", cfg.Groups[0].BalanceBy); got != c.balance {
				t.Errorf("balance %q, want %q", got, c.balance)
			}
		})
	}
}

func TestCarpNodesWithoutPreemptAreWarnedOf(t *testing.T) {
	c, err := load(t, g("")+"  h: {carpnodes: {2: 0, 3: 0}, carpdev: eth0, addresses: [10.0.0.2/24], pass: x}\n")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) != 1 || c.Warnings[0].Message != `group "h" shares its load without preempt` {
		t.Errorf("warnings %v", c.Warnings)
	}
}

// In a bundle the vhids of the same place move together.
func TestElectionsOfABundle(t *testing.T) {
	c, err := load(t, shared("carpnodes: {1: 0, 2: 0}")+
		"  h: {carpnodes: {7: 0, 9: 0}, carpdev: eth1, addresses: [10.0.1.1/24], pass: x}\n"+
		"  i: {vhid: 3, carpdev: eth1, addresses: [10.0.1.2/24], pass: x}\nbundle: [g, h]\n")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"g/1", "g/2", "h/7", "h/9", "i"}
	concerned := func(asked string) (of []string) {
		for _, n := range names {
			if c.Concerns(asked, n) {
				of = append(of, n)
			}
		}
		return of
	}
	for asked, want := range map[string][]string{
		"": names, "g": names[:4], "g/1": {"g/1", "h/7"}, "h/9": {"g/2", "h/9"}, "i": {"i"}, "g/3": nil, "x": nil,
	} {
		if got := concerned(asked); !slices.Equal(got, want) {
			t.Errorf("%q concerns %v, want %v", asked, got, want)
		}
	}
	for name, want := range map[string]bool{"g": true, "g/1": true, "g/7": false, "i": true, "i/3": false, "x": false} {
		if got := c.Has(name); got != want {
			t.Errorf("has %q: %v, want %v", name, got, want)
		}
	}
}
