package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
)

const (
	// restartGrace is for how long peers take a daemon for alive that is being
	// replaced: a start takes a tenth of it, and leases end later.
	restartGrace = 2 * time.Second

	// checkTime is how long another program may need to check the configuration.
	checkTime = 7 * time.Second // the one who asked waits for 10 s

	restartLook = 20 * time.Millisecond // between two looks for the new process
	restartMost = 15 * time.Second      // after which the command complains
)

// RestartResult is the answer to POST /v1/restart: what the process becomes. It comes
// before the process is replaced.
type RestartResult struct {
	Program string `json:"program"`
}

// Restarted is what became of it.
type Restarted struct {
	Program string        `json:"program"`
	Version string        `json:"version"`
	TookMS  float64       `json:"took_ms"` // from the command to the answer of the new process
	Groups  []GroupStatus `json:"groups"`
}

// serveRestart adds to the control API
//
//	POST /v1/restart  → RestartResult
func (d *Daemon) serveRestart(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/restart", func(w http.ResponseWriter, r *http.Request) {
		d.change.Lock()
		defer d.change.Unlock()
		program, err := d.successor(r.Context())
		if err != nil {
			answer(w, nil, err)
			return
		}
		b, err := json.Marshal(RestartResult{program})
		if err != nil {
			answer(w, nil, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		_, _ = w.Write(b) // who asked may have gone
		_ = http.NewResponseController(w).Flush()
		d.log.Info("restarting in place", zap.String("program", program))
		d.exec(program)
	})
}

// successor returns the program that is now where this one was started from, if it can
// run on what is configured.
func (d *Daemon) successor(ctx context.Context) (string, error) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("find the program: %w", err)
	}
	program, replaced := strings.CutSuffix(program, " (deleted)")
	if err := startable(d.now.Load()); err != nil {
		return "", refusal(fmt.Sprintf("not restarted, the configuration on disk is wrong: %v", err))
	}
	if !replaced && sameFile(program, "/proc/self/exe") {
		return program, nil
	}
	if _, err := os.Stat(program); err != nil {
		return "", refusal(fmt.Sprintf("not restarted: the program is gone: %v: install it again", err))
	}
	args := []string{"check", "--run-dir", d.paths.Run, "--state-dir", d.paths.State, "--pin-dir", d.paths.Pin}
	if d.cfg.Path != "" {
		if _, err := os.Stat(d.cfg.Path); err == nil {
			args = append(args, d.cfg.Path)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	if out, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
		return "", refusal(fmt.Sprintf("not restarted: %s, which has been replaced, does not accept %s: %v: %s",
			program, d.cfg.Path, err, strings.TrimSpace(string(out))))
	}
	return program, nil
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	y, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// exec replaces this process by a new one, as after a crash: what is on the carpdevs is
// adopted, so nobody notices there, and what was made or configured anew is taken up.
// Peers that watch the daemon's signs of life are told not to wait for the next one.
func (d *Daemon) exec(program string) {
	_ = d.log.Sync()
	if d.Journal != nil {
		_ = d.Journal.Flush() // what it cannot keep it counts
	}
	signal.Ignore(unix.SIGHUP) // which the next one inherits: it reads what is on disk before it listens
	for _, m := range d.members() {
		m.stampAhead(true)
	}
	if err := unix.Exec(program, os.Args, os.Environ()); err != nil {
		d.log.Error("not replaced: this process goes on", zap.String("program", program), zap.Error(err))
		for _, m := range d.members() {
			m.stampAhead(false)
		}
		if d.Hangup != nil {
			signal.Notify(d.Hangup, unix.SIGHUP)
		}
	}
}

// AskRestart has the daemon of the run-dir replace itself, and waits for the next one.
func AskRestart(ctx context.Context, runDir string) (Restarted, error) {
	begin := time.Now()
	var r RestartResult
	if err := ask(ctx, runDir, http.MethodPost, "/v1/restart", nil, &r); err != nil {
		return Restarted{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, restartMost)
	defer cancel()
	for {
		var s Status
		err := ask(ctx, runDir, http.MethodGet, "/v1/status", nil, &s)
		if up := s.Uptime; err == nil && up < time.Since(begin).Seconds() && (settled(s.Groups) || up > restartGrace.Seconds()) {
			return Restarted{Program: r.Program, Version: s.Version, TookMS: float64(time.Since(begin)) / 1e6, Groups: s.Groups}, nil
		}
		select {
		case <-time.After(restartLook):
		case <-ctx.Done():
			if err == nil {
				return Restarted{}, fmt.Errorf("%s did not replace the daemon, which goes on: see its log", r.Program)
			}
			return Restarted{}, fmt.Errorf("%s has replaced the daemon, and does not answer after %v: see its log: %w", r.Program, restartMost, err)
		}
	}
}

// settled reports whether the elections have begun.
func settled(groups []GroupStatus) bool {
	for _, g := range groups {
		if g.State == carp.Init.String() && !g.Down {
			return false
		}
	}
	return true
}
