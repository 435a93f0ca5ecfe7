package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/loader"
	"github.com/xcarp/xcarp/internal/netns"
)

// The addresses of the lab: documentation and private ranges, as in the README.
const (
	SharedLAN  = "10.0.0.1"
	SharedWAN  = "203.0.113.1"
	SharedLAN6 = "fd00:1::1"
	SharedWAN6 = "2001:db8:1::1"

	clientAddr  = "10.0.0.100"
	serverAddr  = "203.0.113.100"
	ownWANa     = "203.0.113.2"
	ownWANb     = "203.0.113.3"
	serverAddr6 = "2001:db8:1::100"
)

// Net is the lab: three bridges, two routers, a client and a server.
type Net struct {
	ID     string // unique on the machine while the lab lives: the maker's pid
	Dir    string // files of the run: configs, keys, logs; removed by Close
	A, B   *Node  // fw-a, fw-b
	Client *Node
	Server *Node

	sw      *Switch
	epoch   time.Time
	mounted bool // the BPF file system, by us
}

// now is the time since the lab was made; all stamps of a run are of this kind.
func (n *Net) now() time.Duration { return time.Since(n.epoch) }

// Routers returns fw-a and fw-b.
func (n *Net) Routers() []*Node { return []*Node{n.A, n.B} }

// nsPrefix begins the name of every namespace of a lab; the maker's pid follows.
const nsPrefix = "xlab-"

// New builds the lab. Nothing runs in it yet. On an error all is taken down.
func New(ctx context.Context, mode Mode) (_ *Net, err error) {
	n := &Net{ID: fmt.Sprint(os.Getpid()), epoch: time.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.Dir, err = os.MkdirTemp("", dirPrefix+n.ID+"-"); err != nil {
		return n, fmt.Errorf("make the lab's directory: %w", err)
	}
	if n.sw, err = newSwitch(nsPrefix+n.ID+"-sw", "lan", "wan", "sync"); err != nil {
		return n, err
	}
	for _, m := range []struct {
		at   **Node
		name string
	}{{&n.A, "fw-a"}, {&n.B, "fw-b"}, {&n.Client, "client"}, {&n.Server, "server"}} {
		if *m.at, err = newNode(n, m.name); err != nil {
			return n, err
		}
	}
	for _, c := range []cable{
		{n.A, "eth0", "wan", []string{ownWANa + "/24", "2001:db8:1::2/64"}},
		{n.A, "eth1", "lan", []string{"10.0.0.2/24", "fd00:1::2/64"}},
		{n.A, "eth2", "sync", []string{"172.30.0.1/24"}},
		{n.B, "eth0", "wan", []string{ownWANb + "/24", "2001:db8:1::3/64"}},
		{n.B, "eth1", "lan", []string{"10.0.0.3/24", "fd00:1::3/64"}},
		{n.B, "eth2", "sync", []string{"172.30.0.2/24"}},
		{n.Client, "eth0", "lan", []string{clientAddr + "/24", "fd00:1::100/64"}},
		{n.Server, "eth0", "wan", []string{serverAddr + "/24", "2001:db8:1::100/64"}},
	} {
		if err = n.sw.plug(c); err != nil {
			return n, err
		}
	}
	for _, r := range n.Routers() {
		if err = r.makeRouter(ctx, mode); err != nil {
			return n, err
		}
	}
	return n, n.makeRoutes(ctx, mode)
}

// other returns the router that a node is not.
func (n *Net) other(node *Node) *Node {
	if node == n.A {
		return n.B
	}
	return n.A
}

// loadRuleset replaces the node's nft ruleset.
func (n *Node) loadRuleset(ctx context.Context, rules string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	var out []byte
	err := n.NS.Do(func() error {
		var err error
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		return fmt.Errorf("load the ruleset of %s: %w: %s", n.Name, err, out)
	}
	return nil
}

// Close stops everything that the lab started and removes everything that it
// made. It can be called more than once.
func (n *Net) Close() error {
	var errs []error
	for _, m := range []*Node{n.A, n.B, n.Client, n.Server} {
		if m != nil {
			errs = append(errs, m.close())
		}
	}
	n.A, n.B, n.Client, n.Server = nil, nil, nil, nil
	if n.sw != nil {
		errs = append(errs, n.sw.close())
		n.sw = nil
	}
	errs = append(errs, removePins(n.ID), n.unmountBPF())
	if n.Dir != "" {
		errs = append(errs, os.RemoveAll(n.Dir))
	}
	return errors.Join(errs...)
}

// cable joins a node's interface to a bridge.
type cable struct {
	node   *Node
	dev    string
	bridge string
	addrs  []string
}

// Switch is a namespace with bridges in it.
type Switch struct {
	ns      *netns.NS
	h       *netlink.Handle
	bridges map[string]netlink.Link
	ports   map[portKey]netlink.Link
}

// portKey names a port by what is plugged into it.
type portKey struct{ node, bridge string }

func newSwitch(name string, bridges ...string) (*Switch, error) {
	ns, h, err := openNS(name)
	if err != nil {
		return nil, err
	}
	s := &Switch{ns: ns, h: h, bridges: map[string]netlink.Link{}, ports: map[portKey]netlink.Link{}}
	for _, b := range bridges {
		off := false
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br-" + b}, MulticastSnooping: &off}
		if err := h.LinkAdd(br); err != nil {
			return nil, errors.Join(fmt.Errorf("make bridge %s: %w", b, err), s.close())
		}
		if err := h.LinkSetUp(br); err != nil {
			return nil, errors.Join(fmt.Errorf("bring up bridge %s: %w", b, err), s.close())
		}
		s.bridges[b] = br
	}
	return s, nil
}

// openNS makes a namespace in which IPv6 addresses are usable at once, and a
// netlink handle in it.
func openNS(name string) (*netns.NS, *netlink.Handle, error) {
	ns, err := netns.New(name)
	if err != nil {
		return nil, nil, err
	}
	var h *netlink.Handle
	err = ns.Do(func() error {
		var err error
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
		return err
	})
	for _, key := range []string{"accept_dad", "router_solicitations", "accept_ra"} {
		if err == nil {
			err = ns.WriteSysctl("net/ipv6/conf/default/"+key, "0")
		}
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("prepare %s: %w", name, err), ns.Close())
	}
	return ns, h, nil
}

// plug makes the cable, both ends up, and gives the node's end its addresses.
func (s *Switch) plug(c cable) error {
	port := strings.TrimPrefix(c.node.Name, "fw-") + "-" + c.bridge
	err := s.h.LinkAdd(&netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: port, MasterIndex: s.bridges[c.bridge].Attrs().Index},
		PeerName:      c.dev,
		PeerNamespace: netlink.NsFd(c.node.NS.Fd()),
	})
	if err != nil {
		return fmt.Errorf("plug %s into %s: %w", c.node.Name, c.bridge, err)
	}
	l, err := s.h.LinkByName(port)
	if err != nil {
		return fmt.Errorf("find port %s: %w", port, err)
	}
	if err := s.h.LinkSetUp(l); err != nil {
		return fmt.Errorf("bring up port %s: %w", port, err)
	}
	// XDP_TX of a router is delivered at once only to a peer with a program.
	if err := s.ns.Do(func() error { return loader.AttachPass(port) }); err != nil {
		return fmt.Errorf("port %s: %w", port, err)
	}
	s.ports[portKey{c.node.Name, c.bridge}] = l

	dev, err := c.node.h.LinkByName(c.dev)
	if err != nil {
		return fmt.Errorf("find %s of %s: %w", c.dev, c.node.Name, err)
	}
	for _, cidr := range c.addrs {
		a, err := netlink.ParseAddr(cidr)
		if err != nil {
			return err
		}
		a.Flags |= unix.IFA_F_NODAD
		if err := c.node.h.AddrAdd(dev, a); err != nil {
			return fmt.Errorf("give %s of %s the address %s: %w", c.dev, c.node.Name, cidr, err)
		}
	}
	if err := c.node.h.LinkSetUp(dev); err != nil {
		return fmt.Errorf("bring up %s of %s: %w", c.dev, c.node.Name, err)
	}
	return nil
}

func (s *Switch) close() error {
	s.h.Close()
	return s.ns.Close()
}
