package sync

import (
	"bytes"
	"slices"
	stdsync "sync"
	"testing"
	"time"
)

// TestTell sends messages that are none of the mirror's business: as long as there
// is a session, and as long as a frame.
func TestTell(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		var mu stdsync.Mutex
		var got []string
		a := start(t, n, "a", newMemTable())
		if a.m.Tell("b", []byte("too early")) || a.m.Tell("c", nil) {
			t.Error("told somebody without a session")
		}
		b := start(t, n, "b", newMemTable(), func(c *Config) {
			c.OnPeer = func(peer string, body []byte) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, peer+" "+string(body[:min(len(body), 8)]))
			}
		})
		defer a.stop()
		defer b.stop()
		wait(t, 5*time.Second, "a session", func() bool { return a.status().Up && b.status().Up })
		big := bytes.Repeat([]byte("x"), a.m.payload-headerLen-tagLen-1-msgHeader)
		for _, body := range [][]byte{[]byte("one"), big, []byte("two")} {
			want := "a " + string(body[:min(len(body), 8)])
			wait(t, time.Second, want, func() bool { // this network may reorder frames
				mu.Lock()
				defer mu.Unlock()
				return slices.Contains(got, want) || !a.m.Tell("b", body)
			})
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("a message longer than a frame was taken")
				}
			}()
			a.m.Tell("b", append(big, 'x'))
		}()
	})
}
