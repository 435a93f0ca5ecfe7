package daemon

import (
	"path/filepath"
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

// outdated notes why the file on disk is not what runs; an empty why, that it is.
func (d *Daemon) outdated(why string, problems ...error) {
	if why == "" {
		d.stale.Store(nil)
		return
	}
	s := &StaleStatus{Why: why, Since: time.Now(), Problems: []string{}}
	if before := d.stale.Load(); before != nil && before.Why == why {
		s.Since = before.Since
	}
	for _, err := range problems {
		for _, p := range config.Problems(err) {
			s.Problems = append(s.Problems, p.Error())
		}
	}
	d.stale.Store(s)
}
