package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// The defaults of net.inet.carp on FreeBSD.
const (
	defaultDSCP   = 56
	defaultFactor = 240
	maxFactor     = 255 // what an advert can carry
)

// carp reads what net.inet.carp of the BSDs has for all groups.
func (r *reader) carp(c *Config, keys map[string]entry) {
	if k, ok := keys["dscp"]; ok {
		c.DSCP = r.dscp(k, c.DSCP)
	}
	for key, factor := range map[string]*int{"senderr_demotion_factor": &c.SendErr, "ifdown_demotion_factor": &c.IfDown} {
		k, ok := keys[key]
		if !ok {
			continue
		}
		if n, ok := r.number(k, 0, maxFactor, ""); ok {
			*factor = int(n)
		}
	}
}

func (r *reader) dscp(e entry, otherwise uint8) uint8 {
	if n, ok := r.number(e, 0, 63, ""); ok {
		return uint8(n)
	}
	return otherwise
}

// destination reads where a group's adverts go, and how.
func (r *reader) destination(c *Config, g *Group, keys map[string]entry) {
	if k, ok := keys["dscp"]; ok {
		g.DSCP = r.dscp(k, g.DSCP)
	}
	if k, ok := keys["lladdr"]; ok {
		g.LLAddr = r.lladdr(k)
	}
	if k, ok := keys["carppeer"]; ok {
		r.places["groups/"+g.Name+"/carppeer"] = k.value
		r.peers(c, g, k)
	}
	for _, m := range []struct {
		key     string
		is4     bool
		to      *netip.Addr
		peer    netip.Addr
		example string
	}{
		{"mcast", true, &g.Mcast4, g.Peer4, "224.0.0.18"},
		{"mcast6", false, &g.Mcast6, g.Peer6, "ff02::12"},
	} {
		k, ok := keys[m.key]
		if !ok || !r.want(k, scalar, m.example) {
			continue
		}
		a, err := netip.ParseAddr(k.value.text)
		switch {
		case err != nil || !a.IsMulticast() || a.Is4() != m.is4 || a.Zone() != "":
			r.failf(k.value, "write one such as "+m.example, "%s must be a multicast address of its family, not %s", m.key, k.value.what())
		case m.peer.IsValid():
			r.failf(k.key, "keep one of them", "group %q has both carppeer %s and %s", g.Name, m.peer, m.key)
		case !g.has(m.is4):
			r.failf(k.key, "remove it", "%s: group %q has no address of that family", m.key, g.Name)
		default:
			*m.to = a
		}
	}
}

// has reports whether the group has an address of the family.
func (g *Group) has(is4 bool) bool {
	return slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == is4 })
}

// lladdr reads a MAC address of six bytes.
func (r *reader) lladdr(e entry) []byte {
	const example = "one such as 02:00:c0:ff:ee:01"
	if !r.want(e, scalar, example) {
		return nil
	}
	mac, err := net.ParseMAC(e.value.text)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		r.failf(e.value, "write "+example, "%s cannot be the MAC address of an interface", e.value.what())
		return nil
	}
	return mac
}

// peers reads `carppeer: A`, `carppeer: [A, B]` of two families, or either of them
// by node: the file is the same on all nodes, and the peer is not.
func (r *reader) peers(c *Config, g *Group, e entry) {
	if e.value.kind != mapping {
		r.peersOf(g, e.value, true)
		return
	}
	found := false
	for _, n := range r.mapping(e.value) {
		if r.nodes != nil && !slices.Contains(r.nodes, n.key.text) {
			r.failf(n.key, meant(n.key.text, r.nodes, "known are "), "carppeer of %q, which is not in sync.nodes", n.key.text)
			continue
		}
		if !r.name("node", n.key) {
			continue
		}
		found = found || n.key.text == c.Node
		r.peersOf(g, n.value, n.key.text == c.Node)
	}
	if !found && c.Node != "" {
		r.failf(e.key, fmt.Sprintf("add %s: and the address of the member that it sends to", c.Node), "carppeer has no entry for this node, %q", c.Node)
	}
}

// peersOf reads one or two addresses and keeps them if they are this node's.
func (r *reader) peersOf(g *Group, v *node, ours bool) {
	all := []*node{v}
	if v.kind == list {
		all = v.items
	}
	if len(all) == 0 {
		r.fail(v, "carppeer has no address", "write that of the other member, or remove the key")
	}
	var four, six netip.Addr
	for _, n := range all {
		a, what := peer(g, n)
		to := &six
		if a.Is4() {
			to = &four
		}
		switch {
		case what != "":
			r.fail(n, what, "write the own address of the other member on the carpdev, such as 10.0.0.3")
		case to.IsValid():
			r.failf(n, "keep one, or leave carppeer out: multicast reaches all", "carppeer has a second address of one family, %s", a)
		default:
			*to = a
		}
	}
	if ours {
		g.Peer4, g.Peer6 = four, six
	}
}

// peer reads the address of one member; what is empty if it can be one.
func peer(g *Group, n *node) (a netip.Addr, what string) {
	if n.kind != scalar {
		return a, "carppeer must be an address, not " + n.what()
	}
	a, err := netip.ParseAddr(n.text)
	switch {
	case err != nil:
		return a, fmt.Sprintf("carppeer cannot be %s", n.what())
	case a.Zone() != "":
		return a, fmt.Sprintf("carppeer %s has a zone, and the carpdev says which link", a)
	case a.Is4In6(), a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.Is4() && a.As4()[0] >= 240:
		return a, fmt.Sprintf("carppeer %s is no address of a host", a)
	case !g.has(a.Is4()) && len(g.Addresses) > 0:
		return a, fmt.Sprintf("carppeer %s: group %q has no address of that family, so it sends no adverts of it", a, g.Name)
	}
	for _, p := range g.Addresses {
		if p.Addr() == a {
			return a, fmt.Sprintf("carppeer %s is a shared address", a)
		}
	}
	return a, ""
}
