package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"
)

// terms keeps the term of every group over restarts. Writing is behind: a
// takeover never waits for a disk, and a term that was lost is learnt from the
// peer over the sync channel.
type terms struct {
	state *stateDir
	log   *zap.Logger

	mu    sync.Mutex
	known map[string]uint64
	dirty chan struct{} // holds one token while known is newer than the file

	disk    sync.Mutex // held while writing
	refused bool       // the disk did the last time: said once
}

// termsName is the file with them in the state-dir.
const termsName = "terms.json"

// openTerms reads the file. One that is not readable is set aside: the peer knows the
// terms, and a router that does not start is worse than one that has to learn them.
func openTerms(state *stateDir, log *zap.Logger) *terms {
	t := &terms{state: state, log: log, known: map[string]uint64{}, dirty: make(chan struct{}, 1)}
	b, err := state.read(termsName)
	if errors.Is(err, fs.ErrNotExist) {
		return t
	}
	if err == nil {
		if err = json.Unmarshal(b, &t.known); err == nil && t.known != nil { // "null" is valid
			return t
		}
		t.known = map[string]uint64{}
		if aside := state.setAside(termsName); aside != nil {
			err = errors.Join(err, aside)
		}
	}
	log.Warn("the terms are not readable: the peer has to teach them", zap.String("file", termsName), zap.Error(err))
	return t
}

// Get returns the last term known of a group.
func (t *terms) Get(group string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known[group]
}

// Set notes a newer term; an older one changes nothing. It does not block.
func (t *terms) Set(group string, term uint64) {
	t.mu.Lock()
	newer := term > t.known[group]
	if newer {
		t.known[group] = term
	}
	t.mu.Unlock()
	if !newer {
		return
	}
	select {
	case t.dirty <- struct{}{}:
	default:
	}
}

// termsAgain is between two tries to write what the disk refuses.
const termsAgain = time.Second

// Run writes behind until the context ends, and once more then.
func (t *terms) Run(ctx context.Context) error {
	var again <-chan time.Time
	for {
		select {
		case <-t.dirty:
		case <-again:
		case <-ctx.Done():
			select {
			case <-t.dirty:
				t.write()
			default:
				if again != nil {
					t.write()
				}
			}
			return nil
		}
		if again = nil; !t.write() {
			again = time.After(termsAgain)
		}
	}
}

// write reports whether the terms are on the disk.
func (t *terms) write() bool {
	t.disk.Lock()
	defer t.disk.Unlock()
	t.mu.Lock()
	snapshot := maps.Clone(t.known)
	t.mu.Unlock()
	err := t.state.write(termsName, snapshot)
	if err != nil && !t.refused {
		t.log.Warn("the terms are not on disk: a reboot may forget the last takeover", zap.Error(err))
	}
	t.refused = err != nil
	return err == nil
}
