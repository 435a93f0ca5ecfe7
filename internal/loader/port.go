package loader

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Mode is how the gate is attached.
type Mode string

// Auto is only ever asked for: native where the driver can, else generic, else tc.
const (
	Auto    Mode = "auto"
	Native  Mode = "native"  // XDP in the driver, before there is an skb
	Generic Mode = "generic" // XDP in the stack, for every driver
	TC      Mode = "tc"      // no XDP: tc ingress does everything
)

// Shielding is what the programs do about forged adverts.
type Shielding string

// Limit is for kernels that refuse the programs that verify.
const (
	Verify Shielding = "verify" // digests and trailers are checked in the kernel
	Limit  Shielding = "limit"  // only the number of adverts is limited
)

// Options of Open.
type Options struct {
	PinDir string // on a bpffs, which is mounted if it is missing
	Mode   Mode   // "" is Auto
	Log    *zap.Logger

	clsact bool // even where the kernel has tcx
}

// ErrClosed is returned by the methods of a closed Port.
var ErrClosed = errors.New("port is closed")

// Port is one carpdev with its programs and maps. Its methods may be called from
// several goroutines. Open and Recheck have to run in the network namespace of the
// interface; the others work anywhere.
type Port struct {
	name  string
	index int
	kit   *kit
	dir   string
	node  string // where the node's maps are pinned
	log   *zap.Logger
	nl    *netlink.Handle
	ioctl socket

	// A renewal of a lease must not wait for a listing of counters or a slow
	// netlink answer: alive is only ever held for writing by Close.
	alive sync.RWMutex
	maps  *maps // nil after Close
	links []link.Link

	roles sync.Mutex
	last  [256]uint64 // role words as last seen: where SetRole swaps from

	believed sync.Mutex
	known    [256]*known

	device sync.Mutex // groups and what follows from the device
	mode   Mode
	shield Shielding
	answer string
	opts   Options
	fresh  bool // nothing was pinned before Open
	alone  bool // nor anything of the node's
	old    bool // the programs are those of an earlier process, perhaps of another build
	mac    net.HardwareAddr
}

// Open attaches the programs to the interface, or adopts what an earlier process
// left: its programs until Renew, its maps with their roles.
// An interface that was deleted and made again gets new ones. Open refuses to
// replace a foreign XDP program.
func Open(ifname string, o Options) (*Port, error) {
	if o.Mode == "" {
		o.Mode = Auto
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	p := &Port{name: ifname, kit: carpdev, opts: o, log: o.Log.With(zap.String("carpdev", ifname))}
	if err := p.open(o); err != nil {
		// What stayed behind would be half a dataplane.
		return nil, errors.Join(fmt.Errorf("open carpdev %q: %w", ifname, err), p.Undo())
	}
	return p, nil
}

func (p *Port) open(o Options) error {
	dev, err := netlink.LinkByName(p.name)
	if err != nil {
		return err
	}
	p.index = dev.Attrs().Index
	if p.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if p.ioctl, err = openSocket(); err != nil {
		return err
	}
	root, err := pinRoot(o.PinDir)
	if err != nil {
		return err
	}
	p.node = nodeDir(root)
	if p.kit == carpdev {
		p.dir = portDir(root, p.name)
		_, err = detachPort(syncDir(root, p.name)) // it was the sync device before
	} else {
		p.dir = syncDir(root, p.name)
	}
	if err != nil {
		return err
	}
	if err := p.dropStale(); err != nil {
		return err
	}
	p.fresh, p.alone = !exists(p.dir), !exists(p.node)
	return p.attach(dev, o)
}

// attachPrograms puts the fence up first and XDP last: at no time is there a gate
// without a fence behind it.
func (p *Port) attachPrograms(o Options) error {
	if err := p.attachTC(o); err != nil {
		return err
	}
	if err := p.attachXDP(o); err != nil {
		return err
	}
	p.signPrograms()
	return nil
}

// adopt takes the programs over as they are, if all that Open would attach is.
func (p *Port) adopt(o Options) (bool, error) {
	var links []link.Link
	let := func() {
		for _, l := range links {
			l.Close()
		}
	}
	mode, err := attachedMode(p.index)
	if err != nil {
		return false, err
	}
	for _, name := range p.kit.links {
		l, err := link.LoadPinnedLink(filepath.Join(p.dir, name), nil)
		if errors.Is(err, os.ErrNotExist) {
			if name != pinXDP && hasFilter(p.nl, p.index, name) {
				continue
			}
			let()
			return false, nil
		}
		if err != nil {
			let()
			return false, fmt.Errorf("open pinned link %s: %w", name, err)
		}
		links = append(links, l)
	}
	if mode == TC || o.Mode != Auto && o.Mode != mode {
		let()
		return false, nil
	}
	p.links, p.mode = links, mode
	return true, nil
}

// Renew replaces programs that Open has adopted by those of this version, without
// a gap, if they are of another one. Loading takes the kernel's verifier tens of
// milliseconds, and more on a starved CPU: that is not for the time in which a lease
// runs out. For up to ten of them it lets nothing else onto its CPU, softirqs included,
// where the kernel does not preempt itself: what is the same stays.
func (p *Port) Renew() error {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return ErrClosed
	}
	p.device.Lock()
	defer p.device.Unlock()
	if !p.old {
		return nil
	}
	same := p.ofThisBuild()
	if p.old = false; same {
		return nil
	}
	for _, l := range p.links {
		l.Close() // they stay pinned
	}
	p.links = nil
	if err := p.attachPrograms(p.opts); err != nil {
		return fmt.Errorf("renew the programs of %q: %w", p.name, err)
	}
	return nil
}

// attach opens the maps and makes sure that programs are attached.
func (p *Port) attach(dev netlink.Link, o Options) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return fmt.Errorf("make pin directory: %w", err)
	}
	var err error
	if p.maps, err = p.kit.openMaps(p.dir, p.node, p.index); err != nil {
		return err
	}
	for vhid := range 256 {
		if p.maps.memory != nil {
			p.last[vhid] = p.maps.word(uint8(vhid)).Load()
		}
	}
	if err := p.identify(dev); err != nil {
		return err
	}
	adopted, err := p.adopt(o)
	if err != nil {
		return err
	}
	if p.old = adopted; !adopted {
		if err := p.attachPrograms(o); err != nil {
			return err
		}
	}
	if err := p.recheck(); err != nil {
		return err
	}
	return nil
}

// dropStale takes away what was pinned for an interface of this name that is gone,
// and refuses to touch what belongs to one that lives on.
func (p *Port) dropStale() error {
	if !exists(p.dir) {
		return nil
	}
	if !p.kit.readable(p.dir) {
		p.log.Warn("pins are of another layout, making new ones: every role starts as BACKUP")
		_, err := detachPort(p.dir)
		return err
	}
	for _, name := range p.kit.links {
		l, err := link.LoadPinnedLink(p.dir+"/"+name, nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("open pinned link %s: %w", name, err)
		}
		index, err := linkIndex(l)
		l.Close()
		if err != nil {
			return fmt.Errorf("read pinned link %s: %w", name, err)
		}
		switch {
		case index == p.index:
			here, err := attachedHere(p.dir, name, p.index)
			if err != nil {
				return err
			}
			if !here {
				return fmt.Errorf("%s holds the pins of an interface %s in another network namespace: use another pin directory", p.dir, p.name)
			}
		case index != 0: // renamed
			return fmt.Errorf("%s holds the pins of a living interface with index %d, this one has %d: run xcarp detach", p.dir, index, p.index)
		default:
			p.log.Info("interface was made anew, dropping the pins of the old one")
			_, err := detachPort(p.dir)
			return err
		}
	}
	// With clsact there is no link that knows; the map does.
	if pinned, err := readPort(p.dir); err == nil && int(pinned.Ifindex) != p.index {
		p.log.Info("interface was made anew, dropping the pins of the old one")
		_, err := detachPort(p.dir)
		return err
	}
	return nil
}

// identify writes the device's own MAC into the map and remembers it.
func (p *Port) identify(dev netlink.Link) error {
	mac := dev.Attrs().HardwareAddr
	if len(mac) != 6 {
		return fmt.Errorf("hardware address %q is not Ethernet's", mac)
	}
	p.mac = mac
	return p.maps.updatePort(func(port *xdpPort) {
		copy(port.Mac[:], mac)
		port.Ifindex = uint32(p.index)
	})
}

// Recheck looks again at what can change under a running port: the device's MAC,
// IPv6 forwarding, and whether XDP_TX is delivered in time.
func (p *Port) Recheck() error {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return ErrClosed
	}
	p.device.Lock()
	defer p.device.Unlock()
	before := p.answer
	if err := p.recheck(); err != nil {
		return fmt.Errorf("recheck carpdev %q: %w", p.name, err)
	}
	if before != p.answer {
		p.log.Info("dataplane", zap.String("mode", string(p.mode)), zap.String("answer", p.answer))
	}
	return nil
}

func (p *Port) recheck() error {
	dev, err := netlink.LinkByIndex(p.index)
	if err != nil {
		return err
	}
	if err := p.identify(dev); err != nil {
		return err
	}
	p.answer = "tc"
	if p.mode == Generic || p.mode == Native && txInTime(dev) {
		p.answer = "xdp"
	}
	router := isRouter(dev.Attrs().Name) // which may have been renamed
	return p.maps.updatePort(func(port *xdpPort) {
		set(&port.Flags, xdpPortFlagPORT_XDP, p.mode != TC)
		set(&port.Flags, xdpPortFlagPORT_ANSWER_TC, p.answer == "tc")
		set(&port.Flags, xdpPortFlagPORT_ROUTER, router)
	})
}

// isRouter reports whether the interface forwards IPv6: neighbour advertisements
// of a router carry the R flag, RFC 4861 section 4.4.
func isRouter(ifname string) bool {
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + ifname + "/forwarding")
	return err == nil && len(b) > 0 && b[0] != '0'
}

func set(flags *xdpPortFlag, bit xdpPortFlag, on bool) {
	*flags &^= bit
	if on {
		*flags |= bit
	}
}

// Mode is how the gate is attached: Native, Generic or TC.
func (p *Port) Mode() Mode {
	p.device.Lock()
	defer p.device.Unlock()
	return p.mode
}

// Shielding says what the programs do about forged adverts. Of adopted programs it
// is known after Renew.
func (p *Port) Shielding() Shielding {
	p.device.Lock()
	defer p.device.Unlock()
	return p.shield
}

// Answer says who answers ARP and neighbour solicitations: "xdp" or "tc".
func (p *Port) Answer() string {
	p.device.Lock()
	defer p.device.Unlock()
	return p.answer
}

// HardwareAddr is the device's own MAC, as of Open or the last Recheck.
func (p *Port) HardwareAddr() net.HardwareAddr {
	p.device.Lock()
	defer p.device.Unlock()
	return p.mac
}

// Close lets go. Programs, maps and links stay pinned and go on working: a role
// that was set holds until its deadline.
func (p *Port) Close() error {
	p.alive.Lock()
	defer p.alive.Unlock()
	var errs []error
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	p.links = nil
	if p.maps != nil {
		errs = append(errs, p.maps.close())
		p.maps = nil
	}
	if p.nl != nil {
		p.nl.Close()
		p.nl = nil
	}
	if p.ioctl != 0 {
		errs = append(errs, p.ioctl.Close())
		p.ioctl = 0
	}
	return errors.Join(errs...)
}

// Undo takes off again what Open attached, and lets go. What an earlier process
// had attached already stays as it is.
func (p *Port) Undo() error {
	err := p.Close() // first: the way back needs descriptors, too
	if p.fresh {
		err = errors.Join(err, p.takeOff())
	}
	return err
}

// takeOff removes what the port pinned, and what it pinned of the node's if nobody
// else is there.
func (p *Port) takeOff() error {
	_, err := detachPort(p.dir)
	if err != nil || !p.alone {
		return err
	}
	return dropNode(p.node)
}

// load loads one program of a spec with the port's maps.
func (p *Port) load(spec *ebpf.CollectionSpec, name string) (*ebpf.Program, error) {
	for other := range spec.Programs {
		if other != name {
			delete(spec.Programs, other)
		}
	}
	replace := map[string]*ebpf.Map{}
	for m := range spec.Maps {
		replace[m] = p.maps.byName[m]
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		return nil, fmt.Errorf("load program %s: %w", name, err)
	}
	defer c.Close()
	return c.DetachProgram(name), nil
}
