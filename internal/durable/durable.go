// Package durable writes the small files that a node must find again after a crash.
//
// A file is replaced in one step: whoever reads it, be it after the power went at any
// instant, finds what was there before or what was written, whole. When Write has
// returned, the new one is on the disk: the file is forced out before it takes its
// name, and the directory after that, for a rename alone may be lost.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxSize bounds what Read returns, in bytes: more is no file of ours.
const maxSize = 16 << 20

// Read returns what a file holds. A symbolic link, or what is no ordinary file, is an
// error.
func Read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0) // a FIFO must not block
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("read %s: it is a symbolic link: put the file itself there", path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: it is no ordinary file: remove it", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxSize {
		return nil, fmt.Errorf("read %s: it has more than %d bytes", path, maxSize)
	}
	return b, nil
}

// Write replaces the file, or makes it, readable by its owner alone. Its directory is
// made if it is missing. A symbolic link in its place is refused: it would be replaced,
// and what it points to stay as it is.
func Write(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	if fi, err := os.Lstat(path); err == nil && !fi.Mode().IsRegular() {
		return fmt.Errorf("write %s: it is no ordinary file: remove it", path)
	}
	f, err := os.CreateTemp(dir, temporary(path)+"*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(content); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return forceDir(dir)
}

// Remove removes the file for good. One that is not there is no error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return forceDir(filepath.Dir(path))
}

// Tidy removes what writers of the file left in its directory that were killed.
// Nobody may write it meanwhile.
func Tidy(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), temporary(path)) && e.Type().IsRegular() {
			errs = append(errs, os.Remove(filepath.Join(filepath.Dir(path), e.Name())))
		}
	}
	return errors.Join(errs...)
}

// temporary is how the names of files begin that are to become path.
func temporary(path string) string { return "." + filepath.Base(path) + ".new-" }

// forceDir forces the names in a directory out to the disk.
func forceDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, unix.EINVAL) {
		err = nil // a file system that cannot, or need not
	}
	return errors.Join(err, f.Close())
}
