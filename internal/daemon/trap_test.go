package daemon

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/nstest"
)

// The trap is read back with nft, which is not our code.
func TestRSTTrapHoldsTheAddressesAndGoes(t *testing.T) {
	nstest.RequireProgram(t, "nft")
	ns := nstest.New(t, "trap")
	var trap *rstTrap
	ns.Must(func() (err error) { trap, err = newRSTTrap(); return err })
	defer trap.Close()
	addrs := []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")}

	for range 2 { // a second promotion finds the table of the first
		if err := trap.Set(addrs, trapTime); err != nil {
			t.Fatal(err)
		}
	}
	got := ns.Exec("nft", "list", "table", "inet", trapTable)
	for _, want := range []string{"203.0.113.1 timeout 5s", "2001:db8::1 timeout 5s", "ct state invalid,new,untracked", "tcp flags"} {
		if !strings.Contains(got, want) {
			t.Errorf("the table lacks %q:\n%s", want, got)
		}
	}
	if n := strings.Count(got, "drop"); n != 2 {
		t.Errorf("got %d drop rules, want 2:\n%s", n, got)
	}

	ns.Exec("nft", "flush", "ruleset")
	if err := trap.Set(addrs, 0); err != nil {
		t.Fatalf("after the operator flushed the ruleset: %v", err)
	}
	if got := ns.Exec("nft", "list", "table", "inet", trapTable); strings.Contains(got, "expires") {
		t.Errorf("an address without a time expires:\n%s", got)
	}
	for range 2 {
		if err := trap.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	if got := ns.Exec("nft", "list", "ruleset"); strings.TrimSpace(got) != "" {
		t.Errorf("left behind:\n%s", got)
	}
}

// A process that was killed while its table was incomplete leaves a trap that does
// not end by itself. The next one, whose table is complete, takes it away.
func TestATrapOfAnEarlierProcessEnds(t *testing.T) {
	ns := nstest.New(t, "a")
	var k *keeper
	ns.Must(func() error {
		earlier, err := newRSTTrap()
		if err != nil {
			return err
		}
		defer earlier.Close()
		if err := earlier.Set([]netip.Addr{netip.MustParseAddr("203.0.113.1")}, 0); err != nil {
			return err
		}
		k, err = newKeeper(zap.NewNop(), time.Now)
		return err
	})
	k.Incomplete(false)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	nstest.Eventually(t, 10*time.Second, "an empty trap", func() bool {
		return !strings.Contains(ns.Exec("nft", "list", "ruleset"), "203.0.113.1")
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
