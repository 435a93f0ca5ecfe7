package daemon

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
)

func mustOpen(t *testing.T, dir string) *identity {
	t.Helper()
	state := openState(dir, zap.NewNop())
	t.Cleanup(func() { state.Close() })
	return openIdentity(state, zap.NewNop())
}

// TestEpochsAndCountersOnlyRise restarts a node, once without a word.
func TestEpochsAndCountersOnlyRise(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir)
	a.Seen("lan", map[uint64]carp.Mark{7: {Epoch: 3, Counter: 4}})
	a.write()
	a.state.Close() // as a crash does
	b := mustOpen(t, dir)
	if b.file.Node != a.file.Node || b.file.Epoch != a.file.Epoch+1 || b.file.Counter != a.file.Counter+carp.CounterBlock {
		t.Errorf("%+v after %+v", b.file, a.file)
	}
	var g carp.GuardConfig
	if b.Guard("lan", &g); g.Seen[7] != (carp.Mark{Epoch: 3, Counter: 4}) || g.Epoch != b.file.Epoch {
		t.Errorf("the guard gets %+v", g)
	}
	b.Epoch(90, func() {})
	b.write()
	b.state.Close()
	if c := mustOpen(t, dir); c.file.Epoch != 91 {
		t.Errorf("epoch %d after one that was raised to 90", c.file.Epoch)
	}
}

// TestNobodySharesAnIdentity runs two daemons on one state-dir, and one on a file
// that is not readable.
func TestNobodySharesAnIdentity(t *testing.T) {
	dir := t.TempDir()
	a, b := mustOpen(t, dir), mustOpen(t, dir)
	if a.ID() == b.ID() {
		t.Error("two daemons have one id")
	}
	b.write()
	a.state.Close()
	if c := mustOpen(t, dir); c.ID() != a.ID() {
		t.Error("the second daemon took the id of the first one away")
	}
	bad := t.TempDir()
	if err := os.WriteFile(filepath.Join(bad, "identity.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d := mustOpen(t, bad); d.ID() == 0 || d.file.Epoch != 1 {
		t.Errorf("after an unreadable file: %+v", d.file)
	}
}

// TestAnEpochBeginsWhenItIsStored asks the disk at the instant at which the epoch
// may begin, while the pause after another write lasts.
func TestAnEpochBeginsWhenItIsStored(t *testing.T) {
	dir := t.TempDir()
	id := mustOpen(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- id.Run(ctx) }()
	id.Seen("lan", map[uint64]carp.Mark{7: {Epoch: 3, Counter: 4}})
	for epoch := uint64(90); epoch < 93; epoch++ {
		stored := make(chan identityFile, 1)
		id.Epoch(epoch, func() {
			var f identityFile
			b, err := os.ReadFile(filepath.Join(dir, "identity.json"))
			if err == nil {
				err = json.Unmarshal(b, &f)
			}
			if err != nil {
				t.Error(err)
			}
			stored <- f
		})
		if f := <-stored; f.Epoch != epoch {
			t.Errorf("epoch %d is on the disk, want %d", f.Epoch, epoch)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
