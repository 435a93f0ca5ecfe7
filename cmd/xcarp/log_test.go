package main

import (
	"strings"
	"testing"

	"github.com/xcarp/xcarp/internal/journal"
)

func TestWhatConcernsAGroup(t *testing.T) {
	of := func(group string) *journal.Event {
		return &journal.Event{Fields: map[string]any{"group": group}}
	}
	for _, c := range []struct {
		what  string
		event *journal.Event
		group string
		want  bool
	}{
		{"its own", of("lan"), "lan", true},
		{"that of another", of("wan"), "lan", false},
		{"that of one whose name begins alike", of("lan2"), "lan", false},
		{"a demotion of all", of(""), "lan", true},
		{"that of one of its elections", of("lan/2"), "lan", true},
		{"a demotion of the group, for its election", of("lan"), "lan/2", true},
		{"that of another election", of("lan/1"), "lan/2", false},
		{"that of no group", &journal.Event{Fields: map[string]any{"peer": "fw-b"}}, "lan", false},
	} {
		if got := concerns(c.event, c.group); got != c.want {
			t.Errorf("%s: got %v, want %v", c.what, got, c.want)
		}
	}
}

func TestAnEventCannotWriteToTheTerminal(t *testing.T) {
	e := &journal.Event{Seq: 1, Text: "hook failed", Fields: map[string]any{"output": "\x1b[2J", "group": "lan"}}
	got := renderEvent(e)
	if want := `hook failed: group=lan output="\x1b[2J"`; !strings.HasSuffix(got, want) {
		t.Errorf("got %q, want %q at its end", got, want)
	}
}
