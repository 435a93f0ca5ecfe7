package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
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
		keys: []string{"node", "key_file", "sync", "preempt", "groups", "advskew", "bundle", "xdp", "metrics", "log", "auth", "trailer", "split"},
		later: []string{"track", "hooks", "accelerate", "defer", "dscp", "detect",
			"preempt_delay", "startup_delay"},
	}
	groupSection = &section{
		name: "in a group",
		keys: []string{"vhid", "carpdev", "addresses", "advbase", "advskew", "pass", "pass_file", "mode", "hmac", "preempt",
			"auth", "trailer", "split"},
		later: []string{"balance", "carpnodes", "carppeer", "detect", "accelerate", "defer",
			"dscp", "hooks", "track", "preempt_delay", "startup_delay"},
		foreign: map[string]string{ // keepalived, ucarp, and plain English
			"interface": "carpdev", "iface": "carpdev", "dev": "carpdev", "device": "carpdev",
			"virtual_router_id": "vhid", "vrid": "vhid", "id": "vhid",
			"virtual_ipaddress": "addresses", "ip": "addresses", "vip": "addresses", "vips": "addresses",
			"password": "pass", "passwd": "pass", "auth_pass": "pass", "passfile": "pass_file",
			"advert_int": "advbase", "interval": "advbase", "priority": "advskew",
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
	for _, o := range []*section{root, groupSection, syncSection, metricsSection, logSection} {
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

// nearest returns the word that was probably meant, or "" if none or several
// are as near.
func nearest(word string, known []string) string {
	if len(word) > 64 {
		return ""
	}
	best, least := "", 3
	for _, k := range known {
		d := distance(strings.ToLower(word), strings.ToLower(k))
		switch {
		case d*2 >= max(len(word), len(k)) || d > least:
		case d == least && d < 3:
			best = ""
		default:
			best, least = k, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours between two words (optimal string alignment).
func distance(a, b string) int {
	var before []int
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev = prev, cur
	}
	return prev[len(b)]
}
