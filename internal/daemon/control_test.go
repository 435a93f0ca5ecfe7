package daemon

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// fixed is a daemon that stands still.
type fixed struct{}

func (fixed) Status() Status {
	return Status{Node: "fw-a", Groups: []GroupStatus{{Name: "lan", VHID: 2, Carpdev: "eth1", State: "MASTER", Drops: map[string]uint64{"badauth": 3}}}}
}

func (fixed) ReloadKeys() ([]string, error) { return []string{"4f"}, nil }

// serve runs a control socket in a directory of its own and returns that.
func serve(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	c, err := listenControl(dir, zap.NewNop(), fixed{}, newMetrics(fixed{}.Status))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestControlSocketIsNotForEverybody(t *testing.T) {
	dir := serve(t)
	fi, err := os.Stat(filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	if got := fi.Mode().Perm(); got != 0o660 {
		t.Errorf("mode %o, want 660", got)
	}
}

func TestManyQuestionsAndIdleClientsDoNotExhaustTheSocket(t *testing.T) {
	dir := serve(t)
	for range 10 { // clients that say nothing
		c, err := net.Dial("unix", filepath.Join(dir, SocketName))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // kept connections took 5 s for each 64
	defer cancel()
	for range 300 {
		s, err := GetStatus(ctx, dir)
		if err != nil {
			t.Fatal(err)
		}
		if s.Node != "fw-a" || s.Groups[0].State != "MASTER" {
			t.Fatalf("got %+v", s)
		}
	}
}

func TestMetricsAreServed(t *testing.T) {
	dir := serve(t)
	resp, err := Client(dir).Get("http://xcarp/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`xcarp_state{carpdev="eth1",group="lan",state="MASTER",vhid="2"} 1`,
		`xcarp_state{carpdev="eth1",group="lan",state="BACKUP",vhid="2"} 0`,
		`xcarp_adverts_rejected_total{carpdev="eth1",group="lan",reason="badauth",vhid="2"} 3`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("metrics lack %s:\n%s", want, b)
		}
	}
}

func TestNobodyThereIsSaid(t *testing.T) {
	_, err := GetStatus(t.Context(), t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "no daemon answers there") {
		t.Errorf("got %v", err)
	}
}
