package carp

import "time"

// Times in this package are on the boot clock: CLOCK_BOOTTIME nanoseconds since
// the machine started, written as a time.Time since the Unix epoch. It is never
// stepped and it runs on during suspend, so a lease that ran out while the
// machine slept has run out.

// BootTime returns the instant d after boot.
func BootTime(d time.Duration) time.Time { return time.Unix(0, int64(d)) }

// SinceBoot is the inverse of BootTime.
func SinceBoot(t time.Time) time.Duration { return time.Duration(t.UnixNano()) }
