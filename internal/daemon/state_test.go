package daemon

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// A second daemon on a state-dir neither reads nor writes what is there: its takeovers
// are not those of the first one, nor are the demotions of its operator.
func TestTheStateDirHasOneDaemon(t *testing.T) {
	dir := t.TempDir()
	open := func() (*terms, *operator) {
		s := openState(dir, zap.NewNop())
		s.begin()
		t.Cleanup(func() { s.Close() })
		o, err := openOperator(s, zap.NewNop(), func(string) bool { return true }, func(Demotion, int) {})
		if err != nil {
			t.Fatal(err)
		}
		return openTerms(s, zap.NewNop()), o
	}
	first, demotions := open()
	first.Set("lan", 7)
	if !first.write() {
		t.Fatal("not written")
	}
	if _, err := demotions.Demote(Demotion{By: 5}, 0); err != nil {
		t.Fatal(err)
	}
	second, others := open()
	if n := second.Get("lan"); n != 0 {
		t.Errorf("the second daemon has the first one's term %d", n)
	}
	if s := others.Status(); len(s) != 0 {
		t.Errorf("the second daemon has the first one's demotions: %+v", s)
	}
	second.Set("lan", 90)
	second.write()
	if _, err := others.Demote(Demotion{By: 1}, 0); err == nil {
		t.Error("the second daemon wrote down a demotion")
	}
	first.state.Close()
	third, demotions := open()
	if n := third.Get("lan"); n != 7 {
		t.Errorf("term %d, want 7 as the first daemon wrote it", n)
	}
	if s := demotions.Status(); len(s) != 1 || s[0].By != 5 {
		t.Errorf("demotions %+v, want those of the first daemon", s)
	}
}

// A router starts, whatever became of the file with the terms.
func TestTermsThatAreNotReadable(t *testing.T) {
	for _, content := range []string{"null", "{", "[1]", ""} {
		dir := t.TempDir()
		path := filepath.Join(dir, termsName)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		s := openState(dir, zap.NewNop())
		terms := openTerms(s, zap.NewNop())
		terms.Set("lan", 3)
		if terms.Get("lan") != 3 || !terms.write() {
			t.Errorf("after %q: term %d", content, terms.Get("lan"))
		}
		if b, err := os.ReadFile(path + ".bad"); err != nil || string(b) != content {
			t.Errorf("%q was set aside as %q, %v", content, b, err)
		}
		s.Close()
	}
}

// What a full disk refused is written when there is room again, though nothing has
// changed since.
func TestStateIsWrittenWhenTheDiskIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openState(dir, zap.NewNop())
		defer s.Close()
		terms, id := openTerms(s, zap.NewNop()), openIdentity(s, zap.NewNop())
		o, err := openOperator(s, zap.NewNop(), func(string) bool { return true }, func(Demotion, int) {})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Demote(Demotion{By: 5}, 0); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for _, run := range []func(context.Context) error{terms.Run, id.Run, o.Run} {
			go run(ctx)
		}
		s.dir = filepath.Join(dir, "file", "below") // where nothing can be
		if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		terms.Set("lan", 9)
		id.Epoch(50, func() {})
		if _, err := o.Undemote(0, "root"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) // of the bubble
		synctest.Wait()
		s.dir = dir
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		again := openTerms(s, zap.NewNop())
		if n := again.Get("lan"); n != 9 {
			t.Errorf("term %d on disk, want 9", n)
		}
		if after := openIdentity(s, zap.NewNop()); after.file.Epoch != 51 {
			t.Errorf("epoch %d after a start, want 51", after.file.Epoch)
		}
		if left, err := openOperator(s, zap.NewNop(), nil, nil); err != nil || len(left.Status()) != 0 {
			t.Errorf("demotions on disk: %+v, %v", left.Status(), err)
		}
	})
}
