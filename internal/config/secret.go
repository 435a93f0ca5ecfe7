package config

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
)

const redacted = "[redacted]"

// Secret is a password. However it is printed or encoded, it reads [redacted].
type Secret []byte

// Format implements fmt.Formatter, for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return redacted }

// MarshalText implements encoding.TextMarshaler.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON implements json.Marshaler.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// KeyLen is the length of the key that all others are derived from, in bytes.
const KeyLen = 32

// Key is the content of key_file. However it is printed or encoded, it reads
// [redacted].
type Key [KeyLen]byte

// Format implements fmt.Formatter, for every verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String implements fmt.Stringer.
func (Key) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Key) GoString() string { return redacted }

// MarshalText implements encoding.TextMarshaler.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON implements json.Marshaler.
func (Key) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// GenerateKey returns a new key as `xcarp keygen` prints it: 32 random bytes in
// base64, and a newline.
func GenerateKey() string {
	var k [KeyLen]byte
	rand.Read(k[:]) // never fails: crypto/rand ends the program instead
	return base64.StdEncoding.EncodeToString(k[:]) + "\n"
}

// ParseKeys reads a key_file: one key in base64 per line, as GenerateKey writes
// it; blank lines and what follows a # do not count. The first key signs and
// seals, all are accepted, so that a key can be replaced on one node after the
// other. Errors never quote the text.
func ParseKeys(text []byte) ([]Key, error) {
	var keys []Key
	ids := map[uint8]bool{}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for i, line := range lines {
		in := ""
		if len(lines) > 1 {
			in = fmt.Sprintf(" in line %d", i+1)
		}
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		b, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			return nil, errors.New("does not hold base64" + in)
		}
		if len(b) != KeyLen {
			return nil, fmt.Errorf("holds %d bytes%s, not %d", len(b), in, KeyLen)
		}
		k := Key(b)
		if ids[k.ID()] {
			return nil, fmt.Errorf("has two keys with the id %02x: remove one, or make another", k.ID())
		}
		ids[k.ID()] = true
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("is empty")
	}
	return keys, nil
}

// ReadKeys reads a key_file with the care that Load takes.
func ReadKeys(path string) ([]Key, error) {
	b, err := readSecret(path)
	if err != nil {
		return nil, fmt.Errorf("key_file %s %w", path, err)
	}
	keys, err := ParseKeys(b)
	if err != nil {
		return nil, fmt.Errorf("key_file %s %w", path, err)
	}
	return keys, nil
}

// ID returns the number of the key in trailers and in `xcarp key`.
func (k Key) ID() uint8 { return carp.KeyID(k) }

// Text returns the key as a line of a key_file.
func (k Key) Text() string { return base64.StdEncoding.EncodeToString(k[:]) }

// maxSecret is more than any key or password needs, in bytes.
const maxSecret = 4096

// secretError is why a secret file was refused, and the remedy.
type secretError struct{ what, fix string }

func (e *secretError) Error() string { return e.what + ": " + e.fix }

// readSecret reads a file that holds a key or a password, if nobody but its
// owner can: a regular file (no link that someone could have planted), of root
// or ourselves, mode 0600 or 0400. All is asked of the open file, not of its name.
func readSecret(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, &secretError{"is a symbolic link", "name the file itself"}
	case errors.Is(err, unix.ENOENT):
		return nil, &secretError{"does not exist", fmt.Sprintf("make one: (umask 077; xcarp keygen > %s)", path)}
	case err != nil:
		return nil, &secretError{fmt.Sprintf("cannot be read: %v", err), "let root or the daemon's user own it, mode 0600"}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()

	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &secretError{fmt.Sprintf("cannot be examined: %v", err), "check the file system"}
	}
	switch euid := os.Geteuid(); {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, &secretError{"is not a regular file", "name a file"}
	case st.Uid != 0 && int(st.Uid) != euid:
		return nil, &secretError{fmt.Sprintf("belongs to uid %d, who could change it", st.Uid), "chown root " + path}
	case st.Mode&0o077 != 0:
		return nil, &secretError{fmt.Sprintf("has mode %04o, so others can read it", st.Mode&0o7777), "chmod 600 " + path}
	case st.Size > maxSecret:
		return nil, &secretError{fmt.Sprintf("has %d bytes", st.Size), fmt.Sprintf("at most %d are allowed", maxSecret)}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, &secretError{fmt.Sprintf("cannot be read: %v", err), "check the file system"}
	}
	if len(b) > maxSecret {
		return nil, &secretError{fmt.Sprintf("has more than %d bytes", maxSecret), "name another file"}
	}
	return b, nil
}
