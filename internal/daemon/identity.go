package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
)

// identity is what a node needs to be believed again after a reboot, and to
// disbelieve what it has heard before: an id, an epoch and counters above all
// that it ever used, and the marks of the others.
type identity struct {
	state *stateDir
	log   *zap.Logger

	mu    sync.Mutex
	file  identityFile
	dirty chan struct{} // holds one token while file is newer than the disk
	haste chan struct{} // and one while somebody waits for it to be there
	wait  []func()      // to be called then

	disk    sync.Mutex // held while writing, so that an older state never replaces a newer one
	refused bool       // the disk did the last time: said once
}

// identityName is the file with it in the state-dir.
const identityName = "identity.json"

// identityFile is what is in it.
type identityFile struct {
	Node    uint64                          `json:"node"`
	Epoch   uint64                          `json:"epoch"`   // in use
	Counter uint64                          `json:"counter"` // of the first advert; a block above it is in use
	Seen    map[string]map[uint64]carp.Mark `json:"seen"`    // by group and node
}

// openIdentity reads the file and begins a new epoch, which is on the disk
// before the first advert leaves: whatever happens then, the next one is higher.
// A node without a file is somebody new, whom nobody has heard.
func openIdentity(state *stateDir, log *zap.Logger) *identity {
	id := &identity{state: state, log: log, dirty: make(chan struct{}, 1), haste: make(chan struct{}, 1)}
	state.begin()
	if state.lock == nil {
		id.file = newIdentity()
		id.file.Epoch, id.file.Seen = 1, map[string]map[uint64]carp.Mark{}
		return id
	}
	b, err := state.read(identityName)
	if err == nil {
		if err = json.Unmarshal(b, &id.file); err == nil && id.file.Node == 0 {
			err = errors.New("there is no id in it")
		}
	}
	if err != nil {
		id.file = newIdentity()
		if !errors.Is(err, fs.ErrNotExist) {
			log.Warn("the identity of this node is not readable: it introduces itself anew", zap.String("file", identityName), zap.Error(err))
		}
	}
	id.file.Epoch++
	id.file.Counter += carp.CounterBlock
	if id.file.Seen == nil {
		id.file.Seen = map[string]map[uint64]carp.Mark{}
	}
	if err := state.write(identityName, id.file); err != nil {
		// With the old id and an epoch that a crash would forget, its own adverts
		// would be taken for replays.
		id.file.Node = newIdentity().Node
		log.Warn("the identity of this node is not on disk: it introduces itself anew after each start", zap.Error(err))
	}
	return id
}

// newIdentity is that of a node which nobody has heard of. The counter begins
// anywhere in the lower half, for plain peers tell nodes apart by it.
func newIdentity() identityFile {
	return identityFile{Node: rand.Uint64() | 1<<63, Counter: rand.Uint64() >> 2}
}

// Machine fills in what an election needs of it.
func (id *identity) Machine(c *carp.Config) {
	id.mu.Lock()
	defer id.mu.Unlock()
	c.Node, c.Counter = id.file.Node, id.file.Counter
}

// Guard fills in what the belief of a group needs of it.
func (id *identity) Guard(group string, c *carp.GuardConfig) {
	id.mu.Lock()
	defer id.mu.Unlock()
	c.Epoch, c.Seen = id.file.Epoch, maps.Clone(id.file.Seen[group])
}

// Epoch notes a higher one and has stored called when it is on the disk, or when
// the disk refuses it: then the node forgets it, and is told again after a restart.
// It does not block.
func (id *identity) Epoch(epoch uint64, stored func()) {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.file.Epoch = max(id.file.Epoch, epoch)
	id.wait = append(id.wait, stored)
	select {
	case id.haste <- struct{}{}:
	default:
	}
}

// Seen notes how far the others have come in a group. It does not block.
func (id *identity) Seen(group string, marks map[uint64]carp.Mark) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if len(marks) > 0 && !maps.Equal(marks, id.file.Seen[group]) {
		id.file.Seen[group] = marks
		id.touch()
	}
}

// ID returns the number of the node.
func (id *identity) ID() uint64 {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.file.Node
}

func (id *identity) touch() {
	select {
	case id.dirty <- struct{}{}:
	default:
	}
}

// identityPause is between two writes, each of which forces the disk. Adverts of
// so long before a crash could be repeated to this node after it, once each.
const identityPause = time.Second

// Run writes behind until the context ends, and once more then. What somebody waits
// for is written at once.
func (id *identity) Run(ctx context.Context) error {
	dirty, pause := id.dirty, (<-chan time.Time)(nil)
	for {
		select {
		case <-id.haste:
			id.write()
		case <-dirty:
			id.write()
			dirty, pause = nil, time.After(identityPause)
		case <-pause:
			dirty, pause = id.dirty, nil
		case <-ctx.Done():
			if len(id.haste)+len(id.dirty) > 0 {
				id.write()
			}
			return nil
		}
	}
}

// Renew begins a new epoch, which is on the disk when it returns: for a group that
// comes into being while the node runs.
func (id *identity) Renew() {
	id.mu.Lock()
	id.file.Epoch++
	id.file.Counter += carp.CounterBlock
	id.mu.Unlock()
	id.write()
}

func (id *identity) write() {
	id.disk.Lock()
	defer id.disk.Unlock()
	id.mu.Lock()
	snapshot, wait := id.file, id.wait
	snapshot.Seen, id.wait = maps.Clone(snapshot.Seen), nil
	id.mu.Unlock()
	if err := id.state.write(identityName, snapshot); err != nil && !errors.Is(err, id.state.why) {
		if !id.refused {
			id.log.Warn("the marks of the peers are not on disk: old adverts could be repeated after a restart", zap.Error(err))
		}
		id.refused = true
		id.mu.Lock()
		id.touch() // again, after the pause
		id.mu.Unlock()
	} else {
		id.refused = false
	}
	for _, stored := range wait {
		stored()
	}
}
