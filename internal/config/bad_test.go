package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// g is a text with one group that has what is given on top of what it needs.
func g(more string) string {
	return "node: n\ngroups:\n  g: {vhid: 1, carpdev: eth0, addresses: [10.0.0.1/24], pass: x" + more + "}\n"
}

// shared is a text with one group that has what is given on top of what it needs, but
// for a vhid.
func shared(more string) string {
	return "node: n\npreempt: true\ngroups:\n  g: {" + more + ", carpdev: eth0, addresses: [10.0.0.1/24], pass: x}\n"
}

// addr is a text with one group of one address.
func addr(a string) string {
	return "groups: {g: {vhid: 1, carpdev: eth0, pass: x, addresses: [" + a + "]}}\n"
}

// s is a text with the given sync section.
func s(sync string) string {
	return "node: fw-a\nkey_file: k\nsync: " + sync + "\n" + "groups: {g: {vhid: 1, carpdev: eth0, addresses: [10.0.0.1/24]}}\n"
}

// line is a text with one group, which is a BSD line.
func line(l string) string { return "groups:\n  carp1: \"" + l + "\"\n" }

// bad holds texts with one mistake, or few, and everything that is said.
var bad = []struct{ name, text, want string }{
	{"not YAML", "groups: {a: [\n", `xcarp.yaml:1:13: not YAML: sequence end token ']' not found: close the bracket that is open here`},
	{"a list", "[1]", `xcarp.yaml:1:1: a configuration must be a mapping, not a list: write key: value`},
	{"two documents", "a: b\n---\nc: d\n", `xcarp.yaml:3:1: a second YAML document: put everything into one, without ---`},
	{"anchor", "groups: &x {}\n", `xcarp.yaml:1:9: anchors and aliases (& and *) are not supported: write the value out, or quote it`},
	{"merge", g(", <<: {}"), `xcarp.yaml:3:66: merge keys (<<) are not supported: write the keys out`},
	{"deep", strings.Repeat("[", 33), `xcarp.yaml:1:33: nested deeper than 32 levels: a configuration needs four: is this the right file?`},

	{"deep behind a comment", "a: \"x # y\", " + strings.Repeat("[", 1001), `xcarp.yaml:1:1013: nested deeper than 32 levels: a configuration needs four: is this the right file?`},
	{"deep in dashes", strings.Repeat("- ", 1001), `xcarp.yaml:1:2001: nested deeper than 32 levels: a configuration needs four: is this the right file?`},
	{"brackets in comments", strings.Repeat("# [\n", 40) + "node: [\n", `xcarp.yaml:41:7: not YAML: sequence end token ']' not found: close the bracket that is open here`},

	{"unknown key", g("") + "premept: true\n", `xcarp.yaml:4:1: unknown key "premept" at the top level: did you mean "preempt"?`},
	{"far from any key", g("") + "colour: red\n", `xcarp.yaml:4:1: unknown key "colour" at the top level: known are node, key_file, sync, preempt, groups, advskew, bundle, dscp, senderr_demotion_factor, ifdown_demotion_factor, xdp, metrics, log, auth, trailer, split, detect, track, hooks, ready, preempt_delay, startup_delay`},
	{"key of a group at the top", g("") + "carpdev: eth0\n", `xcarp.yaml:4:1: unknown key "carpdev" at the top level: it belongs in a group`},
	{"unknown key in a group", "groups: {g: {vhdi: 1, carpdev: eth0, addresses: [10.0.0.1/24], pass: x}}", `xcarp.yaml:1:14: unknown key "vhdi" in a group: did you mean "vhid"?`},
	{"keepalived's word", "groups: {g: {virtual_router_id: 1, carpdev: eth0, addresses: [10.0.0.1/24], auth_pass: x}}", `xcarp.yaml:1:14: unknown key "virtual_router_id" in a group: did you mean "vhid"?
xcarp.yaml:1:77: unknown key "auth_pass" in a group: did you mean "pass"?`},
	{"unknown key in sync", s("{dev: eth2, ports: 1, nodes: {fw-a: 172.30.0.1, fw-b: 172.30.0.2}}"), `xcarp.yaml:3:19: unknown key "ports" in sync: did you mean "port"?`},
	{"later, top", g("") + "accelerate: {}\n", `xcarp.yaml:4:1: accelerate is not supported by this version: remove it`},
	{"later, group", g(", accelerate: true"), `xcarp.yaml:3:66: accelerate is not supported by this version: remove it`},
	{"later, misspelt", g(", accelerat: true"), `xcarp.yaml:3:66: unknown key "accelerat" in a group: "accelerate" is not supported by this version`},
	{"detect without sync", g(", detect: fast"), `xcarp.yaml:3:74: detect: fast needs a sync link: there the nodes agree on keys for pulses: add a sync section: sync: {dev: eth2, nodes: {fw-a: 172.30.0.1, fw-b: 172.30.0.2}}`},
	{"detect, unknown", g(", detect: slow"), `xcarp.yaml:3:74: detect cannot be "slow": write off, default or fast`},
	{"balance alone", g(", balance: arp"), `xcarp.yaml:3:66: group "g" has balance and no carpnodes: add carpnodes: {1: 0, 2: 100}, a vhid and its advskew here for each node`},
	{"carpnodes and vhid", g(", carpnodes: {1: 0}"), `xcarp.yaml:3:7: group "g" has both vhid and carpnodes: keep one of them`},
	{"carpnodes misspelt", g(", carpnods: 1"), `xcarp.yaml:3:66: unknown key "carpnods" in a group: did you mean "carpnodes"?`},
	{"carpnodes, empty", shared("carpnodes: {}"), `xcarp.yaml:4:18: carpnodes is empty: write {1: 0, 2: 100}, or by node: {fw-a: {1: 0, 2: 100}, fw-b: {1: 100, 2: 0}}`},
	{"carpnodes of vhid 0", shared("carpnodes: {0: 0, 1: 0}"), `xcarp.yaml:4:19: vhid 0 is out of range: write a number from 1 to 255`},
	{"carpnodes of a great advskew", shared("carpnodes: {1: 255}"), `xcarp.yaml:4:22: advskew 255 is out of range: write a number from 0 to 254`},
	{"carpnodes and an advskew", shared("carpnodes: {1: 0}, advskew: 7"), `xcarp.yaml:4:26: group "g" has an advskew for each vhid in carpnodes: write it there: {1: 0, 2: 100}`},
	{"carpnodes of other nodes", shared("carpnodes: {fw-a: {1: 0}}"), `xcarp.yaml:4:7: carpnodes has no entry for this node, "n": add n: {1: 0, 2: 100}`},
	{"carpnodes that differ", shared("carpnodes: {n: {1: 0, 2: 0}, m: {1: 0, 3: 0}}"), `xcarp.yaml:4:36: carpnodes of "m" has vhids 1, 3, and another node 1, 2: name the same vhids for each node, with other advskews`},
	{"balance, unknown", shared("carpnodes: {1: 0}, balance: ipp"), `xcarp.yaml:4:35: balance cannot be "ipp": did you mean "ip"?`},
	{"balance for hubs", shared("carpnodes: {1: 0}, balance: ip-unicast"), `xcarp.yaml:4:35: balance: ip-unicast needs a hub: a switch learns where the MAC is: write ip or ip-stealth`},
	{"balance_by of frames", shared("carpnodes: {1: 0}, balance: ip, balance_by: mac"), `xcarp.yaml:4:39: balance_by is for balance: arp: remove it: frames are shared by their source and destination`},
	{"vhid of another's carpnodes", shared("carpnodes: {1: 0, 2: 0}") + "  h: {vhid: 2, carpdev: eth0, addresses: [10.0.0.2/24], pass: x}\n",
		`xcarp.yaml:5:13: vhid 2 on eth0 is taken by group "g": give one of them another vhid`},
	{"bundle of one that shares and one that does not", shared("carpnodes: {1: 0, 2: 0}") + "  h: {vhid: 3, carpdev: eth0, addresses: [10.0.0.2/24], pass: x}\nbundle: [g, h]\n",
		`xcarp.yaml:6:9: bundle cannot move "g", which has 2 carpnodes, with "h", which has no carpnodes: give all of them as many carpnodes, or leave it out of the bundle`},
	{"BSD line", "groups:\n  carp1: \"vhid 1 pass secret carpdev em0\"\n", `xcarp.yaml:2:10: the line of group "carp1" lacks an address: write vhid 1 pass PASSWORD carpdev em0 10.0.0.1 netmask 255.255.255.0`},
	{"BSD line, unknown word", line("vhid 1 pass secret advskwe 5 carpdev em0 10.0.0.1/24"), `xcarp.yaml:2:30: group "carp1": unknown word "advskwe": did you mean "advskew"?`},
	{"BSD line, out of range", line("vhid 300 pass secret carpdev em0 10.0.0.1/24"), `xcarp.yaml:2:16: group "carp1": vhid 300 is out of range: write a number from 1 to 255`},
	{"BSD line, no mask", line("vhid 3 pass secret carpdev em0 10.0.0.1"), `xcarp.yaml:2:42: group "carp1": address 10.0.0.1 has no mask: add netmask 255.255.255.0, or write 10.0.0.1/24`},
	{"BSD line, network address", line("vhid 3 pass secret carpdev em0 10.0.0.0/24"), `xcarp.yaml:2:42: address 10.0.0.0 is the network address of 10.0.0.0/24: use one that a host can have`},
	{"BSD line, no password", line("vhid 3 carpdev em0 10.0.0.1/24"), `xcarp.yaml:2:3: group "carp1" has no password: run (umask 077; xcarp keygen > /etc/xcarp/xcarp.key) and set key_file; with BSD or ucarp peers set pass_file`},
	{"BSD line, VRRP", line("carpver 3 vhid 3 pass secret carpdev em0 10.0.0.1/24"), `xcarp.yaml:2:19: carpver 3 is VRRP: leave it out: xcarp speaks CARP, version 2`},
	{"BSD line, another name", line("ifconfig carp2 vhid 3 pass secret carpdev em0 10.0.0.1/24"), "xcarp.yaml:2:20: group \"carp1\": the line of carp1 names carp2: leave `ifconfig carp2` out"},
	{"BSD line and mapping, one vhid", line("vhid 1 pass x carpdev eth0 10.0.0.2/24") + "  g: {vhid: 1, carpdev: eth0, pass: x, addresses: [10.0.0.1/24]}\n", `xcarp.yaml:3:13: vhid 1 on eth0 is taken by group "carp1": give one of them another vhid`},
	{"key twice", g(", vhid: 2"), `xcarp.yaml:3:66: "vhid" a second time: the first is in line 3`},
	{"group twice", g("") + "  g: {}\n", `xcarp.yaml:4:3: "g" a second time: the first is in line 3`},
	{"no value", g("") + "node2:\nxdp:\n", `xcarp.yaml:4:1: unknown key "node2" at the top level: did you mean "node"?
xcarp.yaml:5:1: xdp has no value: give it one or remove the key`},

	{"groups as a list", "groups: [a]\n", `xcarp.yaml:1:9: groups must be a mapping, not a list: write name: {vhid: 1, carpdev: eth0, addresses: [10.0.0.1/24]}`},
	{"empty group", "groups: {g: {}}\n", `xcarp.yaml:1:10: group "g" has no vhid: add vhid: 1 (to 255)
xcarp.yaml:1:10: group "g" has no carpdev: add carpdev: and the interface
xcarp.yaml:1:10: group "g" has no addresses: add addresses: [10.0.0.1/24]
xcarp.yaml:1:10: group "g" has no password: run (umask 077; xcarp keygen > /etc/xcarp/xcarp.key) and set key_file; with BSD or ucarp peers set pass_file`},
	{"group name", "groups: {a b: {vhid: 1, carpdev: eth0, addresses: [10.0.0.1/24], pass: x}}\n", `xcarp.yaml:1:10: "a b" cannot be the name of a group: use up to 63 letters, digits, dots, dashes and underscores, the first a letter or digit`},
	{"vhid 0", strings.Replace(g(""), "vhid: 1", "vhid: 0", 1), `xcarp.yaml:3:13: vhid 0 is out of range: write a number from 1 to 255`},
	{"vhid 256", strings.Replace(g(""), "vhid: 1", "vhid: 256", 1), `xcarp.yaml:3:13: vhid 256 is out of range: write a number from 1 to 255`},
	{"vhid of a word", strings.Replace(g(""), "vhid: 1", "vhid: one", 1), `xcarp.yaml:3:13: vhid must be a number, not "one": write a number from 1 to 255`},
	{"vhid in octal", strings.Replace(g(""), "vhid: 1", "vhid: 010", 1), `xcarp.yaml:3:13: vhid must be a number, not "010": write a number from 1 to 255`},
	{"same vhid", g("") + "  h: {vhid: 1, carpdev: eth0, addresses: [10.0.0.2/24], pass: x}\n", `xcarp.yaml:4:13: vhid 1 on eth0 is taken by group "g": give one of them another vhid`},
	{"advbase", g(", advbase: 256"), `xcarp.yaml:3:75: advbase 256 is out of range: write a number from 0 to 255 (seconds)`},
	{"advskew", g(", advskew: 255"), `xcarp.yaml:3:75: advskew 255 is out of range: write a number from 0 to 254, or {node: number}`},
	{"mode", g(", mode: nexthop"), `xcarp.yaml:3:72: mode cannot be "nexthop": did you mean "next-hop"?`},
	{"hmac", g(", hmac: linux"), `xcarp.yaml:3:72: hmac cannot be "linux": write auto, freebsd or openbsd`},
	{"preempt", g(", preempt: yes"), `xcarp.yaml:3:75: preempt must be true or false, not "yes": write true or false`},
	{"carpdev", strings.Replace(g(""), "eth0", "an-interface-too-long", 1), `xcarp.yaml:3:25: "an-interface-too-long" cannot be the name of an interface: write one such as eth0, at most 15 bytes`},
	{"xdp", g("") + "xdp: hw\n", `xcarp.yaml:4:6: xdp cannot be "hw": write auto, native or generic`},
	{"metrics", g("") + "metrics: {listen: 9112}\n", `xcarp.yaml:4:19: listen cannot be "9112": write an address and a port, such as 127.0.0.1:9112 or [::1]:9112`},
	{"log", g("") + "log: {level: warning}\n", `xcarp.yaml:4:14: level cannot be "warning": did you mean "warn"?`},

	{"carppeer misspelt", g(", carpper: 1"), `xcarp.yaml:3:66: unknown key "carpper" in a group: did you mean "carppeer"?`},
	{"keepalived's peer", g(", unicast_peer: 1"), `xcarp.yaml:3:66: unknown key "unicast_peer" in a group: did you mean "carppeer"?`},
	{"carppeer of a word", g(", carppeer: fw-b"), `xcarp.yaml:3:76: carppeer cannot be "fw-b": write the own address of the other member on the carpdev, such as 10.0.0.3`},
	{"carppeer multicast", g(", carppeer: 224.0.0.18"), `xcarp.yaml:3:76: carppeer 224.0.0.18 is no address of a host: write the own address of the other member on the carpdev, such as 10.0.0.3`},
	{"carppeer shared", g(", carppeer: 10.0.0.1"), `xcarp.yaml:3:76: carppeer 10.0.0.1 is a shared address: write the own address of the other member on the carpdev, such as 10.0.0.3`},
	{"carppeer of another family", g(`, carppeer: "fe80::3"`), `xcarp.yaml:3:76: carppeer fe80::3: group "g" has no address of that family, so it sends no adverts of it: write the own address of the other member on the carpdev, such as 10.0.0.3`},
	{"carppeer with a zone", g(`, carppeer: "fe80::3%eth0"`), `xcarp.yaml:3:76: carppeer fe80::3%eth0 has a zone, and the carpdev says which link: write the own address of the other member on the carpdev, such as 10.0.0.3`},
	{"two carppeers", g(", carppeer: [10.0.0.3, 10.0.0.4]"), `xcarp.yaml:3:87: carppeer has a second address of one family, 10.0.0.4: keep one, or leave carppeer out: multicast reaches all`},
	{"no carppeer", g(", carppeer: []"), `xcarp.yaml:3:76: carppeer has no address: write that of the other member, or remove the key`},
	{"carppeer of others", g(", carppeer: {m: 10.0.0.3}"), `xcarp.yaml:3:66: carppeer has no entry for this node, "n": add n: and the address of the member that it sends to`},
	{"mcast", g(", mcast: 10.0.0.3"), `xcarp.yaml:3:73: mcast must be a multicast address of its family, not "10.0.0.3": write one such as 224.0.0.18`},
	{"mcast6", g(", mcast6: 224.0.0.18"), `xcarp.yaml:3:74: mcast6 must be a multicast address of its family, not "224.0.0.18": write one such as ff02::12`},
	{"mcast6 for nothing", g(`, mcast6: "ff02::12"`), `xcarp.yaml:3:66: mcast6: group "g" has no address of that family: remove it`},
	{"mcast and carppeer", g(", carppeer: 10.0.0.3, mcast: 239.0.0.1"), `xcarp.yaml:3:86: group "g" has both carppeer 10.0.0.3 and mcast: keep one of them`},
	{"lladdr", g(", lladdr: 01:00:5e:00:00:12"), `xcarp.yaml:3:74: "01:00:5e:00:00:12" cannot be the MAC address of an interface: write one such as 02:00:c0:ff:ee:01`},
	{"dscp", g(", dscp: 64"), `xcarp.yaml:3:72: dscp 64 is out of range: write a number from 0 to 63`},
	{"dscp at the top", g("") + "dscp: -1\n", `xcarp.yaml:4:7: dscp must be a number, not "-1": write a number from 0 to 63`},
	{"factors", g("") + "ifdown_demotion_factor: 256\nsenderr_demotion_factor: off\n", `xcarp.yaml:4:25: ifdown_demotion_factor 256 is out of range: write a number from 0 to 255
xcarp.yaml:5:26: senderr_demotion_factor must be a number, not "off": write a number from 0 to 255`},

	{"no address", addr(""), `xcarp.yaml:1:58: group "g" has no addresses: add one: [10.0.0.1/24]`},
	{"address alone", "groups: {g: {vhid: 1, carpdev: eth0, pass: x, addresses: 10.0.0.1/24}}\n", `xcarp.yaml:1:58: addresses must be a list, not "10.0.0.1/24": write [10.0.0.1/24]`},
	{"not an address", addr("10.0.0/24"), `xcarp.yaml:1:59: "10.0.0/24" is not an address: write an address and the prefix length of its subnet, such as 10.0.0.1/24`},
	{"no prefix", addr("10.0.0.1"), `xcarp.yaml:1:59: address 10.0.0.1 has no prefix length: write that of its subnet, such as 10.0.0.1/24`},
	{"no prefix, IPv6", addr(`"2001:db8::1"`), `xcarp.yaml:1:59: address 2001:db8::1 has no prefix length: write that of its subnet, such as 2001:db8::1/64`},
	{"netmask", addr("10.0.0.1/255.255.255.0"), `xcarp.yaml:1:59: prefix length "255.255.255.0" of address 10.0.0.1 is wrong: write 1 to 32`},
	{"prefix 33", addr("10.0.0.1/33"), `xcarp.yaml:1:59: prefix length "33" of address 10.0.0.1 is wrong: write 1 to 32`},
	{"prefix 0", addr("10.0.0.1/0"), `xcarp.yaml:1:59: address 10.0.0.1 has the prefix length 0: write that of its subnet`},
	{"zone", addr(`"fe80::1%eth0"`), `xcarp.yaml:1:59: address fe80::1%eth0 has a zone: the carpdev says which link`},
	{"multicast", addr("224.0.0.18/24"), `xcarp.yaml:1:59: address 224.0.0.18 is a multicast address: use one that a host can have`},
	{"loopback", addr(`"::1/128"`), `xcarp.yaml:1:59: address ::1 is a loopback address: use one that a host can have`},
	{"mapped", addr(`"::ffff:10.0.0.1/120"`), `xcarp.yaml:1:59: address ::ffff:10.0.0.1 is an IPv4-mapped one: write 10.0.0.1`},
	{"unspecified", addr("0.0.0.0/24"), `xcarp.yaml:1:59: address 0.0.0.0 is in no network: use one that a host can have`},
	{"reserved", addr("255.255.255.255/32"), `xcarp.yaml:1:59: address 255.255.255.255 is reserved or broadcast: use one that a host can have`},
	{"network", addr("10.0.0.0/24"), `xcarp.yaml:1:59: address 10.0.0.0 is the network address of 10.0.0.0/24: use one that a host can have`},
	{"broadcast", addr("10.0.3.255/22"), `xcarp.yaml:1:59: address 10.0.3.255 is the broadcast address of 10.0.0.0/22: use one that a host can have`},
	{"anycast", addr(`"2001:db8::/64"`), `xcarp.yaml:1:59: address 2001:db8:: is the subnet-router anycast address of 2001:db8::/64: use one that a host can have`},
	{"address twice", addr("10.0.0.1/24, 10.0.0.1/32"), `xcarp.yaml:1:72: address 10.0.0.1 a second time: remove one`},
	{"address in two groups", g("") + "  h: {vhid: 2, carpdev: eth0, addresses: [10.0.0.1/24], pass: x}\n", `xcarp.yaml:4:43: address 10.0.0.1 is already in group "g": keep it in one group`},

	{"not among the nodes", strings.Replace(pair, "node: fw-a", "node: fwa", 1), `xcarp.yaml:1:7: node "fwa" is not in sync.nodes: did you mean "fw-a"?`},
	{"node name", g("") + "node: n\n", `xcarp.yaml:4:1: "node" a second time: the first is in line 1`},
	{"sync without a key", "node: a\nsync: {dev: eth2, nodes: {a: 10.1.0.1, b: 10.1.0.2}}\ngroups: {g: {vhid: 1, carpdev: eth0, addresses: [10.0.0.1/24], pass: x}}\n", `xcarp.yaml:2:1: sync needs a key: run (umask 077; xcarp keygen > /etc/xcarp/xcarp.key), copy the file to all nodes, and set key_file`},
	{"sync of nothing", s("{port: 0}"), `xcarp.yaml:3:1: sync has no dev: name the interface to the peer: sync: {dev: eth2, nodes: {fw-a: 172.30.0.1, fw-b: 172.30.0.2}}
xcarp.yaml:3:1: sync has no nodes: sync: {dev: eth2, nodes: {fw-a: 172.30.0.1, fw-b: 172.30.0.2}}
xcarp.yaml:3:14: port 0 is out of range: write a number from 1 to 65535`},
	{"no peer", s("{dev: eth2, nodes: {fw-a: 172.30.0.1}}"), `xcarp.yaml:3:19: sync.nodes names no peer: add the other node and its address`},
	{"sync address with a prefix", s("{dev: eth2, nodes: {fw-a: 172.30.0.1, fw-b: 172.30.0.2/30}}"), `xcarp.yaml:3:51: sync address of fw-b has a prefix length: write its own address on the sync link, without a prefix length`},
	{"same sync address", s("{dev: eth2, nodes: {fw-a: 172.30.0.1, fw-b: 172.30.0.1}}"), `xcarp.yaml:3:51: sync address 172.30.0.1 is already that of fw-a: give each node its own`},
	{"two families", s(`{dev: eth2, nodes: {fw-a: 172.30.0.1, fw-b: "fd00::1"}}`), `xcarp.yaml:3:51: sync address of fw-b is of another family than ours: write all as IPv4 or all as IPv6`},
	{"loopback peer", s("{dev: eth2, nodes: {fw-a: 172.30.0.1, fw-b: 127.0.0.1}}"), `xcarp.yaml:3:51: sync address of fw-b is 127.0.0.1, which no peer can reach: write its own address on the sync link, without a prefix length`},
	{"hold without a unit", s("{dev: eth2, hold: 600, nodes: {fw-a: 172.30.0.1, fw-b: 172.30.0.2}}"), `xcarp.yaml:3:25: hold must be a time, not "600": write the unit, too: 600s`},
	{"hold too short", s("{dev: eth2, hold: 1ms, nodes: {fw-a: 172.30.0.1, fw-b: 172.30.0.2}}"), `xcarp.yaml:3:25: hold 1ms is out of range: write a time from 1s to 24h0m0s`},
	{"advskew of a stranger", strings.Replace(pair, "fw-b: 100", "fw-bb: 100", 1), `xcarp.yaml:8:21: advskew for "fw-bb", which is not in sync.nodes: did you mean "fw-b"?`},
	{"unknown group in a bundle", strings.Replace(pair, "[wan, lan]", "[wan, lna]", 1), `xcarp.yaml:9:15: bundle names an unknown group "lna": did you mean "lan"?`},
	{"group twice in a bundle", strings.Replace(pair, "[wan, lan]", "[wan, wan, lan]", 1), `xcarp.yaml:9:15: group "wan" is in a bundle already: keep it once`},

	{"both passwords", g(", pass_file: p"), `xcarp.yaml:3:66: group "g" has both pass and pass_file: keep one of them`},
	{"empty password", strings.Replace(g(""), "pass: x", `pass: ""`, 1), `xcarp.yaml:3:57: pass must be one value that is not empty: write pass: and the password in quotes`},
	{"no such variable", "key_file: ${CREDENTIALS_DIRECTORY}/k\n" + g(""), `xcarp.yaml:1:11: key_file names ${CREDENTIALS_DIRECTORY}, which is not in the environment: systemd sets it for a unit with LoadCredential=; elsewhere write the path out`},
	{"broken variable", "key_file: ${HOME/k\n" + g(""), `xcarp.yaml:1:11: key_file has a ${ that names no variable: write ${NAME}`},
	{"no key file", "key_file: nope\n" + g(""), `xcarp.yaml:1:11: key_file nope does not exist: make one: (umask 077; xcarp keygen > nope)`},
	{"no password file", strings.Replace(g(""), "pass: x", "pass_file: nope", 1), `xcarp.yaml:3:68: pass_file nope does not exist: write the password into it, mode 0600`},
	{"a password as the key", "key_file: p\n" + g(""), `xcarp.yaml:1:11: key_file p does not hold base64: make one: (umask 077; xcarp keygen > p)`},
}

func TestBad(t *testing.T) {
	for _, c := range bad {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.text)
			if got := said(err); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// TestCaret shows excerpts as a terminal does, with passwords masked.
func TestCaret(t *testing.T) {
	_, err := load(t, `node: fw-z   # tab:	x
key_file: k
sync: {dev: eth2, nodes: {fw-a: 172.30.0.1, fw-b: 172.30.0.2}}
groups:
  wan: {pass: "geheim, }'", vhdi: 3, carpdev: eth0, addresses: [203.0.113.1/24]}
  1: {pasword: geheim, vhid: 1, carpdev: eth1, addresses: ["2001:db8::/32"], mode: [1]}
  carp1: "vhid 1 pass geheim carpdev em0"
  lan:
    vhid: 300
    passwd: geheim, geheim
    carpdev: "äöü	"
    addresses:
      - 10.0.0.0/24
`)
	var b strings.Builder
	for _, p := range Problems(err) {
		fmt.Fprintf(&b, "%s\n%s\n\n", p.Error(), p.Caret)
	}
	const golden = "testdata/caret.txt"
	if strings.Contains(b.String(), "geheim") {
		t.Errorf("a password shows:\n%s", b.String())
	}
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// TestBrokenTextHidesPasswords is about texts that are no YAML, of which no
// tree says where the passwords are.
func TestBrokenTextHidesPasswords(t *testing.T) {
	for _, text := range []string{
		"pass: geheim\n pass: geheim: {\n",
		"a: {pass: geheim, b: [\n",
		"pass: |\n geheim\n  }: geheim\n",
		"pass:\n  geheim: geheim: x\n",
		"pass: \"geheim\n",
		"pass: 'geheim",
		"{pass: [geheim, {",
		"groups: {a: \"vhid 1 pass geheim",
		"pass: *geheim\n",
		"pass: !geheim x\n",
		"pass: &geheim x\n",
	} {
		_, err := load(t, text)
		if err == nil {
			t.Errorf("%q is accepted", text)
		}
		for _, p := range Problems(err) {
			if s := p.Error() + p.Caret; strings.Contains(s, "geheim") {
				t.Errorf("%q: a password shows in %s", text, s)
			}
		}
	}
}

// A file that is no configuration at all costs a line that fits a screen, and says
// what to do.
func TestWhatIsNoConfigurationIsSaidShortly(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"a tab", "node: a\n\tgroups:\n", "xcarp.yaml:2:1: not YAML: found character '\\t' that cannot start any token: indent with blanks, not with tabs"},
		{"an open bracket", "groups: [wan\n", "xcarp.yaml:1:9: not YAML: sequence end token ']' not found: close the bracket that is open here"},
		{"a long text", strings.Repeat("word ", 1000), `xcarp.yaml:1:1: a configuration must be a mapping, not "word word word word word word word word …": write key: value`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.text)
			p := Problems(err)
			if len(p) != 1 {
				t.Fatalf("got %v", err)
			}
			if got := p[0].Error(); !strings.HasSuffix(got, tt.want) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			for line := range strings.Lines(p[0].Caret) {
				if n := len([]rune(line)); n > excerptLen+8 {
					t.Errorf("a line of %d characters", n)
				}
			}
		})
	}
}

func TestALongLineIsCutAroundThePlace(t *testing.T) {
	line := strings.Repeat("a", 500) + "HERE" + strings.Repeat("b", 500)
	got, at := excerpt(line, 500)
	if !strings.HasPrefix(got[at+len("…")-1:], "HERE") || len([]rune(got)) != excerptLen || !strings.HasPrefix(got, "…a") || !strings.HasSuffix(got, "b…") {
		t.Errorf("%q at %d", got, at)
	}
	if got, at := excerpt("short", 3); got != "short" || at != 3 {
		t.Errorf("%q at %d", got, at)
	}
}
