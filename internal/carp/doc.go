// Package carp is the election of the Common Address Redundancy Protocol as
// the BSDs and ucarp speak it, as pure code: no socket, timer, lock, logger or
// clock. Bytes, facts and the time go in; intentions come out.
//
//   - [Advert] is the 36 byte header, [ParseFrame] and [AppendFrame] the
//     Ethernet and IP around it. Both look at form only, and what they refuse
//     has a [Drop] reason, named as in `netstat -s -p carp`.
//   - [Key] signs adverts and decides whether to believe one. It also knows
//     what it has signed lately, so that an echo of it is told from a peer.
//   - [Machine] is one virtual host on one carpdev. Facts are verbs (Link,
//     Receive, Tick, Demote, Sent, Peer, Follow, Stop, Adopt; about pulses and
//     claims Silent, CutOff, Claim, Acked, Refused, Claimed, Handover); every verb
//     returns [Effects], a struct whose field order is the order in which the
//     caller carries them out. [Machine.Deadline] says when to call Tick.
//   - [Watch] reads the silence of a peer that is asked by pulses.
//
// # The states
//
//	         link up            master silent, slower, leaving
//	INIT ─────────────► BACKUP ───────────────────────────────► MASTER
//	 ▲                    ▲                                       │  │
//	 │ link down (any)    │ 100 ms            better advert, term │  │ lease over
//	 └────────────────    └────────────── DRAIN ◄─────────────────┘  │
//	                      └──────────────────────────────────────────┘
//
// A better advert has the lower demotion, then the shorter interval, then the
// lower source address. IPv4 and IPv6 adverts are one election.
//
// MASTER is never just a state, it is a state until a time: the lease. It
// runs from the instant before the last advert that was really sent, and is
// shorter than the time any backup with our advbase waits. So a node that was
// stopped, starved or suspended is silent before somebody else speaks, and the
// first thing its Machine does afterwards is to step down and listen.
//
// All times are on the boot clock; see [BootTime].
package carp
