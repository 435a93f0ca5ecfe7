package daemon

import (
	"path/filepath"
	"slices"
	"time"

	"github.com/xcarp/xcarp/internal/config"
)

// StaleStatus says why the configuration that runs is not the one on disk.
type StaleStatus struct {
	Why      string    `json:"why"` // refused, restart (it applies what a running daemon cannot) or failed
	Since    time.Time `json:"since"`
	Problems []string  `json:"problems"` // one line each
}

// The reasons of a StaleStatus.
const (
	staleRefused = "refused"
	staleRestart = "restart"
	staleFailed  = "failed"
)

// absolute is the path for somebody who works in another directory.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil && path != "" {
		return abs
	}
	return path
}

// outdated notes why the file on disk is not what runs; an empty why, that it is. It
// reports whether that is news.
func (d *Daemon) outdated(why string, problems ...error) (news bool) {
	before := d.stale.Load()
	if why == "" {
		d.stale.Store(nil)
		return before != nil
	}
	s := &StaleStatus{Why: why, Since: time.Now(), Problems: []string{}}
	for _, err := range problems {
		for _, p := range config.Problems(err) {
			s.Problems = append(s.Problems, p.Error())
		}
	}
	same := before != nil && before.Why == why
	if same {
		s.Since = before.Since
	}
	d.stale.Store(s)
	return !same || !slices.Equal(s.Problems, before.Problems)
}
