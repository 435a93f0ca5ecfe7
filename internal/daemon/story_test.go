package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/carp/group"
)

func TestStoryComesBackAsItWasTold(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, tt := range []struct {
		t    group.Transition
		ago  time.Duration
		want string
	}{
		{group.Transition{Name: "lan", From: carp.Backup, To: carp.Master, Reason: "master timed out", Term: 7}, time.Hour, "master timed out"},
		{group.Transition{Name: "", From: carp.Init, To: carp.Init}, 0, ""},
		{group.Transition{Name: strings.Repeat("n", 255), Reason: long, Term: 1<<64 - 1}, time.Nanosecond, long[:storyText]},
	} {
		b := storyMessage(&tt.t, tt.ago)
		got, ago, err := parseStory(b[1:])
		if err != nil || b[0] != tellStory || got.Name != tt.t.Name || got.From != tt.t.From || got.To != tt.t.To ||
			got.Term != tt.t.Term || got.Reason != tt.want || ago != tt.ago {
			t.Errorf("told %+v, %v ago: got %+v, %v, %v", tt.t, tt.ago, got, ago, err)
		}
		for n := range len(b) - 1 {
			if got, _, err := parseStory(b[1 : 1+n]); err == nil && got.Name != tt.t.Name {
				t.Errorf("cut off after %d bytes: got %+v", n, got)
			}
		}
	}
}

func FuzzParseStory(f *testing.F) {
	t := group.Transition{Name: "lan", From: carp.Backup, To: carp.Master, Reason: "master timed out", Term: 7}
	f.Add(storyMessage(&t, time.Second)[1:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ago, err := parseStory(b)
		if err == nil && (ago < 0 || len(got.Reason) > storyText+255) {
			t.Errorf("%x: %+v, %v", b, got, ago)
		}
	})
}
