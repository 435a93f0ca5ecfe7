// Package lab builds a pair of routers with a client and a server in network
// namespaces, cuts one of the routers off, and measures what the client saw.
//
//	client ──lan──┬── fw-a ──┬──wan── server
//	              └── fw-b ──┘
//	           fw-a ──sync── fw-b
//
// A Net is the cables and the two routers, each with a strict nft ruleset and
// source NAT to the shared WAN address, so that an answer proves that the state
// of the connection is where the packet is. The server has no route to the LAN.
// The switches are three bridges in a namespace of their own: faults are made
// there, where a router cannot see or prevent them.
//
// A System is what makes the routers a pair: xcarp, or what it is compared
// with. It is a value of a few functions, so the same cut can be made under
// each of them.
//
// Measure runs one fault under one system and returns a Result. Every figure in
// it comes from these observers:
//
//   - Probe: a UDP request each 500 µs through the pair, from a thread of its
//     own. The blackout is counted from send time to send time, and the longest
//     gap between the prober's own sends is reported as the rig's own stall.
//   - Download: one TCP connection, server to client, paced, seeded random bytes,
//     hashed on both ends.
//   - Flows: connections opened while the pair runs on its backup; after the
//     failback the server speaks first on them, which only a node that has
//     their state lets pass.
//   - Resets: TCP segments with RST, seen on the client's and the server's wire.
//   - Masters: who answers ARP requests for the shared LAN address.
//
// Whatever happens, Net.Close leaves nothing behind; Sweep removes what a run
// that was killed left.
package lab
