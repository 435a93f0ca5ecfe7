package daemon

import (
	"net/netip"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/carp/group"
)

// TestAPeerOfUnknownMACIsLookedUpSooner, if it was named lately.
func TestAPeerOfUnknownMACIsLookedUpSooner(t *testing.T) {
	added := time.Now()
	known := carp.MAC{2, 0, 0, 0, 0, 1}
	for _, to := range []string{"10.0.0.3", "fd00:1::3"} {
		a := netip.MustParseAddr(to)
		for _, tt := range []struct {
			mac   carp.MAC
			known time.Duration // ago
			want  time.Duration
		}{
			{everybody(a), 0, peerSoon},
			{everybody(a), peerNew - 1, peerSoon},
			{everybody(a), peerNew, peerEvery},
			{known, 0, peerEvery},
		} {
			p := peer{addr: a, added: added, looked: added.Add(tt.known)}
			p.at.Store(&group.Destination{To: a, MAC: tt.mac})
			if got := p.due().Sub(p.looked); got != tt.want {
				t.Errorf("%s, MAC %v, named %v ago: again after %v, want %v", to, tt.mac, tt.known, got, tt.want)
			}
		}
	}
}
