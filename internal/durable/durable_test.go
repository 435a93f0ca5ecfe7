package durable

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

func TestAFileIsReplacedWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "too")
	path := filepath.Join(dir, "file")
	for _, content := range []string{"one", "another", "another", ""} {
		if err := Write(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := Read(path)
		if err != nil || string(got) != content {
			t.Errorf("read %q, %v, want %q", got, err, content)
		}
		fi, err := os.Stat(path)
		if err != nil || fi.Mode() != 0o600 {
			t.Errorf("mode %v, %v, want -rw-------", fi.Mode(), err)
		}
	}
	if e, err := os.ReadDir(dir); err != nil || len(e) != 1 {
		t.Errorf("in the directory: %v, %v, want the file alone", e, err)
	}
	if err := Remove(path); err != nil {
		t.Error(err)
	}
	if err := Remove(path); err != nil {
		t.Errorf("remove what is gone: %v", err)
	}
}

func TestWhatIsNoFileIsLeftAlone(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(path string) error
		want string
	}{
		{"a symbolic link", func(p string) error { return os.Symlink(filepath.Join(filepath.Dir(p), "target"), p) }, "symbolic link"},
		{"a symbolic link to nothing", func(p string) error { return os.Symlink("nothing", p) }, "symbolic link"},
		{"a directory", func(p string) error { return os.Mkdir(p, 0o700) }, "no ordinary file"},
		{"a FIFO", func(p string) error { return unix.Mkfifo(p, 0o600) }, "no ordinary file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			target := filepath.Join(dir, "target")
			if err := os.WriteFile(target, []byte("of somebody else"), 0o600); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "file")
			if err := tt.make(path); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(path); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("read: %v, want %q", err, tt.want)
			}
			if err := Write(path, []byte("ours")); err == nil {
				t.Error("written")
			}
			if b, err := os.ReadFile(target); err != nil || string(b) != "of somebody else" {
				t.Errorf("the target: %q, %v", b, err)
			}
			if e, err := os.ReadDir(dir); err != nil || len(e) != 2 {
				t.Errorf("in the directory: %v, %v", e, err)
			}
		})
	}
}

// A writer that is killed half-way leaves its file, which the next one removes.
func TestWhatAKilledWriterLeft(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, name := range []string{"file", temporary(path) + "123", "other", temporary("other") + "1"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Tidy(path); err != nil {
		t.Fatal(err)
	}
	e, err := os.ReadDir(dir)
	if err != nil || len(e) != 3 {
		t.Errorf("in the directory: %v, %v, want all but one", e, err)
	}
	if err := Tidy(filepath.Join(dir, "missing", "file")); err != nil {
		t.Errorf("tidy a directory that is missing: %v", err)
	}
}

// A file system without room refuses, and what was there stays.
func TestAFullDisk(t *testing.T) {
	nstest.RequireRoot(t) // to mount a small file system
	dir := t.TempDir()
	if err := unix.Mount("small", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "file")
	small := []byte("what was there")
	if err := Write(path, small); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, bytes.Repeat([]byte("x"), 128<<10)); err == nil {
		t.Error("twice the disk was written")
	}
	if b, err := Read(path); err != nil || !bytes.Equal(b, small) {
		t.Errorf("read %q, %v, want %q", b, err, small)
	}
	if e, err := os.ReadDir(dir); err != nil || len(e) != 1 {
		t.Errorf("in the directory: %v, %v, want the file alone", e, err)
	}
}
