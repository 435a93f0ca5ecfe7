// Package bsd reads the lines that configure carp(4) and pfsync(4) on the BSDs:
// arguments of ifconfig(8), lines of hostname.carpN and rc.conf, names below
// net.inet.carp of sysctl(8). It is the one parser of them, for the configuration,
// for `xcarp ifconfig` and `xcarp sysctl`, and for whoever imports such files. It
// is pure: it knows no interface and no group.
//
//	ParseIfconfig  carp1 vhid 1 pass password carpdev em0 advskew 100 10.0.0.1 netmask 255.255.255.0
//	ParseGroup     the same without the name of an interface, as in hostname.carp1
//	ParseSysctl    net.inet.carp.preempt=1
//
// A line is an unordered list of keywords with their values and of addresses. An
// address carries its mask as /N, or is followed by `netmask M` (dotted or in hex),
// `prefixlen N`, or a bare dotted mask and then perhaps a broadcast address or
// NONE. A bare mask looks like an address: what decides is that it stands behind
// one.
//
// Errors name the word by its column, and say what to write. They never show a
// password.
package bsd
