package bsd

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/xcarp/xcarp/internal/spell"
)

// SysctlPrefix is what all names begin with.
const SysctlPrefix = "net.inet.carp."

// Sysctl is one of the names of carp(4), with its value if there was one.
type Sysctl struct {
	Name  string // without SysctlPrefix
	Value int
	Write bool // there was a value
	At    Span // of the value, or of the name
}

// sysctls are the names of OpenBSD, FreeBSD and NetBSD with their ranges.
var sysctls = []struct {
	name      string
	low, high int
}{
	{"allow", 0, 1},
	{"arpbalance", 0, 1},
	{"demotion", -255, 255}, // added to what there is, as on FreeBSD
	{"dscp", 0, 63},
	{"ifdown_demotion_factor", 0, 255},
	{"log", 0, 7},
	{"preempt", 0, 1},
	{"senderr_demotion_factor", 0, 255},
}

// Sysctls lists the names, in order, without SysctlPrefix.
func Sysctls() []string {
	all := make([]string, len(sysctls))
	for i, s := range sysctls {
		all[i] = s.name
	}
	return all
}

// ParseSysctl reads NAME or NAME=VALUE, with the whole name.
func ParseSysctl(arg string) (Sysctl, error) {
	arg = strings.TrimPrefix(arg, "sysctl ")
	name, value, write := strings.Cut(arg, "=")
	name = strings.TrimSpace(name)
	at := word{name, Span{Column: 1, Width: max(1, len([]rune(name)))}}
	for _, s := range sysctls {
		if name != SysctlPrefix+s.name {
			continue
		}
		out := Sysctl{Name: s.name, Write: write, At: at.Span}
		if !write {
			return out, nil
		}
		value = strings.TrimSpace(value)
		v := word{value, Span{Column: len([]rune(arg)) - len([]rune(value)) + 1, Width: max(1, len([]rune(value)))}}
		fix := fmt.Sprintf("write a number from %d to %d", s.low, s.high)
		n, err := strconv.Atoi(value)
		switch {
		case value == "":
			return out, fail(v, name+" has no value", fix)
		case err != nil:
			return out, fail(v, fmt.Sprintf("%s must be a number, not %q", name, value), fix)
		case n < s.low || n > s.high:
			return out, fail(v, fmt.Sprintf("%s cannot be %d", name, n), fix)
		}
		out.Value, out.At = n, v.Span
		return out, nil
	}
	var all []string
	for _, s := range sysctls {
		all = append(all, SysctlPrefix+s.name)
	}
	fix := "known are " + strings.Join(all, ", ")
	if like := spell.Nearest(name, all); like != "" {
		fix = fmt.Sprintf("did you mean %s?", like)
	}
	return Sysctl{}, fail(at, fmt.Sprintf("unknown name %q", name), fix)
}

// String returns NAME=VALUE.
func (s Sysctl) String() string { return fmt.Sprintf("%s%s=%d", SysctlPrefix, s.Name, s.Value) }
