package carp

import "time"

// Interval returns the time between two adverts: advbase + advskew/256
// seconds, in whole microseconds as ip_carp.c has it. 0/0 means 1/256 s, as in
// OpenBSD.
func Interval(advbase, advskew uint8) time.Duration {
	if advbase == 0 && advskew == 0 {
		advskew = 1
	}
	return time.Duration(advbase)*time.Second + skew(advskew)
}

// MasterDown returns how long a backup waits for an advert: 3·advbase +
// advskew/256 seconds as FreeBSD, NetBSD and ucarp do, so that the better
// backup comes first. For advbase 0 that would be one interval; it is three of
// them, as in OpenBSD.
func MasterDown(advbase, advskew uint8) time.Duration {
	if advbase == 0 {
		return 3 * Interval(0, advskew)
	}
	return 3*time.Duration(advbase)*time.Second + skew(advskew)
}

// Lease returns how long a master may act on one advert: nine tenths of what
// the fastest backup with the same advbase waits. That one has advskew 0,
// which is why ours never counts. With advbase 0 only the skew is left to
// count, and members with different skews have no common safe time.
func Lease(advbase, advskew uint8) time.Duration {
	t := time.Duration(advbase) * time.Second
	if advbase == 0 {
		t = Interval(0, advskew)
	}
	return t * 27 / 10
}

func skew(advskew uint8) time.Duration {
	return time.Duration(advskew) * 1e6 / 256 * time.Microsecond
}
