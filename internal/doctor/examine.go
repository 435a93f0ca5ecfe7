package doctor

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/config"
)

// oldest is the first kernel that has all that xcarp is built on.
var oldest = [2]int{6, 1}

// Examine judges. Heard is by interface, and may lack some; problems are what the
// check of the configuration against the machine had to say.
func Examine(c *config.Config, m Machine, heard map[string]Heard, problems []*config.Problem) []Finding {
	f := &findings{}
	kernel(f, m)
	checked(f, problems)
	conntrack(f, c, m)
	for _, dev := range devices(c) {
		d := m.Devices[dev]
		if d == nil {
			continue // the check has said so
		}
		if carries(c, dev) {
			carpdev(f, m, d)
		}
		if c.Sync != nil && c.Sync.Dev == dev {
			syncLink(f, c, d)
		}
		managed(f, m, d)
	}
	timers(f, c)
	for _, dev := range devices(c) {
		h, ok := heard[dev]
		if !ok || !carries(c, dev) {
			continue
		}
		speakers(f, c, m, dev, h)
		routers(f, c, dev, h)
	}
	return f.all
}

// carries reports whether a group lives on the interface.
func carries(c *config.Config, dev string) bool {
	return slices.ContainsFunc(c.Groups, func(g config.Group) bool { return g.Carpdev == dev })
}

func kernel(f *findings, m Machine) {
	if older(m.Release) {
		f.fail("kernel", "boot Linux 6.1 or later", "%s is older than %d.%d", m.Release, oldest[0], oldest[1])
	} else {
		f.ok("kernel", "%s", m.Release)
	}
	for _, what := range m.Lacks {
		f.fail("kernel", "use a kernel with CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS, as the distributions build it",
			"has no %s", what)
	}
	if !m.BTF {
		f.warn("kernel", "use a kernel with CONFIG_DEBUG_INFO_BTF=y", "no type information (BTF): programs work, tools show less of them")
	}
	if !m.JIT {
		f.warn("net.core.bpf_jit_enable", "sysctl -w net.core.bpf_jit_enable=1", "is 0: programs are interpreted, several times slower")
	}
	if m.Realtime {
		f.ok("priority", "real-time scheduling is allowed")
	} else {
		f.warn("priority", "grant CAP_SYS_NICE, as the systemd unit does", "no real-time scheduling: a busy machine may be late")
	}
}

// older compares 6.1.0-50-amd64 with the oldest kernel. What is no version is new.
func older(release string) bool {
	var v [2]int
	if n, _ := fmt.Sscanf(release, "%d.%d", &v[0], &v[1]); n < 2 {
		return false
	}
	return slices.Compare(v[:], oldest[:]) < 0
}

// checked takes over what the check found.
func checked(f *findings, problems []*config.Problem) {
	for _, p := range problems {
		bare := config.Problem{File: p.File, Line: p.Line, Column: p.Column, Message: p.Message}
		level := Fail
		if p.Warning {
			level = Warn
		}
		f.all = append(f.all, Finding{level, "check", bare.Error(), p.Fix})
	}
	if len(problems) == 0 {
		f.ok("check", "the configuration fits this machine")
	}
}

func conntrack(f *findings, c *config.Config, m Machine) {
	if c.Sync == nil {
		return
	}
	limit, err := strconv.Atoi(m.Sysctls["net.netfilter.nf_conntrack_max"])
	if err != nil {
		f.warn("conntrack", "modprobe nf_conntrack, or load a ruleset that uses it", "connection tracking is not loaded: there is nothing to mirror")
		return
	}
	used, _ := strconv.Atoi(m.Sysctls["net.netfilter.nf_conntrack_count"])
	if used > limit*4/5 {
		f.warn("net.netfilter.nf_conntrack_max", fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d, on all nodes alike", 2*limit),
			"%d of %d entries are in use: a full table refuses what the peer mirrors", used, limit)
	} else {
		f.ok("net.netfilter.nf_conntrack_max", "is %d, %d in use; it has to be the same on all nodes", limit, used)
	}
	if m.Sysctls["net.netfilter.nf_conntrack_events"] == "0" {
		f.warn("net.netfilter.nf_conntrack_events", "sysctl -w net.netfilter.nf_conntrack_events=1", "is 0: new connections are not told to the mirror")
	}
	if m.Sysctls["net.netfilter.nf_conntrack_tcp_be_liberal"] == "0" {
		f.ok("net.netfilter.nf_conntrack_tcp_be_liberal", "is 0; the daemon sets it to 1 while it mirrors")
	}
}

func carpdev(f *findings, m Machine, d *Device) {
	driver := d.Driver
	if driver == "" {
		driver = d.Kind
	}
	switch {
	case d.XDP != "":
		f.ok(d.Name, "XDP is attached, %s, program %d; driver %s", d.XDP, d.Program, driver)
	case d.ActsKnown && d.Acts&netdevXDPBasic != 0:
		f.ok(d.Name, "driver %s runs XDP natively", driver)
	case d.ActsKnown:
		f.warn(d.Name, "another NIC, if the rate of packets matters; xdp: generic says that this is meant",
			"driver %s has no XDP: the kernel's generic mode is used, which is slower", driver)
	default:
		f.ok(d.Name, "driver %s; this kernel does not say what it can do with XDP (6.3 and later do)", driver)
	}
	if d.StripVLAN && len(d.VLANs) > 0 {
		f.warn(d.Name, fmt.Sprintf("ethtool -K %s rxvlan off, or put the group on the VLAN interface", d.Name),
			"the NIC takes VLAN tags off before XDP sees them, and there are VLANs on it (%s): their frames look untagged to the programs",
			strings.Join(d.VLANs, ", "))
	}
	if d.Master != "" {
		f.warn(d.Name, "name "+d.Master+" as the carpdev", "belongs to %s: addresses and frames are those of %s", d.Master, d.Master)
	}
	for _, scope := range []string{"all", d.Name} {
		name := "net.ipv4.conf." + scope + ".rp_filter"
		if m.Sysctls[name] == "1" {
			f.warn(name, "sysctl -w "+name+"=2", "is 1 (strict): frames that come back by the other node's path are dropped")
			break
		}
	}
}

// recordRoom is an MTU that holds a frame of the mirror with headers.
const recordRoom = 1280

func syncLink(f *findings, c *config.Config, d *Device) {
	if d.MTU < recordRoom {
		f.fail(d.Name, fmt.Sprintf("ip link set %s mtu 1500, on all nodes", d.Name), "the sync link has an MTU of %d, less than %d", d.MTU, recordRoom)
		return
	}
	f.ok(d.Name, "the sync link has an MTU of %d", d.MTU)
	if carries(c, d.Name) {
		f.warn(d.Name, "use an interface of its own for sync", "is the sync link and a carpdev: when it fails nobody can tell a dead peer from a cut cable")
	}
}

func managed(f *findings, m Machine, d *Device) {
	by := m.Managers[d.Name]
	switch {
	case by == "":
	case by == "systemd-networkd":
		f.warn(d.Name, "KeepConfiguration=yes in its .network file", "systemd-networkd manages it, and may take shared addresses and filters away when it restarts")
	default:
		f.warn(d.Name, "nmcli device set "+d.Name+" managed no, or leave it with manual addresses", "%s manages it, and may take shared addresses away", by)
	}
}

func timers(f *findings, c *config.Config) {
	for i := range c.Groups {
		if g := &c.Groups[i]; g.AdvBase == 0 {
			f.warn("group "+g.Name, "advbase: 1, unless all members are xcarp with the same advskew",
				"advbase 0: the lease is shorter than the time another member waits only if all have nearly the same advskew (%v here)",
				carp.Lease(g.AdvBase, g.AdvSkew))
		}
	}
}

// speakers looks for others with our numbers.
func speakers(f *findings, c *config.Config, m Machine, dev string, h Heard) {
	ours := map[uint8]string{}
	for i := range c.Groups {
		if g := &c.Groups[i]; g.Carpdev == dev {
			for _, e := range g.Elections() {
				ours[e.VHID] = g.Name
			}
		}
	}
	all := slices.SortedFunc(maps.Keys(h.Speakers), func(a, b Speaker) int {
		if d := int(a.VHID) - int(b.VHID); d != 0 {
			return d
		}
		return a.From.Compare(b.From)
	})
	for _, s := range all {
		name, taken := ours[s.VHID]
		switch {
		case m.Own[s.From]:
		case taken && s.Protocol != "CARP":
			f.fail(dev, fmt.Sprintf("give group %s or the VRRP router another number", name),
				"%s of %s has the number of vhid %d: both answer with the MAC %s", s.Protocol, s.From, s.VHID, mac(s.VHID))
		case taken:
			f.ok(dev, "vhid %d is advertised by %s, a member of group %s; `xcarp show` says whether its adverts are believed", s.VHID, s.From, name)
		default:
			f.ok(dev, "%s %d of %s is somebody else's", s.Protocol, s.VHID, s.From)
		}
	}
}

func mac(vhid uint8) string {
	m := carp.VirtualMAC(vhid)
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// routers judges from which address hosts learn their gateway. It must be a shared
// one: hosts keep the source of a router advertisement as their next hop, RFC 4861
// section 6.3.4, and it goes with the node if it is the node's own.
func routers(f *findings, c *config.Config, dev string, h Heard) {
	shared := map[netip.Addr]string{}
	six := ""
	for i := range c.Groups {
		g := &c.Groups[i]
		if g.Carpdev != dev {
			continue
		}
		for _, p := range g.Addresses {
			if p.Addr().Is6() {
				six = g.Name
			}
			if p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
				shared[p.Addr()] = g.Name
			}
		}
	}
	if six == "" {
		return
	}
	fix := fmt.Sprintf("add a link-local address to group %s (fe80::1/64), and let radvd advertise from it: AdvRASrcAddress { fe80::1; };", six)
	for a := range shared {
		fix = fmt.Sprintf("let radvd advertise from the shared address: AdvRASrcAddress { %s; };", a)
	}
	for _, from := range slices.SortedFunc(maps.Keys(h.Routers), netip.Addr.Compare) {
		switch name, is := shared[from]; {
		case h.Routers[from].Lifetime == 0:
			f.ok(dev, "router advertisements of %s offer no gateway", from)
		case is:
			f.ok(dev, "hosts learn the gateway %s, which group %s shares", from, name)
		default:
			f.warn(dev, fix, "hosts learn the gateway %s, which is no shared address: if it is one of the nodes, they lose it with that node", from)
		}
	}
}
