package carp

import (
	"math/bits"
	"time"
)

// reflections is a histogram of how long asks took, four buckets for each power of
// two of microseconds. It forgets: when it is full every count is halved.
type reflections struct {
	count [64]uint16
	n     int
}

const (
	reflectionsMax = 4096
	reflectionsFew = 64
)

// bucket returns the bucket of a time.
func bucket(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	if us < 4 {
		return int(us)
	}
	top := bits.Len64(us) - 1 // 2 or more
	return min(4*(top-1)+int(us>>(top-2)&3), 63)
}

// most returns the end of a bucket.
func most(i int) time.Duration {
	if i < 4 {
		return time.Duration(i+1) * time.Microsecond
	}
	top, quarter := i/4+1, i%4
	return time.Duration(uint64(5+quarter)<<(top-2)) * time.Microsecond
}

func (r *reflections) add(d time.Duration) {
	if r.n >= reflectionsMax {
		r.n = 0
		for i := range r.count {
			r.count[i] /= 2
			r.n += int(r.count[i])
		}
	}
	r.count[bucket(d)]++
	r.n++
}

// slowest returns the 99.9th percentile. Of less than two thousand the longest does
// not count, once there are some: one stall is not what is usual.
func (r *reflections) slowest() time.Duration {
	if r.n == 0 {
		return 0
	}
	rest := r.n / 1000 // may be slower
	if r.n >= reflectionsFew {
		rest = max(rest, 1)
	}
	for i := len(r.count) - 1; i >= 0; i-- {
		if rest -= int(r.count[i]); rest < 0 {
			return most(i)
		}
	}
	return 0
}
