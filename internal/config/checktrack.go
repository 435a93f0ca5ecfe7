package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
)

// User is whom a command runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32
}

// LookupUser finds a user by name or by number. A number needs no entry in the
// table of users; its group is then the same number.
func LookupUser(name string) (User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		var byID error
		if u, byID = user.LookupId(name); byID != nil {
			if n, numErr := strconv.ParseUint(name, 10, 31); numErr == nil {
				return User{UID: uint32(n), GID: uint32(n)}, nil
			}
			return User{}, err
		}
	}
	var found User
	for _, f := range []struct {
		text string
		to   *uint32
	}{{u.Uid, &found.UID}, {u.Gid, &found.GID}} {
		n, err := strconv.ParseUint(f.text, 10, 32)
		if err != nil {
			return User{}, fmt.Errorf("user %s: %w", name, err)
		}
		*f.to = uint32(n)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return User{}, fmt.Errorf("groups of user %s: %w", name, err)
	}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			found.Groups = append(found.Groups, uint32(n))
		}
	}
	return found, nil
}

// programs checks the tracks and hooks against the machine. An interface that is
// not there is only a warning: it may be one that comes and goes, and that is what
// is tracked.
func (k *checker) programs() {
	for i := range k.c.Tracks {
		t := &k.c.Tracks[i]
		place := "track/" + t.Name
		if t.Dev != "" {
			k.trackedDevice(place+"/dev", t.Dev)
		}
		if t.Check == TrackCommand {
			k.command(place, t.Command, t.User)
		}
	}
	for i := range k.c.Hooks {
		h := &k.c.Hooks[i]
		k.command("hooks/"+h.Name, h.Command, h.User)
	}
}

func (k *checker) trackedDevice(place, name string) {
	before := len(k.found)
	if k.device(place, "track", name) == nil && len(k.found) > before {
		k.found[len(k.found)-1].Warning = true
	}
}

// command checks the user and the program.
func (k *checker) command(place string, argv []string, name string) {
	if !k.sys.Programs || len(argv) == 0 {
		return
	}
	u, err := LookupUser(name)
	if err != nil {
		k.fail(place+"/user", fmt.Sprintf("user %q does not exist", name), "create it, or name another: user: nobody")
		return
	}
	at := place + "/check"
	path := argv[0]
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		k.fail(at, fmt.Sprintf("command %s does not exist", path), "write the path of a program")
	case err != nil:
		k.fail(at, fmt.Sprintf("command %s: %v", path, errors.Unwrap(err)), "write the path of a program")
	case !fi.Mode().IsRegular():
		k.fail(at, fmt.Sprintf("command %s is not a file", path), "write the path of a program")
	case fi.Mode()&0o111 == 0:
		k.fail(at, fmt.Sprintf("command %s is not executable (mode %04o)", path, fi.Mode().Perm()), "chmod 755 "+path)
	case fi.Mode()&0o022 != 0 && u.UID == 0:
		k.fail(at, fmt.Sprintf("command %s would run as root, and others can write it (mode %04o)", path, fi.Mode().Perm()), "chmod go-w "+path)
	case u.UID != 0 && fi.Mode()&0o001 == 0 && !mayRun(fi, u):
		k.fail(at, fmt.Sprintf("command %s cannot be run by user %s (mode %04o)", path, name, fi.Mode().Perm()), "chmod o+x "+path+", or name another user")
	}
}

// mayRun reports whether owner or group give the user the right to run the file.
func mayRun(fi fs.FileInfo, u User) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	if st.Uid == u.UID {
		return fi.Mode()&0o100 != 0
	}
	return fi.Mode()&0o010 != 0 && (st.Gid == u.GID || slices.Contains(u.Groups, st.Gid))
}
