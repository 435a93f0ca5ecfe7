// Package group runs one CARP group: it owns a [carp.Machine] and is its eyes
// and hands.
//
//	conn ─► reader ─► frame ─┐
//	timer (Machine.Deadline) ├─► Run ─► Machine ─► Effects ─► 1 Dataplane  2 advert  3 announcement
//	Link, Demote, Peer, … ───┘
//
// A [Carpdev] has one packet socket for all groups of an interface and gives each
// its conn. Where adverts go (a multicast group, one peer) is asked at each send.
//
// [Group.Run] is the one goroutine that changes a role. It waits for a frame,
// the deadline or word from the daemon, calls one verb of the Machine, and
// carries out the Effects in their order. The outcome of a send is a fact for
// the Machine again: only an advert that really left renews the lease.
//
// All frames with the virtual MAC as their source pass the normal queue, never
// a qdisc bypass, because the fence against a daemon that lost its role while
// it slept sits in tc egress. A frame dropped there is a failed send. Goodbyes
// leave from the NIC's own MAC, so they move no switch's table.
//
// Link, Demote, Peer and Follow never block and lose nothing that still
// matters: a mailbox keeps the newest of each.
package group
