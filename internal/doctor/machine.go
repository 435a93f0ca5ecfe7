package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/config"
)

// Machine is what Look found: a kernel, and a network namespace of it.
type Machine struct {
	Release  string            // of the kernel: 6.1.0-50-cloud-amd64
	BTF      bool              // the kernel has type information
	JIT      bool              // BPF is compiled, not interpreted
	Lacks    []string          // features of BPF that xcarp cannot do without
	Sysctls  map[string]string // by name with dots; those that the kernel has
	Devices  map[string]*Device
	Realtime bool              // SCHED_FIFO is allowed
	Managers map[string]string // what else configures a device: networkd, NetworkManager
	Own      map[netip.Addr]bool
}

// Device is a network interface.
type Device struct {
	Name      string
	Driver    string
	Kind      string // as netlink names it: device, veth, bridge, vlan, …
	Master    string // the bridge, bond or VRF it belongs to
	MTU       int    // bytes
	XDP       string // attached mode: native, generic, offload, or empty
	Program   uint32 // id of the program that is attached
	Acts      uint64 // NETDEV_XDP_ACT_*, valid if ActsKnown
	ActsKnown bool
	StripVLAN bool     // the NIC takes VLAN tags off frames before XDP sees them
	VLANs     []string // interfaces of VLANs on it
}

// netdevXDPBasic is NETDEV_XDP_ACT_BASIC of linux/netdev.h: the driver runs XDP
// programs and can drop, pass, abort and send back.
const netdevXDPBasic = 1

// sysctlNames are what Look reads, besides those of the interfaces.
var sysctlNames = []string{
	"net.ipv4.conf.all.rp_filter",
	"net.netfilter.nf_conntrack_max", "net.netfilter.nf_conntrack_count", "net.netfilter.nf_conntrack_events",
	"net.netfilter.nf_conntrack_tcp_be_liberal",
	"net.core.bpf_jit_enable",
}

// Look reads the machine, in the network namespace of the calling thread. What
// cannot be read is left out: a judgement that needs it is not made.
func Look(c *config.Config) (Machine, error) {
	m := Machine{Sysctls: map[string]string{}, Devices: map[string]*Device{}, Managers: map[string]string{}, Own: map[netip.Addr]bool{}}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return m, fmt.Errorf("read the kernel's release: %w", err)
	}
	m.Release = unix.ByteSliceToString(uts.Release[:])
	_, err := os.Stat("/sys/kernel/btf/vmlinux")
	m.BTF = err == nil
	m.Lacks = lacks()
	m.Realtime = realtime()
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return m, fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return m, fmt.Errorf("list interfaces: %w", err)
	}
	m.devices(links)
	addrs, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return m, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			m.Own[ip.Unmap()] = true
		}
	}
	names := sysctlNames
	for _, d := range devices(c) {
		names = append(names[:len(names):len(names)], "net.ipv4.conf."+d+".rp_filter")
		if i := m.Devices[d]; i != nil {
			m.look(i, links)
		}
	}
	for _, name := range names {
		if v, ok := readSysctl(name); ok {
			m.Sysctls[name] = v
		}
	}
	m.JIT = m.Sysctls["net.core.bpf_jit_enable"] != "0" // a kernel without the switch always compiles
	return m, nil
}

// devices returns those that a configuration names, each once.
func devices(c *config.Config) []string {
	var names []string
	seen := map[string]bool{}
	add := func(n string) {
		if n != "" && !seen[n] {
			seen[n] = true
			names = append(names, n)
		}
	}
	for i := range c.Groups {
		add(c.Groups[i].Carpdev)
	}
	if c.Sync != nil {
		add(c.Sync.Dev)
	}
	return names
}

func (m *Machine) devices(links []netlink.Link) {
	byIndex := map[int]string{}
	for _, l := range links {
		byIndex[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range links {
		a := l.Attrs()
		d := &Device{Name: a.Name, Kind: l.Type(), MTU: a.MTU, Master: byIndex[a.MasterIndex]}
		if x := a.Xdp; x != nil && x.Attached {
			d.Program = x.ProgId
			d.XDP = map[uint32]string{nl.XDP_ATTACHED_DRV: "native", nl.XDP_ATTACHED_SKB: "generic", nl.XDP_ATTACHED_HW: "offload"}[x.AttachMode]
			if d.XDP == "" {
				d.XDP = "several"
			}
		}
		m.Devices[a.Name] = d
	}
}

// look adds what only the devices of a configuration are asked for.
func (m *Machine) look(d *Device, links []netlink.Link) {
	var index int
	for _, l := range links {
		if l.Attrs().Name == d.Name {
			index = l.Attrs().Index
		}
	}
	for _, l := range links {
		if l.Type() == "vlan" && l.Attrs().ParentIndex == index {
			d.VLANs = append(d.VLANs, l.Attrs().Name)
		}
	}
	if e, err := ethtool.NewEthtool(); err == nil {
		defer e.Close()
		d.Driver, _ = e.DriverName(d.Name)
		if f, err := e.Features(d.Name); err == nil {
			d.StripVLAN = f["rx-vlan-hw-parse"]
		}
	}
	if acts, err := xdpActs(index); err == nil {
		d.Acts, d.ActsKnown = acts, true
	}
	if by := manager(index); by != "" {
		m.Managers[d.Name] = by
	}
}

// lacks probes for what the programs are built with.
func lacks() []string {
	var missing []string
	for _, need := range []struct {
		what string
		have func() error
	}{
		{"XDP programs", func() error { return features.HaveProgramType(ebpf.XDP) }},
		{"tc programs", func() error { return features.HaveProgramType(ebpf.SchedCLS) }},
		{"the helper bpf_ktime_get_boot_ns", func() error { return features.HaveProgramHelper(ebpf.XDP, asm.FnKtimeGetBootNs) }},
		{"ring buffers", func() error { return features.HaveMapType(ebpf.RingBuf) }},
		{"mmap of maps", func() error { return features.HaveMapFlag(features.BPF_F_MMAPABLE) }},
	} {
		if err := need.have(); errors.Is(err, ebpf.ErrNotSupported) {
			missing = append(missing, need.what)
		}
	}
	return missing
}

// realtime reports whether a thread of ours may have a real-time priority.
func realtime() bool {
	var caps [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0]); err == nil &&
		caps[unix.CAP_SYS_NICE/32].Effective&(1<<(unix.CAP_SYS_NICE%32)) != 0 {
		return true
	}
	var limit unix.Rlimit
	return unix.Getrlimit(unix.RLIMIT_RTPRIO, &limit) == nil && limit.Cur > 0
}

// manager names a program that configures the interface on its own.
func manager(index int) string {
	n := strconv.Itoa(index)
	if b, err := os.ReadFile("/run/systemd/netif/links/" + n); err == nil && !strings.Contains(string(b), "ADMIN_STATE=unmanaged") {
		return "systemd-networkd"
	}
	if b, err := os.ReadFile("/run/NetworkManager/devices/" + n); err == nil && strings.Contains(string(b), "managed=true") {
		return "NetworkManager"
	}
	return ""
}

func readSysctl(name string) (string, bool) {
	parts := strings.Split(name, ".")
	// The name of an interface may have dots of its own: it is all but the last
	// part of what follows conf.
	path := strings.Join(parts, "/")
	if len(parts) > 5 && parts[2] == "conf" {
		path = strings.Join(parts[:3], "/") + "/" + strings.Join(parts[3:len(parts)-1], ".") + "/" + parts[len(parts)-1]
	}
	b, err := os.ReadFile("/proc/sys/" + path)
	if err != nil {
		return "", false
	}
	return strings.TrimSpace(string(b)), true
}
