package sync

import (
	"slices"
	"testing"
)

// A heartbeat says which keys its sender accepts; one of an earlier version ends
// before that, and is none the worse.
func TestABeatNamesTheKeys(t *testing.T) {
	h := beat{flows: 6, roles: []GroupRole{{Name: "wan", State: 2, Term: 9, Marks: []Mark{{7, 8, 9}}}}}
	for _, keys := range [][]byte{nil, {0x81}, {0x81, 0x8b}} {
		h.keys = keys
		_, body, _, err := nextMessage(appendBeat(nil, &h))
		if err != nil {
			t.Fatal(err)
		}
		var got beat
		if err := parseBeat(body, &got); err != nil || !slices.Equal(got.keys, keys) || len(got.roles) != 1 {
			t.Errorf("keys %x became %x (%v)", keys, got.keys, err)
		}
		if len(keys) > 0 && parseBeat(body[:len(body)-1], &got) == nil {
			t.Error("a heartbeat that ends within the keys is accepted")
		}
	}
}
