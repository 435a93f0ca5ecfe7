package ct

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

const (
	sysctlDir     = "/proc/sys/net/netfilter/"
	sysctlEvents  = "nf_conntrack_events"
	sysctlLiberal = "nf_conntrack_tcp_be_liberal"
)

// EnsureSysctls sets in the caller's network namespace what following
// connections needs, and returns the old values of those it changed, by their
// names as of sysctl(8):
//
//   - net.netfilter.nf_conntrack_events=1: with 2, the default, a connection
//     made while nobody listens never sends an event, even with a listener later.
//   - net.netfilter.nf_conntrack_tcp_be_liberal=1: a window that only the
//     peer saw must not make a packet INVALID.
//
// It changes what it can even if one of them fails.
func EnsureSysctls() (changed map[string]string, err error) {
	changed = make(map[string]string)
	var errs []error
	for _, name := range []string{sysctlEvents, sysctlLiberal} {
		switch old, err := setSysctl(name, "1"); {
		case err != nil:
			errs = append(errs, err)
		case old != "1":
			changed["net.netfilter."+name] = old
		}
	}
	return changed, errors.Join(errs...)
}

// RestoreSysctl gives one of the sysctls that EnsureSysctls sets its old value back,
// in the caller's network namespace, unless somebody has changed it since.
func RestoreSysctl(name, was string) (restored bool, err error) {
	short, ours := strings.CutPrefix(name, "net.netfilter.")
	if !ours || short != sysctlEvents && short != sysctlLiberal {
		return false, fmt.Errorf("%s is no sysctl of ours", name)
	}
	b, err := os.ReadFile(sysctlDir + short)
	if err != nil || strings.TrimSpace(string(b)) != "1" || was == "1" {
		return false, err
	}
	_, err = setSysctl(short, was)
	return err == nil, err
}

// setSysctl returns the old value. It does not write what is there already.
func setSysctl(name, value string) (old string, err error) {
	b, err := os.ReadFile(sysctlDir + name)
	if err != nil {
		return "", fmt.Errorf("read sysctl: %w", err)
	}
	old = strings.TrimSpace(string(b))
	if old == value {
		return old, nil
	}
	if err := os.WriteFile(sysctlDir+name, []byte(value), 0o644); err != nil {
		return old, fmt.Errorf("set sysctl from %s to %s: %w", old, value, err)
	}
	return old, nil
}

// Count returns the number of entries in this namespace, of all protocols, and
// the limit. Of a full table (n = max) the kernel drops new connections.
func (t *Table) Count() (n, limit int, err error) {
	for i, v := range []*int{&n, &limit} {
		var b [32]byte
		got, err := t.count[i].ReadAt(b[:], 0)
		if err != nil && err != io.EOF {
			return 0, 0, fmt.Errorf("count connections: %w", err)
		}
		if *v, err = strconv.Atoi(string(bytes.TrimSpace(b[:got]))); err != nil {
			return 0, 0, fmt.Errorf("count connections: %w", err)
		}
	}
	return n, limit, nil
}
