package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// node finds out who we are. A host name that is not among the nodes may be so
// without its domain.
func (r *reader) node(c *Config, keys map[string]entry) {
	c.Node = r.hostname
	if k, ok := keys["node"]; ok {
		if r.want(k, scalar, "a name, such as fw-a") && r.name("node", k.value) {
			c.Node = k.value.text
			r.places["node"] = k.value
		} else {
			c.Node = ""
		}
		return
	}
	s, ok := keys["sync"]
	if !ok || s.value.kind != mapping {
		return
	}
	for _, e := range s.value.entries {
		if e.key.text != "nodes" {
			continue
		}
		short, _, _ := strings.Cut(r.hostname, ".")
		for _, n := range e.value.entries {
			if n.key.text == r.hostname {
				return
			}
		}
		for _, n := range e.value.entries {
			if n.key.text == short {
				c.Node = short
				return
			}
		}
	}
}

// sync reads the section of that name.
func (r *reader) sync(c *Config, e entry) {
	const example = "sync: {dev: eth2, nodes: {fw-a: 172.30.0.1, fw-b: 172.30.0.2}}"
	if !r.want(e, mapping, example) {
		return
	}
	s := &Sync{Port: 4112, Hold: 10 * time.Minute, Peers: map[string]netip.Addr{}}
	c.Sync = s
	r.places["sync"] = e.key
	if r.keyFile == nil {
		r.fail(e.key, "sync needs a key",
			"run (umask 077; xcarp keygen > /etc/xcarp/xcarp.key), copy the file to all nodes, and set key_file")
	}
	keys := r.section(e.value, syncSection)
	if k, ok := keys["dev"]; ok {
		s.Dev = r.device(k)
		r.places["sync/dev"] = k.value
	} else if !misspelt(e.value, syncSection, "dev") {
		r.fail(e.key, "sync has no dev", "name the interface to the peer: "+example)
	}
	if k, ok := keys["port"]; ok {
		if n, ok := r.number(k, 1, 65535, ""); ok {
			s.Port = uint16(n)
		}
	}
	if k, ok := keys["hold"]; ok {
		if d, ok := r.duration(k, time.Second, 24*time.Hour); ok {
			s.Hold = d
		}
	}
	if k, ok := keys["nodes"]; ok && r.want(k, mapping, "nodes: {fw-a: 172.30.0.1, fw-b: 172.30.0.2}") {
		r.syncNodes(c, k)
	} else if !ok && !misspelt(e.value, syncSection, "nodes") {
		r.fail(e.key, "sync has no nodes", example)
	}
}

func (r *reader) syncNodes(c *Config, e entry) {
	r.nodes = []string{}
	seen := map[netip.Addr]string{}
	good := true
	for _, n := range r.mapping(e.value) {
		if !r.name("node", n.key) {
			good = false
			continue
		}
		name := n.key.text
		r.nodes = append(r.nodes, name)
		a, what := syncAddress(n.value)
		if what != "" {
			r.failf(n.value, "write its own address on the sync link, without a prefix length", "sync address of %s %s", name, what)
			continue
		}
		if other := seen[a]; other != "" {
			r.failf(n.value, "give each node its own", "sync address %s is already that of %s", a, other)
			continue
		}
		seen[a] = name
		if name == c.Node {
			c.Sync.Local = a
			r.places["sync/local"] = n.value
		} else {
			c.Sync.Peers[name] = a
			r.places["sync/peers/"+name] = n.value
		}
	}
	for a, name := range seen {
		if c.Sync.Local.IsValid() && name != c.Node && a.Is4() != c.Sync.Local.Is4() {
			r.failf(r.places["sync/peers/"+name], "write all as IPv4 or all as IPv6", "sync address of %s is of another family than ours", name)
		}
	}
	switch {
	case !good || c.Node == "": // said already
	case len(r.nodes) == 0:
		r.fail(e.key, "sync.nodes is empty", "write nodes: {fw-a: 172.30.0.1, fw-b: 172.30.0.2}")
	case !slices.Contains(r.nodes, c.Node):
		at, what := r.places["node"], "node"
		if at == nil {
			at, what = e.key, "the host name"
		}
		r.failf(at, meant(c.Node, r.nodes, "set node to one of "), "%s %q is not in sync.nodes", what, c.Node)
	case len(r.nodes) == 1:
		r.fail(e.key, "sync.nodes names no peer", "add the other node and its address")
	}
}

// syncAddress reads the unicast address of a node.
func syncAddress(n *node) (a netip.Addr, what string) {
	if n.kind != scalar {
		return a, "must be one value, not " + n.what()
	}
	if _, err := netip.ParsePrefix(n.text); err == nil {
		return a, "has a prefix length"
	}
	a, err := netip.ParseAddr(n.text)
	switch {
	case err != nil:
		return a, fmt.Sprintf("is %q, which is not an address", n.text)
	case a.Zone() != "":
		return a, "has a zone, but sync.dev says which link"
	case a.Is4In6():
		return a, "is an IPv4-mapped one"
	case a.IsUnspecified(), a.IsMulticast(), a.IsLoopback(), a.Is4() && a.As4()[0] >= 240:
		return a, fmt.Sprintf("is %s, which no peer can reach", a)
	}
	return a, ""
}
