package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Check compares a loaded Config with the machine it is to run on. It returns
// the warnings of Load, too, so its answer is all that is left to say. It fills in
// our own address on the sync link where the configuration leaves that open.
func Check(c *Config, sys System) []Problem { return check(c, sys, false) }

// check is Check. A Config that is partial, because its text has mistakes, is held
// against the interfaces of the machine only, where it names any.
func check(c *Config, sys System, partial bool) []Problem {
	k := &checker{c: c, sys: sys}
	for _, w := range c.Warnings {
		k.found = append(k.found, *w)
	}
	if sys.EUID != 0 && !partial {
		k.fail("", "not running as root", "attaching programs and changing addresses needs it: use sudo, or the systemd unit")
	}
	if c.Sync != nil {
		c.Sync.resolve(sys)
		if !partial || c.Sync.Dev != "" && c.Sync.Local.IsValid() {
			k.sync(c.Sync)
		}
	}
	seen := map[string]bool{}
	has4, has6 := false, false
	for i := range c.Groups {
		g := &c.Groups[i]
		place := "groups/" + g.Name
		if partial && g.Carpdev == "" {
			continue
		}
		i := k.carpdev(place+"/carpdev", g, seen[g.Carpdev])
		seen[g.Carpdev] = true
		for _, p := range g.Addresses {
			has4, has6 = has4 || p.Addr().Is4(), has6 || p.Addr().Is6()
			if i != nil {
				k.address(place+"/"+p.String(), i, g, p)
			}
		}
		if i != nil {
			k.peer(place+"/carppeer", i, g.Peer4)
			k.peer(place+"/carppeer", i, g.Peer6)
		}
	}
	if partial {
		return k.found
	}
	k.programs()
	if has4 && !sys.Forward4 {
		k.warn("", "net.ipv4.ip_forward is 0, so this node routes nothing", "sysctl -w net.ipv4.ip_forward=1 if it is a router")
	}
	if has6 && !sys.Forward6 {
		k.warn("", "net.ipv6.conf.all.forwarding is 0, so this node routes no IPv6",
			"sysctl -w net.ipv6.conf.all.forwarding=1 if it is a router")
	}
	return k.found
}

// checker collects problems; a place is a key of source.places.
type checker struct {
	c     *Config
	sys   System
	found []Problem
}

func (k *checker) fail(place, what, fix string) {
	problem := k.c.problem
	if problem == nil { // a Config that was not loaded from a text
		problem = (&source{path: k.c.Path}).at
	}
	k.found = append(k.found, *problem(place, what, fix))
}

func (k *checker) warn(place, what, fix string) {
	k.fail(place, what, fix)
	k.found[len(k.found)-1].Warning = true
}

// device finds an interface, or says that there is none.
func (k *checker) device(place, key, name string) *Interface {
	var names []string
	for i := range k.sys.Interfaces {
		if k.sys.Interfaces[i].Name == name {
			return &k.sys.Interfaces[i]
		}
		if !k.sys.Interfaces[i].Loopback {
			names = append(names, k.sys.Interfaces[i].Name)
		}
	}
	fix := "create it first"
	if len(names) > 0 && len(names) <= 16 {
		fix = meant(name, names, "there are ")
	} else if like := nearest(name, names); like != "" {
		fix = fmt.Sprintf("did you mean %q?", like)
	}
	k.fail(place, fmt.Sprintf("%s: no interface %q", key, name), fix)
	return nil
}

// carpdev looks at the interface of a group; what is wrong with it is said
// once if several groups share it.
func (k *checker) carpdev(place string, g *Group, again bool) *Interface {
	i := k.device(place, "carpdev", g.Carpdev)
	if i == nil || again {
		return i
	}
	switch {
	case i.Loopback:
		k.fail(place, fmt.Sprintf("carpdev %s is the loopback interface", i.Name), "name the interface to the network of the addresses")
		return nil
	case !i.Ethernet:
		k.fail(place, fmt.Sprintf("carpdev %s is not an Ethernet interface", i.Name), "CARP needs one: the virtual MAC has no meaning elsewhere")
		return nil
	case !i.Up:
		k.warn(place, fmt.Sprintf("carpdev %s is down", i.Name), fmt.Sprintf("ip link set %s up", i.Name))
	}
	return i
}

// address checks that the subnet of a shared address is reachable on its own:
// the shared address comes as a /32 or /128 and goes away with the role, and a
// backup that has no route to the subnet cannot forward for flows it still has.
func (k *checker) address(place string, i *Interface, g *Group, p netip.Prefix) {
	connected := p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() // fe80::/64 is on every link
	for _, own := range i.Addresses {
		if own.Addr() == p.Addr() {
			if !own.IsSingleIP() {
				k.fail(place, fmt.Sprintf("shared address %s is configured on %s permanently", p.Addr(), i.Name),
					fmt.Sprintf("ip addr del %s dev %s, also in the network configuration: xcarp adds it while MASTER", own, i.Name))
				return
			}
			continue
		}
		connected = connected || own.Contains(p.Addr())
	}
	for _, r := range i.Routes {
		connected = connected || r.Bits() > 0 && !r.IsSingleIP() && r.Contains(p.Addr())
	}
	if connected {
		return
	}
	what := fmt.Sprintf("no address and no connected route on %s for the subnet of %s", i.Name, p)
	fix := fmt.Sprintf("give %s an own address in it, or: ip route add %s dev %s", i.Name, p.Masked(), i.Name)
	if p.IsSingleIP() {
		fix = fmt.Sprintf("give %s an own address in its subnet, or a route to the subnet", i.Name)
	}
	if g.Mode == NextHop {
		k.warn(place, what, fix)
		return
	}
	k.fail(place, what, fix)
}

// resolve finds our own address where the configuration leaves it to the machine.
func (s *Sync) resolve(sys System) {
	if !s.ByAddress || s.Local.IsValid() {
		return
	}
	for _, i := range sys.Interfaces {
		for _, own := range i.Addresses {
			for _, peer := range s.Peers {
				if i.Name == s.Dev && own.Contains(peer) && own.Addr() != peer {
					s.Local = own.Addr()
				}
			}
		}
	}
}

// peer checks that adverts reach the one member they are for with the TTL that
// it must find, 255, and that it can answer.
func (k *checker) peer(place string, i *Interface, a netip.Addr) {
	if !a.IsValid() {
		return
	}
	own, near := false, a.Is6() && a.IsLinkLocalUnicast()
	for _, o := range i.Addresses {
		if o.Addr() == a {
			k.fail(place, fmt.Sprintf("carppeer %s is our own address on %s", a, i.Name),
				"name the other member; by node, if the file is the same on all: {fw-a: 10.0.0.3, fw-b: 10.0.0.2}")
			return
		}
		own = own || o.Addr().Is4() == a.Is4()
		near = near || o.Contains(a)
	}
	for _, r := range i.Routes {
		near = near || r.Bits() > 0 && r.Contains(a)
	}
	switch {
	case !near:
		k.fail(place, fmt.Sprintf("carppeer %s is in no subnet of %s", a, i.Name),
			"name an address there: an advert that crossed a router is refused")
	case !own:
		k.warn(place, fmt.Sprintf("%s has no own address of the family of carppeer %s", i.Name, a),
			"give it one: the other member needs an address to send to")
	}
}

func (k *checker) sync(s *Sync) {
	i := k.device("sync/dev", "sync.dev", s.Dev)
	for n := range k.c.Groups {
		if g := &k.c.Groups[n]; g.Carpdev == s.Dev {
			k.warn("sync/dev", fmt.Sprintf("sync.dev %s is also the carpdev of group %q", s.Dev, g.Name),
				"use a link of its own: when one fails, the other tells a dead node from a dead link")
			break
		}
	}
	if i == nil {
		return
	}
	if !i.Up {
		k.warn("sync/dev", fmt.Sprintf("sync.dev %s is down", i.Name), fmt.Sprintf("ip link set %s up", i.Name))
	}
	local := false
	for _, a := range i.Addresses {
		local = local || a.Addr() == s.Local
	}
	if !s.Local.IsValid() {
		for _, peer := range s.Peers {
			k.fail("sync/local", fmt.Sprintf("no address on %s in a subnet with syncpeer %s", i.Name, peer), fmt.Sprintf("ip addr add, on %s", i.Name))
		}
		return
	}
	if !local {
		fix := fmt.Sprintf("ip addr add %s/%d dev %s", s.Local, s.Local.BitLen()-2, i.Name)
		for _, o := range k.sys.Interfaces {
			for _, a := range o.Addresses {
				if a.Addr() == s.Local {
					fix = fmt.Sprintf("it is on %s; set sync.dev to %s or give each node its address on %s", o.Name, o.Name, i.Name)
				}
			}
		}
		k.fail("sync/local", fmt.Sprintf("our sync address %s is not on %s", s.Local, i.Name), fix)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(s.Peers)) {
		peer := s.Peers[name]
		near := false
		for _, p := range append(append([]netip.Prefix{}, i.Addresses...), i.Routes...) {
			near = near || p.Contains(peer)
		}
		if !near {
			k.warn("sync/peers/"+name, fmt.Sprintf("sync address %s of %s is not in a subnet of %s", peer, name, i.Name),
				"put both into one subnet, or make sure that a route leads there")
		}
	}
}
