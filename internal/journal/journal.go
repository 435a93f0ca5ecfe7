package journal

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// Room is how many events are kept in memory, and at most lost at once if the
	// disk does not take them.
	Room = 4096

	// fileSize is when a file is set aside, in bytes; two are kept.
	fileSize = 1 << 20

	// lineSize bounds an event in the file, in bytes.
	lineSize = 64 << 10
)

// Event is one thing that happened.
type Event struct {
	Seq    uint64         `json:"seq"` // one more than that of the event before
	At     time.Time      `json:"at"`
	Level  string         `json:"level"` // info, warn, error
	Text   string         `json:"text"`
	Fields map[string]any `json:"fields,omitempty"`
}

// Str returns a field as text, empty if there is none.
func (e *Event) Str(key string) string {
	switch v := e.Fields[key].(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		return fmt.Sprint(v)
	}
}

// Journal is the events of a node. Its methods may be called from several goroutines.
type Journal struct {
	dir string

	writing sync.Mutex // held while the file is written

	mu      sync.Mutex
	ring    []Event // the newest ones, in order
	next    uint64  // number of the next event
	written uint64  // events below are in the file
	lost    uint64  // never got there
	more    chan struct{}
}

// Path returns the file that is written to in a state-dir; the one before it has .1
// at the end.
func Path(stateDir string) string { return filepath.Join(stateDir, "events.jsonl") }

// New returns a Journal that does not know of anything earlier.
func New(stateDir string) *Journal {
	return &Journal{dir: stateDir, next: 1, written: 1, more: make(chan struct{})}
}

// Open reads what an earlier process wrote. A line that cannot be read is skipped: a
// journal is no reason for a router not to start.
func Open(stateDir string) (*Journal, error) {
	events, err := Read(stateDir)
	if err != nil {
		return nil, err
	}
	j := New(stateDir)
	if n := len(events); n > 0 {
		j.next = events[n-1].Seq + 1
		j.ring = append(j.ring, events[max(0, n-Room):]...)
	}
	j.written = j.next
	return j, nil
}

// Read reads the files of a state-dir. That there are none is no error.
func Read(stateDir string) ([]Event, error) {
	var all []Event
	for _, path := range []string{Path(stateDir) + ".1", Path(stateDir)} {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the journal: %w", err)
		}
		s := bufio.NewScanner(f)
		s.Buffer(nil, lineSize+1)
		for s.Scan() {
			var e Event
			if json.Unmarshal(s.Bytes(), &e) != nil {
				continue // the power went while it was written
			}
			if n := len(all); n > 0 && e.Seq <= all[n-1].Seq {
				continue
			}
			all = append(all, e)
		}
		err = errors.Join(s.Err(), f.Close())
		if err != nil && !errors.Is(err, bufio.ErrTooLong) {
			return nil, fmt.Errorf("read the journal %s: %w", path, err)
		}
	}
	return all, nil
}

// Add appends an event and gives it its number. It does not block.
func (j *Journal) Add(e Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.Seq = j.next
	j.next++
	if len(j.ring) >= Room {
		j.ring = append(j.ring[:0], j.ring[Room/4:]...) // rarely, rather than each time
	}
	j.ring = append(j.ring, e)
	close(j.more)
	j.more = make(chan struct{})
}

// After returns the events in memory with numbers above seq.
func (j *Journal) After(seq uint64) []Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.after(seq)
}

func (j *Journal) after(seq uint64) []Event {
	for i := range j.ring {
		if j.ring[i].Seq > seq {
			return append([]Event(nil), j.ring[i:]...)
		}
	}
	return nil
}

// Wait returns the events above seq as soon as there are some, or none when the
// context ends.
func (j *Journal) Wait(ctx context.Context, seq uint64) []Event {
	for {
		j.mu.Lock()
		all, more := j.after(seq), j.more
		j.mu.Unlock()
		if len(all) > 0 {
			return all
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		}
	}
}

// Lost returns how many events the disk did not take before memory had to go on.
func (j *Journal) Lost() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lost
}

// retry is how long a disk is left alone that refused.
const retry = 5 * time.Second

// Run writes behind until the context ends, and once more then. A disk that refuses
// is tried again: a router works without a journal.
func (j *Journal) Run(ctx context.Context) error {
	for {
		j.mu.Lock()
		pending, more := j.next > j.written, j.more
		j.mu.Unlock()
		if pending {
			if err := j.write(); err == nil {
				continue
			}
			t := time.NewTimer(retry)
			select {
			case <-t.C:
				continue
			case <-ctx.Done():
				t.Stop()
				return nil
			}
		}
		select {
		case <-more:
		case <-ctx.Done():
			_ = j.write()
			return nil
		}
	}
}

// Flush writes what Run has yet to write: before the process ends otherwise.
func (j *Journal) Flush() error { return j.write() }

// write appends to the file what is not in it yet.
func (j *Journal) write() error {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	from, all := j.written, j.after(j.written-1)
	j.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	var b bytes.Buffer
	for i := range all {
		line, err := json.Marshal(&all[i])
		if err != nil || len(line) > lineSize {
			line, _ = json.Marshal(Event{Seq: all[i].Seq, At: all[i].At, Level: all[i].Level, Text: all[i].Text})
		}
		b.Write(append(line, '\n'))
	}
	if err := j.append(b.Bytes()); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lost += all[0].Seq - from
	j.written = all[len(all)-1].Seq + 1
	return nil
}

func (j *Journal) append(b []byte) error {
	path := Path(j.dir)
	if fi, err := os.Stat(path); err == nil && fi.Size()+int64(len(b)) > fileSize {
		if err := os.Rename(path, path+".1"); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	// One write: a reader sees whole lines. Not synced: who loses power loses a
	// second of history, and no state.
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
