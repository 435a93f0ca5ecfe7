package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// keepalived is VRRP by keepalived, alone or with conntrackd.
type keepalived struct {
	version    int
	interval   string // s
	realTime   bool
	conntrackd bool
}

// Keepalived returns keepalived with an interval of 10 ms, 100 ms or 1 s.
func Keepalived(profile string, conntrackd bool) System {
	k := map[string]keepalived{
		"10ms":  {version: 3, interval: "0.01", realTime: true},
		"100ms": {version: 3, interval: "0.1", realTime: true},
		"1s":    {version: 2, interval: "1"},
	}[profile]
	k.conntrackd = conntrackd
	interval, err := strconv.ParseFloat(k.interval, 64)
	if err != nil {
		panic("keepalived has no profile " + profile)
	}
	s := System{
		Name: "keepalived", Profile: profile, Mirrors: conntrackd,
		Check:   needs([2]string{"keepalived", "keepalived"}),
		Prepare: k.prepare,
		Start:   k.start,
		Status:  holds,
		Version: func() string { return firstLine("keepalived", "--version") },
		Masters: func(log []byte) int { return bytes.Count(log, []byte("Entering MASTER STATE")) },
		Files:   []string{"keepalived.conf"},
		// 3 intervals and (256 − priority)/256 of one, RFC 5798.
		MasterDown: time.Duration((3 + (256.0-100)/256) * interval * 1e9),
		Handover:   func(_ context.Context, r *Node) error { return maintenance(r, "1") },
		Takeback:   func(_ context.Context, r *Node) error { return maintenance(r, "0") },
		Restart:    stopAndStart(k.start),
	}
	if conntrackd {
		s.Name += "+conntrackd"
		s.Check = needs([2]string{"keepalived", "keepalived"}, [2]string{"conntrackd", "conntrackd"})
		s.Status = k.statusWithFlows
		s.Version = func() string {
			return firstLine("keepalived", "--version") + "; " + firstLine("conntrackd", "-v")
		}
		s.Files = append(s.Files, "conntrackd.conf", "primary-backup.sh")
	}
	return s
}

// maintenance is the file that keepalived tracks.
func maintenance(r *Node, value string) error {
	if err := os.WriteFile(filepath.Join(r.Dir, "maintenance"), []byte(value+"\n"), 0o600); err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	return nil
}

func (k keepalived) prepare(_ context.Context, n *Net) error {
	for _, r := range n.Routers() {
		s := settingOf(r)
		s.Version, s.Interval, s.RealTime, s.Conntrackd = k.version, k.interval, k.realTime, k.conntrackd
		files := []string{"keepalived.conf"}
		if k.conntrackd {
			files = append(files, "conntrackd.conf", "primary-backup.sh")
		}
		if err := s.write(files...); err != nil {
			return err
		}
	}
	return nil
}

func (k keepalived) start(_ context.Context, r *Node) error {
	if k.conntrackd {
		if err := r.StartAide("conntrackd", exec.Command("conntrackd", "-C", filepath.Join(r.Dir, "conntrackd.conf"))); err != nil {
			return err
		}
	}
	file := func(name string) string { return filepath.Join(r.Dir, name) }
	return r.Start(exec.Command("keepalived", "--dont-fork", "--log-console", "--log-detail", "--vrrp",
		"--use-file", file("keepalived.conf"), "--pid", file("keepalived.pid"), "--vrrp_pid", file("vrrp.pid")))
}

// statusWithFlows adds how many connections a router has ready: in its table as
// master, in its external cache as backup.
func (k keepalived) statusWithFlows(ctx context.Context, r *Node) (Status, error) {
	st, err := holds(ctx, r)
	if err != nil {
		return st, err
	}
	cache := "external"
	if st.all(Master) {
		cache = "internal"
	}
	out, err := r.NS.Run(ctx, "conntrackd", "-C", filepath.Join(r.Dir, "conntrackd.conf"), "-s")
	if err != nil {
		return st, fmt.Errorf("ask conntrackd of %s: %w", r.Name, err)
	}
	st.Flows, err = cached(string(out), cache)
	return st, err
}

// cached reads the number of connections in one of conntrackd's caches.
func cached(stats, cache string) (int, error) {
	_, rest, ok := strings.Cut(stats, "cache "+cache)
	if !ok {
		return 0, fmt.Errorf("conntrackd says nothing of its cache %s", cache)
	}
	_, rest, ok = strings.Cut(rest, "current active connections:")
	if !ok {
		return 0, fmt.Errorf("conntrackd does not count its cache %s", cache)
	}
	return strconv.Atoi(strings.Fields(rest)[0])
}
