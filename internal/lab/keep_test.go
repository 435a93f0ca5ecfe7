package lab

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/nstest"
)

func TestAKeptLabObeys(t *testing.T) {
	nstest.RequireRoot(t)
	nstest.RequireProgram(t, "nft")
	t.Setenv(standinEnv, "200ms")
	t.Setenv("TMPDIR", t.TempDir()) // so that no other kept lab is found
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	up := make(chan struct{})
	go func() { ended <- Keep(t.Context(), XCarp(self, true), func(*Net) { close(up) }) }()
	select {
	case <-up:
	case err := <-ended:
		t.Fatal(err)
	}
	ask := func(command, want string) {
		t.Helper()
		if got, err := Ask(command); err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, %v, want %q in it", command, got, err, want)
		}
	}
	ask("status", "fw-b  lan BACKUP")
	ask("cut crash", "blocked")
	nstest.Eventually(t, 5*time.Second, "fw-b is MASTER after the cut", func() bool {
		got, err := Ask("status")
		return err == nil && strings.Contains(got, "fw-b  lan MASTER") && strings.Contains(got, "in place: crash")
	})
	for _, refused := range []string{"cut crash", "cut fire", "dance"} {
		if got, err := Ask(refused); err == nil {
			t.Errorf("%s: got %q, want a refusal", refused, got)
		}
	}
	ask("heal", "healed")
	nstest.Eventually(t, 5*time.Second, "fw-b is BACKUP after healing", func() bool {
		got, err := Ask("status")
		return err == nil && strings.Contains(got, "fw-b  lan BACKUP")
	})
	ask("down", "down")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	noLeftovers(t)
	if got, err := Ask("status"); err == nil {
		t.Errorf("after down: got %q, want that no lab is up", got)
	}
}
