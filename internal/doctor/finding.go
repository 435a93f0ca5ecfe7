package doctor

import (
	"encoding/json"
	"fmt"
)

// Level says how much a Finding matters.
type Level int

// The levels, in the order of their weight.
const (
	OK   Level = iota // as it should be
	Warn              // works, or may; somebody should know
	Fail              // cannot work
)

// String implements fmt.Stringer.
func (l Level) String() string {
	return [...]string{"ok", "warn", "fail"}[l]
}

// MarshalJSON implements json.Marshaler.
func (l Level) MarshalJSON() ([]byte, error) { return json.Marshal(l.String()) }

// Finding is one thing that was looked at.
type Finding struct {
	Level Level  `json:"level"`
	About string `json:"about"` // an interface, a sysctl, "kernel" and the like
	What  string `json:"what"`
	Fix   string `json:"fix,omitempty"` // what to do; empty if nothing
}

// findings collects them.
type findings struct{ all []Finding }

func (f *findings) ok(about, format string, a ...any) {
	f.all = append(f.all, Finding{OK, about, fmt.Sprintf(format, a...), ""})
}

func (f *findings) warn(about, fix, format string, a ...any) {
	f.all = append(f.all, Finding{Warn, about, fmt.Sprintf(format, a...), fix})
}

func (f *findings) fail(about, fix, format string, a ...any) {
	f.all = append(f.all, Finding{Fail, about, fmt.Sprintf(format, a...), fix})
}
