package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	stdsync "sync"
	"time"

	"go.uber.org/zap"
)

const (
	// maxOperator bounds how many demotions an operator can have at a time.
	maxOperator = 64

	// maxFor is the longest time that a demotion can be given.
	maxFor = 366 * 24 * time.Hour

	maxReason = 200 // bytes
)

// operator keeps the demotions that were asked for over the control socket. They
// outlive the daemon: somebody who demoted a node to work on it does not expect
// that a restart makes it master.
type operator struct {
	state *stateDir
	log   *zap.Logger
	known func(group string) bool
	apply func(d Demotion, n int) // n: by how much now, 0 takes it back
	kick  chan struct{}           // holds one: the expiries changed

	mu      stdsync.Mutex
	file    demotionFile
	unsaved bool // the disk has more demotions than file
}

// demotionsName is the file with them in the state-dir.
const demotionsName = "demotions.json"

// demotionFile is what is in it.
type demotionFile struct {
	Last      int        `json:"last"` // highest id so far
	Demotions []Demotion `json:"demotions"`
}

// refusal is an answer to a request that makes no sense.
type refusal string

func (r refusal) Error() string { return string(r) }

func openOperator(state *stateDir, log *zap.Logger, known func(string) bool, apply func(Demotion, int)) (*operator, error) {
	o := &operator{
		state: state, log: log, known: known, apply: apply,
		kick: make(chan struct{}, 1),
	}
	b, err := state.read(demotionsName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return o, nil
	case err != nil:
		return nil, fmt.Errorf("read the operator's demotions: %w", err)
	}
	if err := json.Unmarshal(b, &o.file); err != nil {
		return nil, fmt.Errorf("%s: not a file of demotions (%w): remove it, and demote anew what has to be", filepath.Join(state.dir, demotionsName), err)
	}
	return o, nil
}

// Begin applies what an earlier daemon left, without what has expired meanwhile.
func (o *operator) Begin() {
	o.expire(time.Now())
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, d := range o.file.Demotions {
		o.apply(d, d.By)
	}
}

// Demote adds a demotion. It is on disk before it is confirmed.
func (o *operator) Demote(d Demotion, span time.Duration) (Demotion, error) {
	switch {
	case d.By < 1 || d.By > 255:
		return d, refusal(fmt.Sprintf("demote by %d: write 1 to 255", d.By))
	case d.Group != "" && !o.known(d.Group):
		return d, refusal(fmt.Sprintf("no group %q: `xcarp show` lists them", d.Group))
	case span < 0 || span > maxFor:
		return d, refusal(fmt.Sprintf("demote for %v: write a time up to a year, or leave it out for ever", span))
	case len(d.Reason) > maxReason || strings.ContainsFunc(d.Reason, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return d, refusal(fmt.Sprintf("the reason must be one line of at most %d bytes", maxReason))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.file.Demotions) >= maxOperator {
		return d, refusal(fmt.Sprintf("%d demotions already: take one back by `xcarp undemote ID`", maxOperator))
	}
	d.Since = time.Now()
	if span > 0 {
		until := d.Since.Add(span)
		d.Until = &until
	}
	next := demotionFile{Last: o.file.Last + 1, Demotions: slices.Clone(o.file.Demotions)}
	d.ID = next.Last
	next.Demotions = append(next.Demotions, d)
	if err := o.state.write(demotionsName, next); err != nil {
		return d, fmt.Errorf("nothing was demoted, for it cannot be written down: %w", err)
	}
	o.file, o.unsaved = next, false
	o.apply(d, d.By)
	o.log.Info("demoted by an operator", zap.Int("id", d.ID), zap.String("group", d.Group), zap.Int("by", d.By),
		zap.Duration("for", span), zap.String("user", d.User), zap.String("reason", d.Reason))
	select {
	case o.kick <- struct{}{}:
	default:
	}
	return d, nil
}

// Undemote takes one demotion back, or all with id 0, and returns them.
func (o *operator) Undemote(id int, user string) ([]Demotion, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	gone := o.without(func(d Demotion) bool { return id == 0 || d.ID == id })
	if len(gone) == 0 && id != 0 {
		var ids []string
		for _, d := range o.file.Demotions {
			ids = append(ids, fmt.Sprint(d.ID))
		}
		if len(ids) == 0 {
			ids = []string{"none"}
		}
		return nil, refusal(fmt.Sprintf("no demotion %d: known by id: %s", id, strings.Join(ids, ", ")))
	}
	for _, d := range gone {
		o.log.Info("demotion taken back", zap.Int("id", d.ID), zap.String("group", d.Group), zap.String("user", user))
	}
	return gone, nil
}

// without removes demotions, with mu held. One that cannot be removed from the
// disk is gone all the same: Run tries again, or it would come back with a restart.
func (o *operator) without(which func(Demotion) bool) (gone []Demotion) {
	var kept []Demotion
	for _, d := range o.file.Demotions {
		if which(d) {
			gone = append(gone, d)
		} else {
			kept = append(kept, d)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	o.file.Demotions = kept
	o.save()
	for _, d := range gone {
		o.apply(d, 0)
	}
	return gone
}

// save removes from the disk what is over, with mu held.
func (o *operator) save() {
	err := o.state.write(demotionsName, o.file)
	if err != nil && !o.unsaved {
		o.log.Warn("a demotion that is over is still on disk, and would be back after a restart", zap.Error(err))
	}
	o.unsaved = err != nil
}

// expire takes back what is over and returns when the next one is.
func (o *operator) expire(now time.Time) (next time.Time, some bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, d := range o.without(func(d Demotion) bool { return d.Until != nil && !now.Before(*d.Until) }) {
		o.log.Info("demotion expired", zap.Int("id", d.ID), zap.String("group", d.Group))
	}
	if o.unsaved {
		o.save()
	}
	for _, d := range o.file.Demotions {
		if d.Until != nil && (!some || d.Until.Before(next)) {
			next, some = *d.Until, true
		}
	}
	return next, some
}

// Run takes demotions back when they expire, until the context ends.
func (o *operator) Run(ctx context.Context) error {
	// Times from the disk are of the wall clock, which may be set.
	const again = time.Minute
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-o.kick:
		case <-timer.C:
		}
		wait := again
		if next, some := o.expire(time.Now()); some {
			wait = min(wait, max(0, time.Until(next)))
		}
		timer.Reset(wait)
	}
}

// Status lists the demotions.
func (o *operator) Status() []Demotion {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]Demotion{}, o.file.Demotions...)
}

// Each calls f for every demotion. None begins or ends meanwhile.
func (o *operator) Each(f func(Demotion)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, d := range o.file.Demotions {
		f(d)
	}
}

// Forget takes back the demotions of groups that are gone for good.
func (o *operator) Forget(gone func(group string) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, d := range o.without(func(d Demotion) bool { return d.Group != "" && gone(d.Group) }) {
		o.log.Info("demotion taken back: its group is gone", zap.Int("id", d.ID), zap.String("group", d.Group))
	}
}

// demoteByOperator carries a demotion to the election, of whole bundles.
func (d *Daemon) demoteByOperator(what Demotion, n int) {
	cfg := d.now.Load()
	if n > 0 {
		d.moveDemoted(what.Group, n)
	}
	for _, m := range d.members() {
		if n == 0 || cfg.Concerns(what.Group, m.cfg.Name) {
			m.group.Demote(what.Owner(), n)
		}
	}
}
