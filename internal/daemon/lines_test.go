package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/config"
)

// A line that wants a restart has not happened before that, so what keeps the
// daemon from starting over keeps the line from being done.
func TestALineThatCannotBeKeptIsNotDone(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte(strings.Repeat("Qk", 21)+"Q=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "xcarp.yaml")
	if err := os.WriteFile(conf, []byte("node: fw-a\nkey_file: "+key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Source{Path: conf, Lines: &config.Lines{}}.Load()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "a file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// What is absent in /proc can be read as empty and cannot be made.
	for name, paths := range map[string]Paths{
		"the run-dir":   {Run: filepath.Join(file, "run"), State: filepath.Join(dir, "state")},
		"the state-dir": {Run: filepath.Join(dir, "run"), State: "/proc/xcarp"},
	} {
		t.Run(name, func(t *testing.T) {
			d := &Daemon{log: zap.NewNop(), paths: paths}
			if err := os.MkdirAll(filepath.Join(dir, "run"), 0o700); err != nil {
				t.Fatal(err)
			}
			d.now.Store(cfg)
			reply, err := d.ifconfig(LineRequest{Line: "pfsync0 syncdev lo syncpeer 127.0.0.2 up", Save: name == "the state-dir"})
			if err == nil || !strings.Contains(err.Error(), "not done") || reply.Restart {
				t.Errorf("got %v, restart %v: want that it is not done", err, reply.Restart)
			}
			if kept, err := config.ReadLines(d.paths.RunLines()); err == nil && kept.Group(config.SyncName) != nil {
				t.Errorf("a restart would do it all the same")
			}
		})
	}
}
