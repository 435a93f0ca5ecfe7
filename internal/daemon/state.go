package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/durable"
)

// stateDir is the folder of what outlives a reboot. One process at a time has it. A
// second daemon there goes on with nothing: what it wrote would be read by the first
// as its own, and two nodes with one id take each other's adverts for their own. A
// disk that cannot be written to is read all the same.
type stateDir struct {
	dir     string
	lock    *os.File // the folder itself; nil: not ours
	why     error    // that it is not ours, or not to be written to
	foreign bool     // it is somebody else's
	log     *zap.Logger
}

// openState makes this process the only one with the folder, until it ends. It makes
// nothing yet, for the start may be refused: see begin.
func openState(dir string, log *zap.Logger) *stateDir {
	s := &stateDir{dir: dir, log: log}
	if s.why = s.hold(); s.why != nil && !errors.Is(s.why, fs.ErrNotExist) {
		s.complain()
	}
	return s
}

// begin makes the folder, if it is missing, and allows to write to it.
func (s *stateDir) begin() {
	if errors.Is(s.why, fs.ErrNotExist) {
		if s.why = os.MkdirAll(s.dir, 0o750); s.why == nil {
			s.why = s.hold()
		}
		if s.why != nil {
			s.complain()
		}
	}
	if s.lock == nil {
		return
	}
	for _, name := range []string{identityName, termsName, demotionsName, linesName} {
		if err := durable.Tidy(filepath.Join(s.dir, name)); err != nil {
			s.log.Debug("state-dir not tidied", zap.Error(err))
		}
	}
}

func (s *stateDir) complain() {
	s.log.Warn("what this node learns is not kept: it introduces itself anew after each start", zap.Error(s.why))
}

func (s *stateDir) hold() error {
	f, err := os.OpenFile(s.dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			s.foreign = true
			return fmt.Errorf("%s: another xcarp daemon uses this state-dir: give --state-dir", s.dir)
		}
		return fmt.Errorf("lock %s: %w", s.dir, err)
	}
	s.lock = f
	return nil
}

// read returns what a file of the folder holds; fs.ErrNotExist also where the folder
// is somebody else's.
func (s *stateDir) read(name string) ([]byte, error) {
	if s.foreign {
		return nil, fs.ErrNotExist
	}
	return durable.Read(filepath.Join(s.dir, name))
}

// write replaces a file of the folder.
func (s *stateDir) write(name string, v any) error {
	if s.lock == nil {
		return s.why
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.Write(filepath.Join(s.dir, name), append(b, '\n'))
}

// setAside renames a file that is not readable, so that somebody can look at it.
func (s *stateDir) setAside(name string) error {
	if s.lock == nil {
		return nil
	}
	path := filepath.Join(s.dir, name)
	return os.Rename(path, path+".bad")
}

// Close lets another process have the folder.
func (s *stateDir) Close() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}
