package lab

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/xcarp/xcarp/internal/probe"
)

const (
	probePort  = 7 // echo, RFC 862
	probeLimit = 5 * time.Minute
)

// StartProbe starts probing from the client through the pair to addresses of the
// server, which echoes. Stop it.
func (n *Net) StartProbe(to ...string) (*probe.Prober, error) {
	var far []netip.AddrPort
	for _, a := range to {
		far = append(far, netip.AddrPortFrom(netip.MustParseAddr(a), probePort))
	}
	var w *probe.UDP
	err := n.Client.NS.Do(func() (err error) {
		w, err = probe.NewUDP(far...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if err := n.Server.NS.Do(func() error { return w.Listen(probePort) }); err != nil {
		_ = w.Close()
		return nil, fmt.Errorf("server: %w", err)
	}
	return probe.Start(w, len(far), probeLimit, n.now), nil
}
