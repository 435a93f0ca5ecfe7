// Package probe sends numbered requests at a steady pace, from a thread of its
// own and in packets made beforehand, and remembers when each was sent, arrived
// and was answered, and how often.
//
// A Prober sends one request per interval over each of its paths (IPv4, IPv6).
// The blackout of a path is counted from send time to send time, so a late
// receiver cannot lengthen it. What the prober itself was late is in its own
// stamps, and every figure comes with it.
//
// Measure is pure: it knows shots, not sockets.
package probe
