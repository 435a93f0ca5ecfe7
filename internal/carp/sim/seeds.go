package sim

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Summary is what became of many simulations.
type Summary struct {
	Seeds       uint64
	Events      int
	Transitions int
	Refused     int
	Broken      []Result // simulations with a broken rule, by seed
}

// Seeds simulates n seeds from first on, on so many workers at once, until
// enough of them have broken a rule: every worker finishes the one it is at. stop, if not nil, ends it early; progress,
// if not nil, is told how many are done, from any goroutine.
func Seeds(first, n uint64, workers, enough int, stop <-chan struct{}, progress func(done uint64)) Summary {
	var mu sync.Mutex
	var all Summary
	var next, done atomic.Uint64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				i := next.Add(1) - 1
				select {
				case <-stop: // a nil one never comes
					return
				default:
				}
				if i >= n {
					return
				}
				r := Run(first+i, nil, nil)
				mu.Lock()
				all.add(r)
				end := len(all.Broken) >= enough
				mu.Unlock()
				if end {
					return
				}
				if d := done.Add(1); progress != nil {
					progress(d)
				}
			}
		})
	}
	wg.Wait()
	slices.SortFunc(all.Broken, func(a, b Result) int {
		if a.Scenario.Seed < b.Scenario.Seed {
			return -1
		}
		return 1
	})
	return all
}

func (s *Summary) add(r Result) {
	s.Seeds++
	s.Events += r.Events
	s.Transitions += r.Transitions
	s.Refused += r.Refused
	if r.Broken != nil {
		s.Broken = append(s.Broken, r)
	}
}
