package sync

import "context"

// gate lets one goroutine at a time change the table and decide, by the shadow,
// what to change: a sweep must not delete what a record has just put there. It
// is a channel, not a mutex, as its holder waits for the kernel.
type gate chan struct{}

func (g gate) enter(ctx context.Context) bool {
	select {
	case g <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (g gate) leave() { <-g }
