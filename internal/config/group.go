package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// passLen is how much of a password counts: what the BSDs hash of it, less the
// terminating zero (CARP_KEY_LEN in ip_carp.h).
const passLen = 19

// groups reads all groups.
func (r *reader) groups(c *Config, e entry, skew *uint8) {
	if !r.want(e, mapping, "name: {vhid: 1, carpdev: eth0, addresses: [10.0.0.1/24]}") {
		return
	}
	seen := map[string]string{} // vhid and carpdev, or address → group
	for _, g := range r.mapping(e.value) {
		if r.name("group", g.key) {
			c.Groups = append(c.Groups, r.group(c, g, skew, seen))
		}
	}
	slices.SortFunc(c.Groups, func(a, b Group) int { return cmp.Compare(a.Name, b.Name) })
}

func (r *reader) group(c *Config, e entry, skew *uint8, seen map[string]string) Group {
	g := Group{Name: e.key.text, AdvBase: 1, Mode: Local, HMAC: HMACAuto, Preempt: c.Preempt, DSCP: c.DSCP,
		StartupDelay: r.startupDelay, PreemptDelay: r.preemptDelay}
	if e.value.kind == scalar {
		line := e.value
		if e.value = r.bsdGroup(e.key, line); e.value == nil {
			return g
		}
		if lacks := draft(g.Name, e.value, true).Missing; len(lacks) > 0 {
			r.failf(line, "write vhid 1 pass PASSWORD carpdev em0 10.0.0.1 netmask 255.255.255.0",
				"the line of group %q lacks %s", g.Name, strings.Join(lacks, ", "))
			return g
		}
	}
	if e.value.kind != mapping {
		r.failf(e.value, "write "+g.Name+": {vhid: 1, carpdev: eth0, addresses: [10.0.0.1/24]}",
			"group %q must be a mapping, not %s", g.Name, e.value.what())
		return g
	}
	place := "groups/" + g.Name
	r.places[place] = e.key
	keys := r.section(e.value, groupSection)
	_, shares := keys["carpnodes"]
	for _, k := range []string{"vhid", "carpdev", "addresses"} {
		if k == "vhid" && shares {
			continue
		}
		if _, ok := keys[k]; !ok && !misspelt(e.value, groupSection, k) {
			r.failf(e.key, "add "+map[string]string{"vhid": "vhid: 1 (to 255)", "carpdev": "carpdev: and the interface",
				"addresses": "addresses: [10.0.0.1/24]"}[k], "group %q has no %s", g.Name, k)
		}
	}
	if k, ok := keys["carpdev"]; ok {
		g.Carpdev = r.device(k)
		r.places[place+"/carpdev"] = k.value
	}
	if k, ok := keys["addresses"]; ok {
		g.Addresses = r.addresses(k, g, seen)
	}
	if k, ok := keys["advbase"]; ok {
		if n, ok := r.number(k, 0, 255, " (seconds)"); ok {
			g.AdvBase = uint8(n)
		}
	}
	if k, ok := keys["advskew"]; ok {
		g.AdvSkew = r.skews(k, c.Node)
	} else if skew != nil {
		g.AdvSkew = *skew
	}
	if k, ok := keys["mode"]; ok {
		g.Mode = Mode(r.word(k, string(Local), string(NextHop)))
	}
	if k, ok := keys["hmac"]; ok {
		g.HMAC = HMAC(r.word(k, string(HMACAuto), string(HMACFreeBSD), string(HMACOpenBSD)))
	}
	if k, ok := keys["preempt"]; ok {
		g.Preempt = r.truth(k)
	}
	if k, ok := keys["down"]; ok {
		g.Down = r.truth(k)
	}
	r.vhids(c, &g, e, keys, seen)
	r.delays(keys, &g.StartupDelay, &g.PreemptDelay)
	r.destination(c, &g, keys)
	g.Split, g.Detect = r.split(keys, c.Split), r.detect(c, keys, c.Detect)
	g.Auth, g.Trailer = r.auth(keys, c.Auth), r.trailer(keys, c.Trailer)
	if g.Auth == AuthEnforce && !g.Trailer {
		r.failf(e.key, "set trailer: on, or auth: permissive",
			"group %q has auth: enforce and trailer: off: nodes like it would refuse its adverts", g.Name)
	}
	r.password(&g, e, keys)
	return g
}

func (r *reader) split(keys map[string]entry, otherwise Split) Split {
	if k, ok := keys["split"]; ok {
		return Split(r.word(k, string(SplitHold), string(SplitTakeover)))
	}
	return otherwise
}

// detect reads how closely the peers are watched.
func (r *reader) detect(c *Config, keys map[string]entry, otherwise Detect) Detect {
	k, ok := keys["detect"]
	if !ok {
		return otherwise
	}
	d := Detect(r.word(k, string(DetectOff), string(DetectDefault), string(DetectFast)))
	if (d == DetectFast || d == DetectDefault) && c.Sync == nil {
		r.failf(k.value, "add a sync section: sync: {dev: eth2, nodes: {fw-a: 172.30.0.1, fw-b: 172.30.0.2}}",
			"detect: %s needs a sync link: there the nodes agree on keys for pulses", d)
	}
	return d
}

// auth reads whose adverts are believed.
func (r *reader) auth(keys map[string]entry, otherwise Auth) Auth {
	k, ok := keys["auth"]
	if !ok {
		return otherwise
	}
	a := Auth(r.word(k, string(AuthCompat), string(AuthPermissive), string(AuthEnforce)))
	if a != AuthCompat && r.keyFile == nil {
		r.failf(k.value, "run (umask 077; xcarp keygen > /etc/xcarp/xcarp.key), copy the file to all nodes, and set key_file",
			"auth: %s needs a key_file", a)
	}
	return a
}

// trailer reads whether adverts have one. YAML 1.1 takes on and off for truth
// values, so both spellings are right.
func (r *reader) trailer(keys map[string]entry, otherwise bool) bool {
	k, ok := keys["trailer"]
	if !ok {
		return otherwise
	}
	w := r.word(k, "on", "off", "true", "false")
	on := w == "on" || w == "true"
	if on && r.keyFile == nil {
		r.fail(k.value, "trailer: on needs a key_file",
			"run (umask 077; xcarp keygen > /etc/xcarp/xcarp.key), copy the file to all nodes, and set key_file")
	}
	return on
}

// password says where the group's password comes from.
func (r *reader) password(g *Group, e entry, keys map[string]entry) {
	pass, hasPass := keys["pass"]
	file, hasFile := keys["pass_file"]
	switch {
	case hasPass && hasFile:
		r.failf(file.key, "keep one of them", "group %q has both pass and pass_file", g.Name)
	case hasPass:
		// Only the key is ever named: an excerpt must not show the value.
		if pass.value.kind != scalar || pass.value.text == "" {
			r.fail(pass.key, "pass must be one value that is not empty", "write pass: and the password in quotes")
			return
		}
		if r.inline == nil && pass.key.from == nil {
			r.inline = pass.key
		}
		g.Password = Secret(pass.value.text)
		r.checkLength(pass.key, "pass", len(g.Password))
	case hasFile:
		path, ok := r.file(file)
		if !ok {
			return
		}
		r.secrets = append(r.secrets, secretFile{"pass_file", g.Name, path, file.value})
	case r.keyFile != nil:
		g.FromKey = true
	case !misspelt(e.value, groupSection, "pass") && !misspelt(e.value, groupSection, "pass_file"):
		r.failf(e.key, "run (umask 077; xcarp keygen > /etc/xcarp/xcarp.key) and set key_file; with BSD or ucarp peers set pass_file",
			"group %q has no password", g.Name)
	}
}

func (r *reader) checkLength(n *node, key string, length int) {
	if length > passLen {
		r.warn(n, fmt.Sprintf("%s has %d bytes", key, length), fmt.Sprintf("only the first %d count, as on the BSDs", passLen))
	}
}

// addresses reads the shared addresses of a group.
func (r *reader) addresses(e entry, g Group, seen map[string]string) []netip.Prefix {
	if !r.want(e, list, "[10.0.0.1/24]") {
		return nil
	}
	if len(e.value.items) == 0 {
		r.failf(e.value, "add one: [10.0.0.1/24]", "group %q has no addresses", g.Name)
	}
	var all []netip.Prefix
	for _, n := range e.value.items {
		p, what, fix := address(n)
		if what != "" {
			r.fail(n, what, fix)
			continue
		}
		id := p.Addr().String()
		if p.Addr().IsLinkLocalUnicast() {
			id += " on " + g.Carpdev // every link has its own
		}
		if other := seen[id]; other == g.Name {
			r.failf(n, "remove one", "address %s a second time", p.Addr())
			continue
		} else if other != "" {
			r.failf(n, "keep it in one group", "address %s is already in group %q", p.Addr(), other)
			continue
		}
		seen[id] = g.Name
		r.places["groups/"+g.Name+"/"+p.String()] = n
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return all
}

// address reads one shared address with its prefix length; what is empty if it
// is one that a master can answer for.
func address(n *node) (p netip.Prefix, what, fix string) {
	const example = "write an address and the prefix length of its subnet, such as 10.0.0.1/24"
	if n.kind != scalar {
		return p, "an address must be one value, not " + n.what(), example + `; in brackets IPv6 needs quotes: ["fd00:1::1/64"]`
	}
	if a, err := netip.ParseAddr(n.text); err == nil {
		if a.Zone() != "" {
			return p, fmt.Sprintf("address %s has a zone", n.text), "the carpdev says which link"
		}
		bits := 24
		if a.Is6() {
			bits = 64
		}
		return p, fmt.Sprintf("address %s has no prefix length", a), fmt.Sprintf("write that of its subnet, such as %s/%d", a, bits)
	}
	p, err := netip.ParsePrefix(n.text)
	if err != nil {
		if ip, bits, ok := strings.Cut(n.text, "/"); ok {
			if a, err := netip.ParseAddr(ip); err == nil {
				return p, fmt.Sprintf("prefix length %q of address %s is wrong", bits, a), fmt.Sprintf("write 1 to %d", a.BitLen())
			}
		}
		return p, n.what() + " is not an address", example
	}
	a := p.Addr()
	not := func(class string) (netip.Prefix, string, string) {
		return p, fmt.Sprintf("address %s is %s", a, class), "use one that a host can have"
	}
	switch {
	case a.Is4In6():
		return p, fmt.Sprintf("address %s is an IPv4-mapped one", a), fmt.Sprintf("write %s", a.Unmap())
	case p.Bits() == 0:
		return p, fmt.Sprintf("address %s has the prefix length 0", a), "write that of its subnet"
	case a.IsUnspecified() || a.Is4() && a.As4()[0] == 0:
		return not("in no network")
	case a.IsLoopback():
		return not("a loopback address")
	case a.IsMulticast():
		return not("a multicast address")
	case a.Is4() && a.As4()[0] >= 240:
		return not("reserved or broadcast")
	case a.Is4() && p.Bits() <= 30 && a == p.Masked().Addr():
		return not(fmt.Sprintf("the network address of %s", p.Masked()))
	case a.Is4() && p.Bits() <= 30 && a == lastOf(p):
		return not(fmt.Sprintf("the broadcast address of %s", p.Masked()))
	case a.Is6() && p.Bits() <= 126 && a == p.Masked().Addr():
		return not(fmt.Sprintf("the subnet-router anycast address of %s", p.Masked())) // RFC 4291, 2.6.1
	}
	return p, "", ""
}

// lastOf returns the highest address of an IPv4 subnet.
func lastOf(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(a)
}

// bundles reads `bundle: [wan, lan]` or `bundle: [[wan, lan], [dmz, guest]]`.
func (r *reader) bundles(c *Config, e entry) {
	if !r.want(e, list, "[wan, lan]") {
		return
	}
	var names []string
	for _, g := range c.Groups {
		names = append(names, g.Name)
	}
	sets := []*node{e.value}
	if len(e.value.items) > 0 && e.value.items[0].kind == list {
		sets = e.value.items
	}
	in := map[string]bool{}
	for _, set := range sets {
		if set.kind != list {
			r.failf(set, "write [[wan, lan], [dmz, guest]]", "bundle mixes groups and lists of groups")
			continue
		}
		var bundle []string
		for _, n := range set.items {
			switch {
			case n.kind != scalar:
				r.failf(n, "write [wan, lan]", "bundle must be a list of groups, not of %s", n.what())
			case r.gone[n.text]: // a line has taken it away, for now
			case !slices.Contains(names, n.text):
				if len(names) > 0 { // else that is the problem
					r.fail(n, fmt.Sprintf("bundle names an unknown group %q", n.text), meant(n.text, names, "known are "))
				}
			case in[n.text]:
				r.failf(n, "keep it once", "group %q is in a bundle already", n.text)
			default:
				in[n.text] = true
				bundle = append(bundle, n.text)
			}
		}
		for _, name := range bundle {
			if n, first := len(c.Group(name).CarpNodes), len(c.Group(bundle[0]).CarpNodes); n != first {
				r.failf(set, "give all of them as many carpnodes, or leave it out of the bundle",
					"bundle cannot move %q, which has %s, with %q, which has %s", bundle[0], carpNodesOf(first), name, carpNodesOf(n))
				break
			}
		}
		if len(set.items) < 2 {
			r.warn(set, "a bundle of less than two groups does nothing", "name the groups that must move together")
		}
		if len(bundle) > 0 {
			c.Bundles = append(c.Bundles, bundle)
		}
	}
}

func carpNodesOf(n int) string {
	if n == 0 {
		return "no carpnodes"
	}
	return fmt.Sprintf("%d carpnodes", n)
}
