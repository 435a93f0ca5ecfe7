// Package sim runs the election of package carp in a simulated world: the real
// Machine and the real Guard of two to five nodes, whole frames on a segment that
// loses, delays, doubles, reorders and cuts them, the sync channel, processes
// that stall and are killed, machines that lose their power, their storage or
// their carrier, clocks that jump, and an attacker who hears everything, can send
// anything and has no key. Time is a number; whatever happens follows from the
// seed.
//
// A simulation is a chaos, in which faults are made, and then a time in which all
// is well. During the whole of it the rules must hold that keep addresses from
// being answered for twice; in the second part, after a bound, there must be one
// master, the best one if all preempt. See the constants Rule… and [Scenario].
//
//   - [Run] simulates a seed and can write a trace, one line per event, and
//     records of what every Machine was told.
//   - [Seeds] does many.
//   - [Replay] tells a record to a fresh Machine. The stories of package carp's
//     testdata have the same form.
//   - [Start] starts equals at the same time, also beside models of other
//     implementations.
//
// # Records
//
// A record is text, one line per fact, for one Machine:
//
//	config vhid=1 advbase=1 advskew=100 preempt trailer node=77 counter=5 term=3
//	12.5         up                          => role BACKUP (initialization complete)
//	12.500001    recv from=10.0.0.2 own=10.0.0.1 advbase=1 advskew=0 counter=9 node=5 term=4
//	13.0         peer MASTER node=fw-b term=4
//	15.9         tick
//
// Times are seconds since the boot, with at most nine decimals. What stands after
// => is what the Machine wanted; it may be left out. Lines that begin with # and
// empty ones are for people. A second config line begins with a new Machine. The
// facts, and what may be left out:
//
//	up, down, tick, stop, follow
//	recv [from=A] [own=A|none] advbase=N advskew=N [demote=N] [counter=N] [node=N term=N]
//	goodbye [from=A] [own=A|none] [counter=N] [node=N term=N]
//	sent [at=TIME] [fail]
//	demote OWNER [by=N]
//	adopt STATE until=TIME [term=N]
//	peer STATE node=NAME [term=N] [ears=hear|deaf|unknown]
//	ears hear|deaf|unknown
//	status
//
// status is no fact: it asks where the Machine stands.
//
// # What is not simulated
//
// Bundles, hooks, tracking and the connection table. A boot clock that goes back:
// Linux has none. An advert that an attacker holds back until all is well is one
// that was delayed so long.
package sim
