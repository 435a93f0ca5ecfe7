// Package sync keeps the connection table of a peer equal to ours, over one
// dedicated link, so that the peer can take over at any instant and every
// connection goes on.
//
//	kernel ─► Table.Events ─► shadow ─► pending ─► frame ─► link ─► peer's shadow ─► Table.Apply ─► kernel
//
// # Records of state, not of events
//
// The shadow is the table in user space: one entry per flow, with the newest
// state we know and, per peer, whether the peer has it. An event changes the
// entry and makes it pending; the record is written when it is sent, so a newer
// state replaces an older one by itself and memory is bounded by the number of
// flows, not of messages. A frame in flight remembers which entries it carried.
// The receiver acknowledges frames once their records are in its table; what an
// ack shows as missing, or what is not acknowledged in time, is pending again,
// with the state it has by then. Nothing is ever replayed, so nothing old can
// overtake something new: the receiver drops every frame that is not newer than
// the last one. A delete is a state, too, kept until it is acknowledged.
//
// Everything that is not a record travels in the heartbeat, every 100 ms and at
// once on a change. It repeats until the other side shows by its own heartbeat
// that it has understood, so no message needs an ack of its own.
//
// # Bulk updates
//
// A node that doubts its table asks its peers for a bulk update: at the start of
// a session, when a node becomes an owner or stops being one, after lost events,
// on Resync, and every third of Hold. The owner dumps the kernel's table,
// queues every flow beside whatever else is pending, and says END when all are
// acknowledged. The asking node then deletes what the bulk update did not
// mention and what was the owner's (the first time after its start, and after it
// was an owner: any flow of the kernel that peers would mirror). A node that owns nothing answers just that, and nothing
// is swept. There is no BEGIN: whatever comes after the request counts as
// mentioned.
//
// # Owners
//
// An owner is a node that is MASTER of a group. Only owners send records; the
// flows of a node become its own when it becomes an owner, and nobody's when it
// stops. A delete counts only from an owner and only about a flow that is not
// ours, so a node that leaves, is flushed or has an old table cannot take
// connections from the one that carries them. Where two nodes own something
// (active-active, or after a split) records are taken from both, and a TCP
// connection never goes backwards.
//
// A node that owns nothing keeps no listener: one triples the cost of every
// insert. It looks at the number of entries each second instead, and puts back
// what somebody has flushed.
//
// # What is mirrored
//
// UDP and ICMP from the first packet; TCP from the first answer (a SYN flood
// stays where it is); nothing from or to an address of one node only, loopback
// or multicast. A refreshed timeout is no event, so a peer's copy gets at least
// Hold; deletes and sweeps remove it before. The node that takes over gives idle
// flows back the time their last owner told.
//
// # Demotion
//
//	owns | situation                                              | asks for
//	-----+--------------------------------------------------------+---------
//	no   | since the start or Own(false) no table from an owner,  |
//	     | and nobody said that there is none                     | 240
//	no   | table complete, but no session for 1 s, or not in sync |
//	     | since it is back                                       | 1
//	no   | in sync                                                | 0
//	yes  | no session with anybody for 3 s, though there was one  |
//	     | while owner, and the peer is not Vouched for           | 1
//	yes  | otherwise, as an owner's table is complete             | 0
//
// The last but one is the healed old master: it was cut off, somebody may have
// taken over unseen and now carries the connections. That node became owner
// while it did not hear us and asks for 0, so it stays, until our table has been
// repaired from its. An owner of which the peer's dataplane says meanwhile that it is
// BACKUP was not cut off. A node that hears one of several peers is not cut off: those
// that share load all own, and the first to doubt would lose its share to the next.
//
// # Security
//
// Every frame but the handshake is sealed by a Noise session (NNpsk0, 25519,
// AES-GCM, BLAKE2s) per peer; the key is the pre-shared one. The node whose name
// sorts lower begins. A new session lives beside the old one until it has proven
// itself: by the answer to our fresh key, or by the first data frame. Keys change
// every hour. The only
// frame without authentication is "hello", with which the other side asks for a
// handshake; it starts one, seldom, and ends nothing.
//
// # Goroutines
//
//	Table.Events  event → shadow, pending        send (one per peer)  pending → frame
//	receive       frame → batch, acks, beats     inject               batch → table, ack
//	worker        dumps, bulk updates, sweeps    watch                demotion
//
// One mutex guards the shadow and the peers; nobody holds it for more than some
// hundred entries, and nobody waits for the kernel or the network under it. The
// gate makes inject and worker take turns with the table.
package sync
