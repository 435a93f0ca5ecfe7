package track

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Exists asks whether there is a file.
type Exists struct{ Path string }

// Check implements Probe.
func (p Exists) Check(context.Context) (Reading, error) {
	_, err := os.Stat(p.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return Reading{}, fmt.Errorf("%s does not exist", p.Path)
	}
	return Reading{}, err
}

// Absent asks whether there is no file: an operator who makes one demotes the node.
type Absent struct{ Path string }

// Check implements Probe.
func (p Absent) Check(context.Context) (Reading, error) {
	_, err := os.Stat(p.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Reading{}, nil
	case err != nil:
		return Reading{}, err
	}
	return Reading{}, fmt.Errorf("%s exists", p.Path)
}

// Number asks whether the number in a file is 0. Another one, to 255, is the
// demotion.
type Number struct{ Path string }

// Check implements Probe.
func (p Number) Check(context.Context) (Reading, error) {
	f, err := os.OpenFile(p.Path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe in that place holds nobody up
	if errors.Is(err, fs.ErrNotExist) {
		return Reading{}, fmt.Errorf("%s does not exist", p.Path)
	}
	if err != nil {
		return Reading{}, err
	}
	defer f.Close()
	const most = 64
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return Reading{}, err
	}
	text := strings.TrimSpace(string(b))
	n, err := strconv.ParseUint(text, 10, 8)
	switch {
	case err != nil:
		return Reading{}, fmt.Errorf("%s holds %q, not a number from 0 to 255", p.Path, text)
	case n > 0:
		return Reading{Demote: int(n)}, fmt.Errorf("%s says %d", p.Path, n)
	}
	return Reading{}, nil
}
