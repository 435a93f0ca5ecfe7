// Package ct is the kernel's connection table in terms that two nodes can
// exchange: Flow. It reads the table (Dump), hears its changes (Events) and
// makes changes of its own (Apply).
//
// It speaks ctnetlink itself, over raw NETLINK_NETFILTER sockets. The general
// libraries wait for an acknowledgement per entry, end at the first overrun and
// cannot say "source port 40000" in a NAT; here one batch carries 256 entries,
// nothing is acknowledged and errors are matched by sequence number.
//
// A Table has four sockets, all made by Open and therefore all in the network
// namespace of the thread that called Open, wherever they are used later:
//
//	inject  Apply: one caller at a time
//	events  Listen, Events: multicast, minus what inject caused
//	dump    Dump: one at a time
//	probe   closed again by Open: is ctnetlink there?
//
// # What the kernel does with an injected flow
//
// An entry made through ctnetlink has the windows of no packet, so each TCP
// entry gets the flag BE_LIBERAL in both directions and, with it, the window
// scales; the first packet each way seeds the window. A translation (NAT) is
// set once, at creation, and can never be changed: an entry whose translation
// is wrong is deleted and made anew. A translated entry needs two more things
// that are not in the entry: conntrack and NAT hooks in the namespace. Hooks
// exist where a ruleset uses them; without any "type nat" chain the entry is
// there, complete, and no packet is translated; one empty chain, at any hook of
// the family, is enough.
//
// Not carried: zones other than 0 (such entries are not delivered), helpers,
// labels, sequence adjustment, masters, expectations, counters. SCTP and the
// other protocols are skipped.
package ct
