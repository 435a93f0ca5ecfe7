package main

import (
	"testing"

	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/daemon"
)

// A change of keys that would cut a peer off is refused, with what is to be done
// there.
func TestAPeerThatIsNotReadyForAKey(t *testing.T) {
	var a, b config.Key
	b[0] = 1
	idA, idB := keyID(a), keyID(b)
	peer := func(up bool, keys ...string) []daemon.SyncStatus {
		return []daemon.SyncStatus{{Peer: "fw-b", Up: up, Keys: keys}}
	}
	for _, tt := range []struct {
		name      string
		peers     []daemon.SyncStatus
		old, next []config.Key
		want      string
	}{
		{"use what it has", peer(true, idA, idB), []config.Key{a, b}, []config.Key{b, a}, ""},
		{"use what it lacks", peer(true, idA), []config.Key{a, b}, []config.Key{b, a},
			"fw-b does not have key " + idB + ": copy the key_file there and run `xcarp key reload`"},
		{"use, and it is away", peer(false, idA), []config.Key{a, b}, []config.Key{b, a}, ""},
		{"use, and it does not say", peer(true), []config.Key{a, b}, []config.Key{b, a}, ""},
		{"add", peer(true, idA), []config.Key{a}, []config.Key{a, b}, ""},
		{"retire what it signs with", peer(true, idA, idB), []config.Key{b, a}, []config.Key{b},
			"fw-b still signs with key " + idA + ": run `xcarp key use " + idB + "` there"},
		{"retire what it has yet", peer(true, idB, idA), []config.Key{b, a}, []config.Key{b}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if all := notReady(tt.peers, tt.old, tt.next); len(all) > 0 {
				got = all[0].Error()
			}
			if got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}
