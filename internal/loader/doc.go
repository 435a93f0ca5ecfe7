// Package loader puts the programs of bpf/ onto a carpdev and is the way to their
// maps: roles and addresses go in, counters come out.
//
// A Port is one carpdev. Open attaches three programs: XDP, which shields, answers
// and gates what comes in; tc ingress, which finishes what XDP cannot, or does all
// of it where XDP does not attach; tc egress, the fence, which lets nothing out
// that speaks for an address without the role for it. The programs read the role
// and never decide it.
//
// Programs, maps and links are pinned below the pin directory, one folder per
// interface, and go on working when the process that made them is gone: a master
// whose daemon was killed keeps its role until the lease ends. The next Open finds
// the pins, exchanges the programs under the links (no frame sees a gap) and keeps
// the maps with their roles. Attaching XDP can take a real link down for seconds,
// so it happens once; nothing but Detach takes a program off again.
//
// A role is one 64-bit word per vhid: two bits of carp.State, and a deadline on the
// boot clock in the rest (so deadlines are multiples of 4 ns). Past it the programs
// treat every role as BACKUP. SetRole changes the word by compare-and-swap from the
// value that this process last saw; see there for why that keeps a process that
// slept through a takeover from undoing it.
//
// # Pulses
//
// What peers ask of the dataplane itself (docs/pulses.md) needs maps that all devices
// of a node share, the sync device included: Pulses has them, pinned beside the
// folders of the carpdevs, in one whose name no interface can have. Serve tells where a
// group's role word is, Answer whose asks are answered, Path what is asked from here.
//
// # Where the pins live
//
// Pins need a bpffs that outlives us. `ip netns exec` gives its child a mount
// namespace of its own with a fresh sysfs and no bpffs: one mounted there would die
// with the child, and programs and fence with it. So where our mount namespace is
// not that of process 1, pins go into the bpffs that process 1 sees, by way of
// /proc/1/root. A process 1 that may not be looked at (it has a capability that we
// lack) is replaced by the ancestor that ran `ip netns exec`.
//
// # The answer path
//
// A frame sent back by XDP_TX out of a veth whose far end runs no XDP program waits
// in the far end's ring until something else wakes it, a quarter of a second or
// more. There is no completion to test for from our side, so the far end is asked:
// if it has no program, or cannot be asked, tc ingress gives the answers instead
// (Answer reports "tc"). Recheck repeats the question.
//
// # Limits
//
// A device that takes VLAN tags off in hardware shows XDP tagged frames as untagged
// ones: switch rxvlan off on a carpdev that carries VLANs. Programs are little-endian
// only.
package loader
