package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/xcarp/xcarp/internal/spell"
)

// section is a mapping of the file: what it may hold.
type section struct {
	name  string // as in "in a group"
	keys  []string
	later []string // keys that a later version will have

	foreign map[string]string // what others call our keys
}

var (
	root = &section{
		name: "at the top level",
		keys: []string{"node", "key_file", "sync", "preempt", "groups", "advskew", "bundle", "dscp",
			"senderr_demotion_factor", "ifdown_demotion_factor", "xdp", "metrics", "log", "auth", "trailer", "split", "detect",
			"track", "hooks", "ready", "preempt_delay", "startup_delay"},
		later: []string{"accelerate", "defer"},
	}
	groupSection = &section{
		name: "in a group",
		keys: []string{"vhid", "carpdev", "addresses", "advbase", "advskew", "pass", "pass_file", "mode", "hmac", "preempt",
			"carppeer", "mcast", "mcast6", "dscp", "lladdr", "auth", "trailer", "split", "detect", "preempt_delay", "startup_delay", "down",
			"carpnodes", "balance", "balance_by"},
		later: []string{"accelerate", "defer"},
		foreign: map[string]string{ // keepalived, ucarp, and plain English
			"interface": "carpdev", "iface": "carpdev", "dev": "carpdev", "device": "carpdev",
			"virtual_router_id": "vhid", "vrid": "vhid", "id": "vhid",
			"virtual_ipaddress": "addresses", "ip": "addresses", "vip": "addresses", "vips": "addresses",
			"password": "pass", "passwd": "pass", "auth_pass": "pass", "passfile": "pass_file",
			"advert_int": "advbase", "interval": "advbase", "priority": "advskew",
			"balancing": "balance", "peer": "carppeer", "peer6": "carppeer", "unicast_peer": "carppeer",
		},
	}
	syncSection = &section{
		name:    "in sync",
		foreign: map[string]string{"interface": "dev", "device": "dev", "syncdev": "dev", "peers": "nodes", "syncpeer": "nodes"},
		keys:    []string{"dev", "nodes", "port", "hold"},
		later:   []string{"filter", "filters", "import", "defer", "accelerate"},
	}
	metricsSection = &section{name: "in metrics", keys: []string{"listen"}}
	logSection     = &section{name: "in log", keys: []string{"level"}}
	trackSection   = &section{
		name: "in a track",
		keys: []string{"link", "route", "ping", "arp", "tcp", "process", "pid_file", "file", "command",
			"dev", "content", "user", "every", "timeout", "rise", "fall", "demote", "groups"},
		foreign: map[string]string{ // keepalived, and plain English
			"interval": "every", "script": "command", "run": "command", "exec": "command", "interface": "dev", "device": "dev",
			"iface": "dev", "weight": "demote", "icmp": "ping", "proc": "process", "pidfile": "pid_file", "up": "rise", "down": "fall",
		},
	}
	hookSection = &section{
		name:    "in a hook",
		keys:    []string{"command", "on", "groups", "user", "timeout", "retries"},
		foreign: map[string]string{"script": "command", "run": "command", "exec": "command", "states": "on", "retry": "retries"},
	}
	readySection = &section{name: "in ready", keys: []string{"settle", "routes"}}
)

// unknown returns what to say about a key that the section does not have.
func (s *section) unknown(key string) (message, fix string) {
	if slices.Contains(s.later, key) {
		return fmt.Sprintf("%s is not supported by this version", key), "remove it"
	}
	message = fmt.Sprintf("unknown key %q %s", key, s.name)
	if like := s.like(key); slices.Contains(s.later, like) {
		return message, fmt.Sprintf("%q is not supported by this version", like)
	} else if like != "" {
		return message, fmt.Sprintf("did you mean %q?", like)
	}
	for _, o := range []*section{root, groupSection, syncSection, metricsSection, logSection,
		trackSection, hookSection, readySection} {
		if o != s && (slices.Contains(o.keys, key) || slices.Contains(o.later, key)) {
			return message, "it belongs " + o.name
		}
	}
	return message, "known are " + strings.Join(s.keys, ", ")
}

// like returns the key that was probably meant, of this version or a later one,
// or "".
func (s *section) like(key string) string {
	words := slices.Concat(s.keys, s.later, slices.Sorted(maps.Keys(s.foreign)))
	if ours := s.foreign[strings.ToLower(key)]; ours != "" {
		return ours
	}
	like := nearest(key, words)
	if ours := s.foreign[like]; ours != "" {
		return ours
	}
	return like
}

// nearest returns the word that was probably meant, or "".
func nearest(word string, known []string) string { return spell.Nearest(word, known) }

func distance(a, b string) int { return spell.Distance(a, b) }
