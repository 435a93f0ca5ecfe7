package doctor

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/config"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// healthy is a machine without anything to be said about, and a group on it.
func healthy() (*config.Config, Machine) {
	c := &config.Config{Groups: []config.Group{{
		Name: "lan", VHID: 7, Carpdev: "eth0", AdvBase: 1,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("2001:db8::1/64")},
	}}}
	m := Machine{
		Release: "6.1.0-50-cloud-amd64", BTF: true, JIT: true, Realtime: true,
		Sysctls: map[string]string{},
		Devices: map[string]*Device{"eth0": {Name: "eth0", Driver: "ice", MTU: 1500, Acts: netdevXDPBasic, ActsKnown: true}},
		Own:     map[netip.Addr]bool{},
	}
	return c, m
}

func TestAHealthyMachineHasNothingToBeSaidAbout(t *testing.T) {
	c, m := healthy()
	for _, f := range Examine(c, m, nil, nil) {
		if f.Level != OK || f.Fix != "" {
			t.Errorf("%s %s: %s (%s)", f.Level, f.About, f.What, f.Fix)
		}
	}
}

func TestExamine(t *testing.T) {
	hears := func(h Heard) map[string]Heard { return map[string]Heard{"eth0": h} }
	for _, test := range []struct {
		name  string
		given func(c *config.Config, m *Machine) map[string]Heard
		level Level
		about string
		says  string
		fix   string
	}{
		{"an old kernel", func(_ *config.Config, m *Machine) map[string]Heard { m.Release = "5.15.0"; return nil },
			Fail, "kernel", "5.15.0 is older than 6.1", "boot Linux 6.1"},
		{"a kernel that lacks ring buffers", func(_ *config.Config, m *Machine) map[string]Heard { m.Lacks = []string{"ring buffers"}; return nil },
			Fail, "kernel", "has no ring buffers", "CONFIG_BPF_SYSCALL"},
		{"a driver without XDP", func(_ *config.Config, m *Machine) map[string]Heard { m.Devices["eth0"].Acts = 0; return nil },
			Warn, "eth0", "generic mode", "another NIC"},
		{"stripped VLAN tags", func(_ *config.Config, m *Machine) map[string]Heard {
			m.Devices["eth0"].StripVLAN, m.Devices["eth0"].VLANs = true, []string{"eth0.5"}
			return nil
		}, Warn, "eth0", "takes VLAN tags off", "ethtool -K eth0 rxvlan off"},
		{"a port of a bridge", func(_ *config.Config, m *Machine) map[string]Heard { m.Devices["eth0"].Master = "br0"; return nil },
			Warn, "eth0", "belongs to br0", "name br0"},
		{"strict reverse path", func(_ *config.Config, m *Machine) map[string]Heard {
			m.Sysctls["net.ipv4.conf.eth0.rp_filter"] = "1"
			return nil
		}, Warn, "net.ipv4.conf.eth0.rp_filter", "strict", "=2"},
		{"networkd", func(_ *config.Config, m *Machine) map[string]Heard {
			m.Managers = map[string]string{"eth0": "systemd-networkd"}
			return nil
		}, Warn, "eth0", "systemd-networkd manages it", "KeepConfiguration"},
		{"a full table", func(c *config.Config, m *Machine) map[string]Heard {
			c.Sync = &config.Sync{Dev: "eth2"}
			m.Devices["eth2"] = &Device{Name: "eth2", MTU: 1500}
			m.Sysctls["net.netfilter.nf_conntrack_max"], m.Sysctls["net.netfilter.nf_conntrack_count"] = "1000", "900"
			return nil
		}, Warn, "net.netfilter.nf_conntrack_max", "900 of 1000", "nf_conntrack_max=2000"},
		{"a narrow sync link", func(c *config.Config, m *Machine) map[string]Heard {
			c.Sync = &config.Sync{Dev: "eth2"}
			m.Devices["eth2"] = &Device{Name: "eth2", MTU: 576}
			return nil
		}, Fail, "eth2", "MTU of 576", "mtu 1500"},
		{"advbase 0", func(c *config.Config, _ *Machine) map[string]Heard { c.Groups[0].AdvBase = 0; return nil },
			Warn, "group lan", "advbase 0", "advbase: 1"},
		{"a VRRP router with our number", func(*config.Config, *Machine) map[string]Heard {
			return hears(Heard{Speakers: map[Speaker]int{{addr("10.0.0.9"), 7, "VRRPv3"}: 3}})
		}, Fail, "eth0", "VRRPv3 of 10.0.0.9 has the number of vhid 7: both answer with the MAC 00:00:5e:00:01:07", "another number"},
		{"a gateway that is no shared address", func(*config.Config, *Machine) map[string]Heard {
			return hears(Heard{Routers: map[netip.Addr]Router{addr("fe80::aa"): {Lifetime: time.Hour}}})
		}, Warn, "eth0", "hosts learn the gateway fe80::aa, which is no shared address", "add a link-local address to group lan"},
		{"a gateway that is not the shared address that there is", func(c *config.Config, _ *Machine) map[string]Heard {
			c.Groups[0].Addresses = append(c.Groups[0].Addresses, netip.MustParsePrefix("fe80::7/64"))
			return hears(Heard{Routers: map[netip.Addr]Router{addr("fe80::aa"): {Lifetime: time.Hour}}})
		}, Warn, "eth0", "hosts learn the gateway fe80::aa", "AdvRASrcAddress { fe80::7; }"},
		{"the shared gateway", func(c *config.Config, _ *Machine) map[string]Heard {
			c.Groups[0].Addresses = append(c.Groups[0].Addresses, netip.MustParsePrefix("fe80::7/64"))
			return hears(Heard{Routers: map[netip.Addr]Router{addr("fe80::7"): {Lifetime: time.Hour}}})
		}, OK, "eth0", "hosts learn the gateway fe80::7, which group lan shares", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, m := healthy()
			heard := test.given(c, &m)
			all := Examine(c, m, heard, nil)
			for _, f := range all {
				if f.Level == test.level && f.About == test.about && strings.Contains(f.What, test.says) {
					if !strings.Contains(f.Fix, test.fix) || test.fix == "" && f.Fix != "" {
						t.Errorf("got the fix %q, want %q", f.Fix, test.fix)
					}
					return
				}
			}
			t.Errorf("got %v, want %s %s: %s", all, test.level, test.about, test.says)
		})
	}
}

func TestWhatTheCheckFoundIsAFinding(t *testing.T) {
	c, m := healthy()
	all := Examine(c, m, nil, []*config.Problem{
		{File: "x.yaml", Line: 3, Column: 5, Message: "no interface", Fix: "create it"},
		{Message: "net.ipv4.ip_forward is 0", Fix: "set it", Warning: true},
	})
	for _, want := range []Finding{
		{Fail, "check", "x.yaml:3:5: no interface", "create it"},
		{Warn, "check", "net.ipv4.ip_forward is 0", "set it"},
	} {
		if !slices.Contains(all, want) {
			t.Errorf("got %v, want %v", all, want)
		}
	}
}
