package loader

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
)

// The names of pinned links; maps are pinned under their own.
const (
	pinXDP     = "xdp"
	pinIngress = "ingress"
	pinEgress  = "egress"
)

// mapNames are the maps of a carpdev, as bpf/maps.h and bpf/shield.h have them.
var mapNames = []string{
	"vhids", "addr4", "addr6", "shares", "counters", "ports",
	"shields", "knowns", "buckets", "echoes", "sampled", "samples", "scratches",
}

// ErrMaster means that Detach would take a master off the network.
var ErrMaster = errors.New("is MASTER")

// ErrVersion means that Detach would take off what another version pinned, and may
// so take a master off the network: roles of another layout are never read.
var ErrVersion = errors.New("are of another version of xcarp")

// PinnedPort is what an earlier process left on the box.
type PinnedPort struct {
	Ifname  string
	Ifindex int                 // 0: the interface is gone
	Roles   map[uint8]carp.Role // of configured vhids, as the programs see them now
	Addrs   []netip.Addr        // shared addresses of all of them, in order
	Foreign bool                // of another layout: nobody knows the roles
}

// Held says why the port must not be taken off without force, nil if it may.
func (p *PinnedPort) Held() error {
	if p.Foreign {
		return fmt.Errorf("carpdev %s: its pins %w: whether this node is MASTER there cannot be read", p.Ifname, ErrVersion)
	}
	for vhid, r := range p.Roles {
		if r.State == carp.Master {
			return fmt.Errorf("carpdev %s: this node %w of vhid %d", p.Ifname, ErrMaster, vhid)
		}
	}
	return nil
}

// A bpffs refuses names with a dot, and VLAN interfaces have one.
var (
	escape   = strings.NewReplacer("%", "%25", ".", "%2e")
	unescape = strings.NewReplacer("%25", "%", "%2e", ".")
)

func portDir(root, ifname string) string { return filepath.Join(root, escape.Replace(ifname)) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Pinned lists what is on the box below the pin directory.
func Pinned(pinDir string) ([]PinnedPort, error) {
	dirs, err := portDirs(pinDir)
	if err != nil {
		return nil, err
	}
	var all []PinnedPort
	for _, dir := range dirs {
		read := readPinned
		if !carpdev.readable(dir) {
			read = readForeign
		}
		p := PinnedPort{Ifname: unescape.Replace(filepath.Base(dir)), Roles: map[uint8]carp.Role{}}
		if err := read(&p, dir); err != nil {
			return nil, err
		}
		slices.SortFunc(p.Addrs, netip.Addr.Compare)
		all = append(all, p)
	}
	return all, nil
}

// readPinned reads what is pinned by this build's layout.
func readPinned(p *PinnedPort, dir string) error {
	m, err := carpdev.pinnedMaps(dir)
	if err != nil {
		return err
	}
	defer m.close()
	port, err := readPort(dir)
	if err != nil {
		return err
	}
	p.Ifindex = int(port.Ifindex)
	now := bootNow()
	for vhid := 1; vhid < 256; vhid++ {
		if m.configured(uint8(vhid)) {
			p.Roles[uint8(vhid)] = role(m.word(uint8(vhid)).Load(), now)
		}
	}
	addrs, err := m.addrs()
	if err != nil {
		return err
	}
	for a := range addrs {
		p.Addrs = append(p.Addrs, a)
	}
	return nil
}

// readForeign makes out what is the same in every layout: the interface, by its
// links or else by its name, and the addresses, which are keys.
func readForeign(p *PinnedPort, dir string) error {
	p.Foreign = true
	linked := false
	for _, name := range carpdev.links {
		l, err := link.LoadPinnedLink(filepath.Join(dir, name), nil)
		if err != nil {
			continue // there is none
		}
		index, err := linkIndex(l)
		l.Close()
		if err != nil {
			return fmt.Errorf("read pinned link %s: %w", name, err)
		}
		linked = true
		p.Ifindex = max(p.Ifindex, index)
	}
	if dev, err := netlink.LinkByName(p.Ifname); !linked && err == nil {
		p.Ifindex = dev.Attrs().Index
	}
	if p.Ifindex == 0 {
		return nil // and its addresses are gone with it
	}
	for _, name := range []string{xdpMapAddr4, xdpMapAddr6} {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
		if err != nil {
			continue // it had none yet
		}
		addrs, err := addrKeys(m)
		m.Close()
		if err != nil {
			return fmt.Errorf("list map %s: %w", name, err)
		}
		p.Addrs = append(p.Addrs, addrs...)
	}
	return nil
}

// addrKeys are the keys of a map of addresses, none of another map.
func addrKeys(m *ebpf.Map) (addrs []netip.Addr, err error) {
	if n := m.KeySize(); n != 4 && n != 16 {
		return nil, nil
	}
	key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	it := m.Iterate()
	for it.Next(&key, &value) {
		if a, ok := netip.AddrFromSlice(key); ok {
			addrs = append(addrs, a)
		}
	}
	return addrs, it.Err()
}

func portDirs(pinDir string) ([]string, error) {
	root, err := findRoot(pinDir)
	if root == "" {
		return nil, err
	}
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() && isPort(filepath.Join(root, e.Name())) {
			dirs = append(dirs, filepath.Join(root, e.Name()))
		}
	}
	return dirs, nil
}

// isPort reports whether a folder holds pins of ours.
func isPort(dir string) bool {
	for _, name := range slices.Concat(mapNames, carpdev.links) {
		if exists(filepath.Join(dir, name)) {
			return true
		}
	}
	return false
}

// DetachPort takes one carpdev off as Detach does, MASTER or not.
func DetachPort(pinDir, ifname string) (removed []string, err error) {
	root, err := findRoot(pinDir)
	if root == "" {
		return nil, err
	}
	if removed, err = detachPort(portDir(root, ifname)); err != nil {
		return removed, fmt.Errorf("detach %s: %w", ifname, err)
	}
	if dir := nodeDir(root); exists(dir) {
		err = dropNode(dir)
	}
	return removed, err
}

// Detach takes programs, filters, pins and entries in the devices' filters off the
// box and says what it removed. While a MASTER's lease holds, or where nobody knows,
// it refuses with ErrMaster or ErrVersion, unless forced. Of another version's pins
// entries in the devices' filters stay. It has to run in the network namespace of
// the interfaces.
func Detach(pinDir string, force bool) (removed []string, err error) {
	ports, err := Pinned(pinDir)
	if err != nil {
		return nil, err
	}
	for _, p := range ports {
		if err := p.Held(); err != nil && !force {
			return nil, fmt.Errorf("detach: %w", err)
		}
	}
	dirs, err := portDirs(pinDir)
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		r, err := detachPort(dir)
		removed = append(removed, r...)
		if err != nil {
			return removed, fmt.Errorf("detach %s: %w", unescape.Replace(filepath.Base(dir)), err)
		}
	}
	r, err := detachNode(pinDir, "")
	return append(removed, r...), err
}

func detachPort(dir string) (removed []string, err error) {
	ifname := unescape.Replace(filepath.Base(dir))
	if m, err := kitOf(dir).pinnedMaps(dir); err == nil {
		r, err := releaseDevice(m, dir, ifname)
		removed = append(removed, r...)
		if err = errors.Join(err, m.close()); err != nil {
			return removed, err
		}
	}
	if kitOf(dir) == carpdev && isPort(dir) && !carpdev.readable(dir) {
		r, err := releaseForeign(dir)
		removed = append(removed, r...)
		if err != nil {
			return removed, err
		}
	}
	for _, name := range carpdev.links {
		l, err := link.LoadPinnedLink(filepath.Join(dir, name), nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return removed, fmt.Errorf("open pinned link %s: %w", name, err)
		}
		// Detach, too: the link of a living daemon would hold on. ENOLINK
		// is the answer for an interface that is gone.
		if err = l.Detach(); errors.Is(err, unix.ENOLINK) {
			err = nil
		}
		if err = errors.Join(err, l.Unpin(), l.Close()); err != nil {
			return removed, fmt.Errorf("detach %s: %w", name, err)
		}
		removed = append(removed, ifname+" "+name+" link")
	}
	for _, name := range mapNames {
		err := os.Remove(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return removed, fmt.Errorf("remove pin: %w", err)
		}
		removed = append(removed, ifname+" "+name+" map")
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return removed, fmt.Errorf("remove pin directory: %w", err)
	}
	_ = os.Remove(filepath.Dir(dir)) // stays while another carpdev is pinned there
	return removed, nil
}

// releaseDevice ends the roles and undoes what was done to the device itself, if it
// still is the one that the pins are for.
func releaseDevice(m *maps, dir, ifname string) (removed []string, err error) {
	if m.memory != nil {
		for vhid := range 256 {
			m.word(uint8(vhid)).Store(0)
		}
		if err := leaveNode(nodeDir(filepath.Dir(dir)), m.byName[xdpMapVhids]); err != nil {
			return nil, err
		}
	}
	port, err := readPort(dir)
	if err != nil {
		return nil, err
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer nl.Close()
	ioctl, err := openSocket()
	if err != nil {
		return nil, err
	}
	defer ioctl.Close()
	dev, err := nl.LinkByName(ifname)
	if err != nil || dev.Attrs().Index != int(port.Ifindex) {
		return nil, nil // gone, and everything on it
	}
	for vhid := 1; vhid < 256; vhid++ {
		if !m.configured(uint8(vhid)) {
			continue
		}
		err := errors.Join(unadmit(nl, ioctl, dev.Attrs().Index, vmac(uint8(vhid))), unadmit(nl, ioctl, dev.Attrs().Index, mcastMAC(uint8(vhid))))
		if err != nil {
			return removed, err
		}
		removed = append(removed, fmt.Sprintf("%s filter entry %s", ifname, vmac(uint8(vhid))))
	}
	addrs, err := m.addrs()
	if err != nil {
		return removed, err
	}
	for a := range addrs {
		if a.Is6() {
			if err := unadmit(nl, ioctl, dev.Attrs().Index, solicitedNode(a)); err != nil {
				return removed, err
			}
		}
	}
	if port.Flags&xdpPortFlagPORT_PROMISC != 0 {
		if err := nl.SetPromiscOff(dev); err != nil {
			return removed, fmt.Errorf("end promiscuous mode: %w", err)
		}
	}
	r, err := removeFilters(nl, dev)
	return append(removed, r...), err
}

// releaseForeign takes off the filters that another version attached by clsact: no
// pin leads to them. What else it did to the device is in maps that are not read.
func releaseForeign(dir string) (removed []string, err error) {
	p := PinnedPort{Ifname: unescape.Replace(filepath.Base(dir))}
	if err := readForeign(&p, dir); err != nil {
		return nil, err
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer nl.Close()
	dev, err := nl.LinkByName(p.Ifname)
	if err != nil || dev.Attrs().Index != p.Ifindex {
		return nil, nil // gone, and everything on it
	}
	return removeFilters(nl, dev)
}

// linkIndex is the interface that the link is attached to, 0 if that is gone.
func linkIndex(l link.Link) (int, error) {
	info, err := l.Info()
	if err != nil {
		return 0, err
	}
	if x := info.XDP(); x != nil {
		return int(x.Ifindex), nil
	}
	if t := info.TCX(); t != nil {
		return int(t.Ifindex), nil
	}
	return 0, fmt.Errorf("link is of type %v", info.Type)
}

// attachedHere reports whether the pinned link is on the interface of this network
// namespace with that index: another namespace can have one of the same number.
func attachedHere(dir, name string, index int) (bool, error) {
	l, err := link.LoadPinnedLink(filepath.Join(dir, name), nil)
	if err != nil {
		return false, fmt.Errorf("open pinned link %s: %w", name, err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("read pinned link %s: %w", name, err)
	}
	if name == pinXDP {
		dev, err := netlink.LinkByIndex(index)
		if err != nil {
			return false, err
		}
		x := dev.Attrs().Xdp
		return x != nil && x.Attached && ebpf.ProgramID(x.ProgId) == info.Program, nil
	}
	attach := ebpf.AttachTCXIngress
	if name == pinEgress {
		attach = ebpf.AttachTCXEgress
	}
	q, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: attach})
	if err != nil {
		return false, fmt.Errorf("list tcx programs: %w", err)
	}
	for _, prog := range q.Programs {
		if prog.ID == info.Program {
			return true, nil
		}
	}
	return false, nil
}
