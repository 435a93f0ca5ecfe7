package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Balance says how several vhids share the addresses of a group.
type Balance string

// The ways to share; see bpf/share.h.
const (
	BalanceARP     Balance = "arp"        // each neighbour is told the virtual MAC of one vhid
	BalanceIP      Balance = "ip"         // all nodes receive all frames, by a multicast MAC
	BalanceStealth Balance = "ip-stealth" // the same by a MAC that switches never learn
)

// BalanceBy says what neighbours are told apart by.
type BalanceBy string

// The ways to tell them apart.
const (
	BalanceByMAC      BalanceBy = "mac" // the hash of OpenBSD and NetBSD
	BalanceBySourceIP BalanceBy = "source-ip"
)

// CarpNode is one of the vhids that share the addresses of a group.
type CarpNode struct {
	VHID    uint8
	AdvSkew uint8 // of this node
}

// maxCarpNodes is how many vhids can share an address, as on OpenBSD.
const maxCarpNodes = 32

// Elections returns what the group is to the election: itself, or for each of its
// carpnodes a group of that vhid, called GROUP/VHID.
func (g *Group) Elections() []*Group {
	if len(g.CarpNodes) == 0 {
		return []*Group{g}
	}
	var all []*Group
	for _, n := range g.CarpNodes {
		e := *g
		e.Of, e.Name = g.Name, g.Name+"/"+strconv.Itoa(int(n.VHID))
		e.VHID, e.AdvSkew = n.VHID, n.AdvSkew
		all = append(all, &e)
	}
	return all
}

// Shared is the name of the group as the file has it, also of an election.
func (g *Group) Shared() string { return cmp.Or(g.Of, g.Name) }

// Election returns the group of an election's name, and the place of its vhid
// among those that share; nil if there is none.
func (c *Config) Election(name string) (g *Group, place int) {
	shared, vhid, has := strings.Cut(name, "/")
	g = c.Group(shared)
	if g == nil || has != (len(g.CarpNodes) > 0) {
		return nil, 0
	}
	if !has {
		return g, 0
	}
	place = slices.IndexFunc(g.CarpNodes, func(n CarpNode) bool { return strconv.Itoa(int(n.VHID)) == vhid })
	if place < 0 {
		return nil, 0
	}
	return g, place
}

// Has reports whether the name is that of a group, or of one of its elections.
func (c *Config) Has(name string) bool {
	g, _ := c.Election(name)
	return g != nil || c.Group(name) != nil
}

// Together reports whether two elections are of one bundle: where groups share
// their addresses, the first vhids of each move together, and so on.
func (c *Config) Together(a, b string) bool {
	g, i := c.Election(a)
	h, j := c.Election(b)
	return g != nil && h != nil && g != h && i == j && slices.ContainsFunc(c.Bundles, func(bundle []string) bool {
		return slices.Contains(bundle, g.Name) && slices.Contains(bundle, h.Name)
	})
}

// Concerns reports whether what is asked of one group or election, or of all if
// that is empty, concerns an election: a bundle moves together.
func (c *Config) Concerns(asked, election string) bool {
	if asked == "" || asked == election || c.Together(asked, election) {
		return true
	}
	if g := c.Group(asked); g != nil {
		return slices.ContainsFunc(g.Elections(), func(e *Group) bool {
			return e.Name == election || c.Together(e.Name, election)
		})
	}
	return false
}

// vhids reads which vhids the group has: one, or those that share its addresses.
func (r *reader) vhids(c *Config, g *Group, e entry, keys map[string]entry, seen map[string]string) {
	take := func(at *node, vhid uint8) {
		id := fmt.Sprintf("vhid %d on %s", vhid, g.Carpdev)
		if other := seen[id]; g.Carpdev != "" && other != "" {
			r.failf(at, "give one of them another vhid", "%s is taken by group %q", id, other)
			return
		}
		seen[id] = g.Name
	}
	nodes, shares := keys["carpnodes"]
	one, hasOne := keys["vhid"]
	if hasOne && shares {
		r.failf(one.key, "keep one of them", "group %q has both vhid and carpnodes", g.Name)
		return
	}
	if hasOne {
		if n, ok := r.number(one, 1, 255, ""); ok {
			g.VHID = uint8(n)
			take(one.value, g.VHID)
		}
	}
	for _, key := range []string{"balance", "balance_by"} {
		if k, ok := keys[key]; ok && !shares {
			r.failf(k.key, "add carpnodes: {1: 0, 2: 100}, a vhid and its advskew here for each node",
				"group %q has %s and no carpnodes", g.Name, key)
			return
		}
	}
	if !shares {
		return
	}
	g.Balance, g.BalanceBy = BalanceIP, BalanceByMAC // as OpenBSD, where nothing is said
	if k, ok := keys["balance"]; ok {
		g.Balance = r.balance(k)
	}
	if k, ok := keys["balance_by"]; ok {
		g.BalanceBy = BalanceBy(r.word(k, string(BalanceByMAC), string(BalanceBySourceIP)))
		if g.Balance != BalanceARP {
			r.failf(k.key, "remove it: frames are shared by their source and destination", "balance_by is for balance: arp")
		}
	}
	if k, ok := keys["advskew"]; ok {
		r.failf(k.key, "write it there: {1: 0, 2: 100}", "group %q has an advskew for each vhid in carpnodes", g.Name)
	}
	g.CarpNodes = r.carpNodes(c, nodes, take)
	if len(g.CarpNodes) > 0 {
		g.VHID = g.CarpNodes[0].VHID
	}
	if !g.Preempt {
		r.warn(nodes.key, fmt.Sprintf("group %q shares its load without preempt", g.Name),
			"set preempt: true, or a share stays on another node when its own is back")
	}
}

func (r *reader) balance(k entry) Balance {
	if k.value.kind == scalar && k.value.text == "ip-unicast" {
		r.fail(k.value, "balance: ip-unicast needs a hub: a switch learns where the MAC is", "write ip or ip-stealth")
		return BalanceStealth
	}
	return Balance(r.word(k, string(BalanceARP), string(BalanceIP), string(BalanceStealth)))
}

// carpNodes reads {vhid: advskew}, or {node: {vhid: advskew}}.
func (r *reader) carpNodes(c *Config, e entry, take func(*node, uint8)) []CarpNode {
	const example = "{1: 0, 2: 100}, or by node: {fw-a: {1: 0, 2: 100}, fw-b: {1: 100, 2: 0}}"
	if !r.want(e, mapping, example) {
		return nil
	}
	entries := r.mapping(e.value)
	if len(entries) == 0 {
		r.fail(e.value, "carpnodes is empty", "write "+example)
		return nil
	}
	if entries[0].value.kind != mapping {
		all, _ := r.theNodes(entries, take)
		return all
	}
	var own []CarpNode
	var vhids string // of the first one
	found := false
	for i, n := range entries {
		switch {
		case r.nodes != nil && !slices.Contains(r.nodes, n.key.text):
			r.failf(n.key, meant(n.key.text, r.nodes, "known are "), "carpnodes of %q, which is not in sync.nodes", n.key.text)
			continue
		case !r.name("node", n.key) || !r.want(n, mapping, "{1: 0, 2: 100}"):
			continue
		}
		taking := take
		if i > 0 {
			taking = nil
		}
		all, list := r.theNodes(r.mapping(n.value), taking)
		if vhids == "" {
			vhids = list
		} else if list != vhids {
			r.failf(n.key, "name the same vhids for each node, with other advskews", "carpnodes of %q has vhids %s, and another node %s", n.key.text, list, vhids)
		}
		if n.key.text == c.Node {
			own, found = all, true
		}
	}
	if !found && c.Node != "" {
		r.failf(e.key, fmt.Sprintf("add %s: {1: 0, 2: 100}", c.Node), "carpnodes has no entry for this node, %q", c.Node)
	}
	return own
}

// theNodes reads the entries of {vhid: advskew}. It returns the vhids as text, too.
func (r *reader) theNodes(entries []entry, take func(*node, uint8)) (all []CarpNode, list string) {
	for _, n := range entries {
		vhid, ok := r.numberOf("vhid", n.key, 1, 255, "")
		if !ok {
			continue
		}
		skew, ok := r.numberOf("advskew", n.value, 0, 254, "")
		if !ok {
			continue
		}
		if take != nil {
			take(n.key, uint8(vhid))
		}
		all = append(all, CarpNode{uint8(vhid), uint8(skew)})
	}
	if len(all) > maxCarpNodes {
		r.failf(entries[maxCarpNodes].key, "OpenBSD has no more either", "carpnodes has %d vhids, at most %d", len(all), maxCarpNodes)
	}
	slices.SortFunc(all, func(a, b CarpNode) int { return cmp.Compare(a.VHID, b.VHID) })
	var names []string
	for _, n := range all {
		names = append(names, strconv.Itoa(int(n.VHID)))
	}
	return all, strings.Join(names, ", ")
}
