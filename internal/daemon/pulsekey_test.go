package daemon

import (
	"fmt"
	"slices"
	"testing"

	"github.com/xcarp/xcarp/internal/carp"
)

// TestPulseKeysAgree is what two nodes tell each other: both come to the same key for
// each direction, and to another one for the other.
func TestPulseKeysAgree(t *testing.T) {
	a, b := newHalf(), newHalf()
	k := keysMessage{session: newSession(), ours: a, yours: b}
	got, err := parseKeys(k.append(nil)[1:])
	if err != nil || got != k {
		t.Fatalf("got %+v (%v), want %+v", got, err, k)
	}
	for _, cut := range []int{0, 1, 67, 69} {
		if _, err := parseKeys(append(k.append(nil), 0)[1 : 1+cut]); err == nil {
			t.Errorf("%d bytes are taken", cut)
		}
	}
	answers, err := pulseKey(a, b, k.session)
	if err != nil {
		t.Fatal(err)
	}
	asks, _ := pulseKey(got.ours, b, got.session)
	other, _ := pulseKey(b, a, k.session)
	later, _ := pulseKey(a, b, k.session+1)
	if answers != asks || answers == other || answers == later {
		t.Errorf("keys %x %x %x %x", answers, asks, other, later)
	}
}

func TestDevicesFitIntoMessages(t *testing.T) {
	var names []string
	for i := range 255 {
		names = append(names, fmt.Sprintf("group-with-a-name-%d", i))
	}
	sync := carp.MAC{2, 0, 0, 0, 0, 9}
	mac := func(g string) carp.MAC { return carp.MAC{2, 1, 1, 1, 1, g[len(g)-1]} }
	var got []string
	for _, b := range appendDevices(sync, names, mac) {
		if len(b) > tellMax || b[0] != tellDevices {
			t.Fatalf("message of %d bytes, kind %d", len(b), b[0])
		}
		s, err := parseDevices(b[1:], func(g string, m carp.MAC) {
			if m != mac(g) {
				t.Errorf("%s has %v", g, m)
			}
			got = append(got, g)
		})
		if err != nil || s != sync {
			t.Fatalf("sync device %v (%v)", s, err)
		}
		if _, err := parseDevices(b[1:len(b)-1], func(string, carp.MAC) {}); err == nil {
			t.Error("a message that was cut off is taken")
		}
	}
	if !slices.Equal(got, names) {
		t.Errorf("%d of %d groups", len(got), len(names))
	}
	got = nil
	for _, b := range appendNames(tellTake, names) {
		n, err := parseNames(b[1:])
		if err != nil || b[0] != tellTake {
			t.Fatal(err)
		}
		got = append(got, n...)
	}
	if !slices.Equal(got, names) {
		t.Errorf("%d of %d names", len(got), len(names))
	}
}
