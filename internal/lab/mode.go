package lab

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
)

// Mode is what the routers do with what they forward.
type Mode string

// The modes. The words are the same in every command and report.
const (
	Route   Mode = "route"    // forwarded as it is; no connection table
	NAT     Mode = "nat"      // source NAT to the shared WAN address, strict filters
	NATOpen Mode = "nat-open" // the same without a filter on what is for the router itself

	// Masquerade is NAT to whatever IPv4 address the WAN has: the shared one, for the
	// routers have none of their own there.
	Masquerade Mode = "masquerade"
)

// Modes lists all modes.
var Modes = []Mode{Route, NAT, NATOpen, Masquerade}

// ParseMode finds a mode by its word.
func ParseMode(s string) (Mode, error) {
	var words []string
	for _, m := range Modes {
		if string(m) == s {
			return m, nil
		}
		words = append(words, string(m))
	}
	return "", fmt.Errorf("mode %q is unknown, there are %s", s, strings.Join(words, ", "))
}

// ruleset is the routers' nft ruleset with source NAT.
//
//go:embed ruleset.nft
var ruleset string

// inputPolicy is the line by which the open ruleset differs: a segment of an
// unknown connection to the shared address reaches the router's own TCP, which
// resets it.
const inputPolicy = "type filter hook input priority filter; policy %s;"

// rules is the routers' nft ruleset.
func (m Mode) rules() string {
	switch m {
	case Route:
		return "flush ruleset\n"
	case NATOpen:
		return strings.Replace(ruleset, fmt.Sprintf(inputPolicy, "drop"), fmt.Sprintf(inputPolicy, "accept"), 1)
	case Masquerade:
		return strings.Replace(ruleset, snat, "masquerade", 1)
	}
	return ruleset
}

// snat is what the ruleset does on the WAN.
const snat = "snat to " + SharedWAN

// makeRouter turns a node into a router of the mode.
func (n *Node) makeRouter(ctx context.Context, m Mode) error {
	if err := n.loadRuleset(ctx, m.rules()); err != nil {
		return err
	}
	if m == Masquerade {
		own := map[string]string{"fw-a": ownWANa, "fw-b": ownWANb}[n.Name]
		for _, args := range []string{
			"addr del " + own + "/24 dev eth0",
			"route add 203.0.113.0/24 dev eth0 scope link",
		} {
			if _, err := n.NS.Run(ctx, "ip", strings.Fields(args)...); err != nil {
				return err
			}
		}
	}
	sysctls := map[string]string{
		"net/ipv4/ip_forward":          "1",
		"net/ipv6/conf/all/forwarding": "1",
	}
	if m != Route {
		// A packet in the middle of an unknown connection must not start one.
		// The key exists once the ruleset has loaded nf_conntrack.
		sysctls["net/netfilter/nf_conntrack_tcp_loose"] = "0"
	}
	for key, value := range sysctls {
		if err := n.NS.WriteSysctl(key, value); err != nil {
			return fmt.Errorf("make %s a router: %w", n.Name, err)
		}
	}
	return nil
}

// makeRoutes gives client and server their ways.
func (n *Net) makeRoutes(ctx context.Context, m Mode) error {
	routes := []struct {
		node *Node
		args string
	}{
		{n.Client, "-4 route add default via " + SharedLAN},
		{n.Client, "-6 route add default via " + SharedLAN6},
		{n.Server, "-6 route add fd00:1::/64 via " + SharedWAN6},
	}
	if m == Route {
		// With NAT there is none: only translated packets get an answer.
		routes = append(routes, struct {
			node *Node
			args string
		}{n.Server, "-4 route add 10.0.0.0/24 via " + SharedWAN})
	}
	for _, r := range routes {
		if _, err := r.node.NS.Run(ctx, "ip", strings.Fields(r.args)...); err != nil {
			return err
		}
	}
	return nil
}
