// Package journal keeps what an operator may ask about later: every line that the
// daemon logs at level info or above, numbered, over restarts.
//
// A [Journal] is a zapcore.Core, so whoever logs writes into it, and nobody has to
// remember to. It never makes anybody wait: events go to memory, [Journal.Run] writes
// them behind to two files of bounded size, and what no longer fits is the oldest.
package journal
