// Package daemon wires one node together: the groups and their carpdevs, the
// mirror of the connection table, the kernel's addresses, and what an operator
// sees of it.
//
// What runs, and who waits for whom:
//
//	hostFacts   kernel ─► link states, own addresses ─► groups, mirror
//	group.Run   one per group; decides and acts: map, advert, announcement
//	keeper      follows the roles: RST trap, then the kernel's addresses
//	sync.Mirror tells demotion to the groups, and is told who is MASTER
//	tracking    what the groups need ─► demotion
//	starter     holds and demotes what has just started, until it is ready
//	operator    demotions from the control socket, on disk
//	hooks       tells programs of changes, in order
//	pulses      agrees with the peers on keys; its thread (pulsethread.go, pulseclaim.go,
//	            pulsesend.go, watched.go) asks them, judges their silence, claims, and moves the
//	            groups at once
//	cpus        moves the sender thread off a CPU that a flood keeps busy
//	life        signs of life, of the elections and of the thread for them
//	story       tells the peers of changes, for why and log
//	terms       writes the terms behind
//	control     the unix socket: status and metrics
//
// Groups come, change and go while all this runs (change.go): a group enters, leaves
// with a goodbye, or is replaced by one that adopts its role and lease. One change at a
// time, from a line of ifconfig or sysctl (lines.go) or from the file (SIGHUP). What
// others read, the members and the carpdevs, changes as a whole.
//
// On the way up a takeover calls Mirror.Own before the map is flipped (three
// system calls), and has the programs note the first frame; nothing else. All other
// parts learn of it afterwards.
//
// A process can be replaced by the next one in place (restart.go): what is on the
// carpdevs stays, and is adopted.
//
// An orderly stop ends the groups first, which drain and say goodbye, then the
// keeper, which takes the addresses away, then the rest. Programs and maps stay
// on the carpdevs with role INIT: attaching can flap a link, so it is done once.
package daemon
