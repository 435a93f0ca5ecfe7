package journal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

func open(tb testing.TB, dir string) *Journal {
	tb.Helper()
	j, err := Open(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return j
}

// flush runs the journal until it has written what it has.
func flush(tb testing.TB, j *Journal) {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	cancel()
	if err := j.Run(ctx); err != nil {
		tb.Fatal(err)
	}
}

func TestWhatIsLoggedIsRememberedOverRestarts(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	log := zap.New(j.Core()).With(zap.String("carpdev", "eth0"))
	log.Info("state", zap.String("group", "lan"), zap.Duration("limit", 1500*time.Millisecond))
	log.Debug("not worth it")
	log.Warn("alarm")
	flush(t, j)

	j = open(t, dir)
	zap.New(j.Core()).Info("later")
	all := j.After(0)
	if len(all) != 3 {
		t.Fatalf("got %v, want three events", all)
	}
	for i, want := range []struct{ level, text string }{{"info", "state"}, {"warn", "alarm"}, {"info", "later"}} {
		if e := all[i]; e.Seq != uint64(i+1) || e.Level != want.level || e.Text != want.text {
			t.Errorf("got %+v, want number %d, %v", e, i+1, want)
		}
	}
	if e := all[0]; e.Str("carpdev") != "eth0" || e.Str("group") != "lan" || e.Str("limit") != "1.5" {
		t.Errorf("got the fields %v", e.Fields)
	}
	if got := j.After(2); len(got) != 1 || got[0].Text != "later" {
		t.Errorf("after 2: got %v, want the last one", got)
	}
}

func TestFilesAreBoundedAndTheNewestAreKept(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	pad := strings.Repeat("x", 1000)
	const n = 5000
	for i := range n {
		j.Add(Event{Text: fmt.Sprint(i), Fields: map[string]any{"pad": pad}})
		if i%100 == 99 {
			flush(t, j)
		}
	}
	var size int64
	files, err := filepath.Glob(Path(dir) + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		fi, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += fi.Size()
	}
	if len(files) != 2 || size > 2*fileSize {
		t.Errorf("got %d files of %d bytes in all, want 2 of at most %d", len(files), size, 2*fileSize)
	}
	all, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range all {
		if want := uint64(n - len(all) + i + 1); e.Seq != want {
			t.Fatalf("event %d of %d has number %d, want %d: without a gap up to the last", i, len(all), e.Seq, want)
		}
	}
	if j.Lost() != 0 {
		t.Errorf("lost %d", j.Lost())
	}
}

func TestADamagedFileIsReadAsFarAsItGoes(t *testing.T) {
	dir := t.TempDir()
	text := `{"seq":1,"text":"a"}` + "\n" + `{"seq":2,"te` + "\n" + `{"seq":3,"text":"c"}` + "\n" + `{"seq":4`
	if err := os.WriteFile(Path(dir), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	j := open(t, dir)
	j.Add(Event{Text: "d"})
	var got []string
	for _, e := range j.After(0) {
		got = append(got, fmt.Sprint(e.Seq, e.Text))
	}
	if s := strings.Join(got, " "); s != "1a 3c 4d" {
		t.Errorf("got %q, want 1a 3c 4d", s)
	}
}

func TestADiskThatRefusesIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "gone")
		j := open(t, dir)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- j.Run(ctx) }()
		j.Add(Event{Text: "a"})
		synctest.Wait()
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(retry + time.Second) // of the bubble's clock
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		all, err := Read(dir)
		if err != nil || len(all) != 1 || all[0].Text != "a" {
			t.Errorf("got %v, %v, want the event", all, err)
		}
	})
}

func TestWaitEndsWithTheNextEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := open(t, t.TempDir())
		got := make(chan []Event)
		go func() { got <- j.Wait(t.Context(), 0) }()
		synctest.Wait()
		j.Add(Event{Text: "a"})
		if all := <-got; len(all) != 1 || all[0].Text != "a" {
			t.Errorf("got %v, want the event", all)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if all := j.Wait(ctx, 1); all != nil {
			t.Errorf("got %v, want nothing", all)
		}
	})
}
