package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

// scrape serves /metrics over TCP, for a Prometheus elsewhere. It is read-only
// and holds no secret, but it is on the network: metrics.listen says where.
type scrape struct {
	listener net.Listener
	server   *http.Server
}

func listenScrape(addr string, m *metrics) (*scrape, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	return &scrape{l, &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 2 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      10 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}}, nil
}

// serveMetrics serves them as long as that goes: to be watched is no reason not to
// route.
func (d *Daemon) serveMetrics(ctx context.Context) error {
	if err := d.scrape.Run(ctx); err != nil {
		d.log.Error("no more metrics over TCP", zap.Error(err))
	}
	return nil
}

// Run serves until the context ends.
func (s *scrape) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.server.Close() })
	defer stop()
	l := &limited{Listener: s.listener, slots: make(chan struct{}, 16)}
	if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
