package track

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/mdlayher/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Watcher wakes the tracks of links and routes when the kernel reports a change.
// It does not read what changed: a message may be lost, so the tracks ask anew.
type Watcher struct {
	log    *zap.Logger
	conn   *netlink.Conn
	links  []*Track      // woken by a change of a link
	routes map[int]bool  // lengths of the prefixes that somebody waits for
	routed []*Track      // woken by a change of such a route
	resume time.Duration // how long to wait after an error
}

// NewWatcher listens in the network namespace of the caller.
func NewWatcher(log *zap.Logger) (*Watcher, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		Groups: 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1),
	})
	if err != nil {
		return nil, fmt.Errorf("listen to changes of links and routes: %w", err)
	}
	return &Watcher{log: log, conn: conn, routes: map[int]bool{}, resume: 100 * time.Millisecond}, nil
}

// Add registers a track before Run, if its probe is one of a link or a route.
func (w *Watcher) Add(t *Track) {
	switch p := t.cfg.Probe.(type) {
	case Link:
		w.links = append(w.links, t)
	case Route:
		w.links = append(w.links, t) // the kernel does not report the IPv4 routes that go with a link
		w.routed = append(w.routed, t)
		w.routes[p.Prefix.Bits()] = true
	}
}

// Close closes the socket of a Watcher that does not run.
func (w *Watcher) Close() error { return w.conn.Close() }

// Run wakes tracks until the context ends, and closes the socket.
func (w *Watcher) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { w.conn.Close() })
	defer stop()
	for {
		messages, err := w.conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			// Mostly that the kernel had more to say than the socket holds.
			w.log.Debug("changes of links and routes lost", zap.Error(err))
			wake(w.links)
			wake(w.routed)
			select {
			case <-time.After(w.resume):
			case <-ctx.Done():
				return nil
			}
			continue
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.RTM_NEWLINK, unix.RTM_DELLINK:
				wake(w.links)
			case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
				// struct rtmsg: family, dst_len, …
				if len(m.Data) > 1 && w.routes[int(m.Data[1])] {
					wake(w.routed)
				}
			}
		}
	}
}

func wake(tracks []*Track) {
	for _, t := range tracks {
		t.Wake()
	}
}
