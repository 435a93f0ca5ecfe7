package daemon

import (
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// A listener that breaks ends the metrics, not the node.
func TestANodeOutlivesItsMetrics(t *testing.T) {
	core, seen := observer.New(zapcore.ErrorLevel)
	d := &Daemon{log: zap.New(core)}
	var err error
	if d.scrape, err = listenScrape("127.0.0.1:0", newMetrics(fixed{}.Status)); err != nil {
		t.Fatal(err)
	}
	d.scrape.listener.Close()
	if err := d.serveMetrics(t.Context()); err != nil {
		t.Errorf("the node would end: %v", err)
	}
	if got := seen.FilterMessage("no more metrics over TCP").Len(); got != 1 {
		t.Errorf("said %d times, want once", got)
	}
}
