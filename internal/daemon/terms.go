package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"go.uber.org/zap"
)

// terms keeps the term of every group over restarts. Writing is behind: a
// takeover never waits for a disk, and a term that was lost is learnt from the
// peer over the sync channel.
type terms struct {
	path string
	log  *zap.Logger

	mu    sync.Mutex
	known map[string]uint64
	dirty chan struct{} // holds one token while known is newer than the file
}

// openTerms reads the file. A file that cannot be read as terms is an error: a
// term that falls back to zero would let a stale node win.
func openTerms(stateDir string, log *zap.Logger) (*terms, error) {
	t := &terms{
		path:  filepath.Join(stateDir, "terms.json"),
		log:   log,
		known: map[string]uint64{},
		dirty: make(chan struct{}, 1),
	}
	b, err := os.ReadFile(t.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return t, nil
	case err != nil:
		return nil, fmt.Errorf("read the terms: %w", err)
	}
	if err := json.Unmarshal(b, &t.known); err != nil {
		return nil, fmt.Errorf("%s: not a file of terms (%w): remove it, the peer knows the terms", t.path, err)
	}
	return t, nil
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

// Run writes behind until the context ends, and once more then.
func (t *terms) Run(ctx context.Context) error {
	for {
		select {
		case <-t.dirty:
			t.write()
		case <-ctx.Done():
			select {
			case <-t.dirty:
				t.write()
			default:
			}
			return nil
		}
	}
}

func (t *terms) write() {
	t.mu.Lock()
	snapshot := maps.Clone(t.known)
	t.mu.Unlock()
	if err := writeFile(t.path, snapshot); err != nil {
		t.log.Warn("the terms are not on disk: a reboot may forget the last takeover", zap.Error(err))
	}
}

// writeFile replaces the file in one step: a reader, or a node whose power goes,
// finds the old terms or the new ones.
func writeFile(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".terms-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // no longer there once it is renamed
	if _, err := f.Write(append(b, '\n')); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
