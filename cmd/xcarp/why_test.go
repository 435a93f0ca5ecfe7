package main

import (
	"strings"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/journal"
)

func TestWhyNamesTheCauseOfALostRole(t *testing.T) {
	at := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	change := func(seq uint64, after time.Duration, from, to, reason string) journal.Event {
		return journal.Event{Seq: seq, At: at.Add(after), Level: "info", Text: "state",
			Fields: map[string]any{"group": "lan", "from": from, "to": to, "reason": reason}}
	}
	demoted := change(3, time.Minute, "MASTER", "DRAIN", "claimed by a peer")
	demoted.Fields["demoted"] = "operator 50, sync 1"
	events := []journal.Event{
		change(1, 0, "BACKUP", "MASTER", "master timed out"),
		{Seq: 2, At: at.Add(time.Minute), Level: "info", Text: "demoted by an operator"},
		demoted,
		change(4, time.Minute+100*time.Millisecond, "DRAIN", "BACKUP", "drained"),
	}
	y, err := explain(events, 1, "lan")
	if err != nil {
		t.Fatal(err)
	}
	out := y.render()
	for _, want := range []string{"MASTER → DRAIN: claimed by a peer", "here, by operator 50, sync 1", "demoted by an operator", "DRAIN → BACKUP"} {
		if !strings.Contains(out, want) {
			t.Errorf("got\n%s\nwant %q in it", out, want)
		}
	}
	if y, err = explain(events, 2, ""); err != nil || y.Change.Seq != 1 {
		t.Errorf("the one before: got %v, %v, want the takeover", y, err)
	}
	if _, err := explain(events, 3, ""); err == nil {
		t.Error("a third change was found")
	}
}
