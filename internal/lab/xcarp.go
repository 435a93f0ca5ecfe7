package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// XCarp returns the system xcarp, run by a program, with the demo's timers.
func XCarp(program string, sync bool) System {
	return xcarp{program: program, sync: sync, advBase: 1, advSkew: 100}.system("")
}

// XCarpProfile returns xcarp as it is measured beside others: with pulses of a
// profile (fast, default), or by CARP timers, those of the demo (timers) or as short as
// can be (classic).
func XCarpProfile(program, profile string) System {
	x := xcarp{program: program, sync: true, advBase: 1, advSkew: 100, detect: profile}
	switch profile {
	case "classic":
		x.advBase, x.advSkew, x.detect = 0, 1, "off"
	case "timers":
		x.detect = "off"
	}
	return x.system(profile)
}

func (x xcarp) system(profile string) System {
	s := System{
		Name:        "xcarp",
		Profile:     profile,
		Mirrors:     x.sync,
		Check:       x.check,
		Prepare:     x.prepare,
		Start:       x.start,
		Status:      x.status,
		Transitions: xcarpTransitions,
		Handover:    x.handover,
		Takeback:    x.takeback,
		Restart:     func(ctx context.Context, r *Node) error { return x.tell(ctx, r, "restart") },
		Masters:     xcarpMasters,
		Version:     func() string { return firstLine(x.program, "version") },
		Files:       []string{"xcarp.yaml"},
		MasterDown:  time.Duration(masterDownMS * 1e6),
		show:        x.show,
	}
	if x.pulses() && x.detect != "" {
		s.MasterDown = time.Second // whatever happens, pulses tell
	}
	if x.advBase == 0 {
		s.MasterDown = 3 * time.Second / 256
	}
	return s
}

// FindXCarp returns the absolute path of the xcarp program: the one named, the
// one beside this program, or the one in PATH.
func FindXCarp(named string) (string, error) {
	if named != "" {
		p, err := exec.LookPath(named)
		if err != nil {
			return "", fmt.Errorf("find the xcarp program: %w", err)
		}
		return filepath.Abs(p) // daemons run in directories of their own
	}
	if self, err := os.Executable(); err == nil {
		if p, err := exec.LookPath(filepath.Join(filepath.Dir(self), "xcarp")); err == nil {
			return p, nil
		}
	}
	p, err := exec.LookPath("xcarp")
	if err != nil {
		return "", errors.New("xcarp is neither beside xcarp-lab nor in PATH: make build, or name it with --xcarp PATH")
	}
	return filepath.Abs(p)
}

type xcarp struct {
	program          string
	sync             bool
	detect           string // pulses; empty: none
	advBase, advSkew int    // advskew of fw-b
}

// masterDownMS is how long fw-b waits for an advert with the demo's timers:
// 3·advbase + advskew/256 s.
const masterDownMS = 3*1000 + 100*1000/256.0

// check finds out whether this xcarp knows the pulses.
func (x xcarp) check() error {
	if x.detect == "" {
		return nil
	}
	dir, err := os.MkdirTemp("", dirPrefix+fmt.Sprint(os.Getpid())+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := x.setting("fw-a", dir)
	if err := s.write("xcarp.yaml"); err != nil {
		return err
	}
	// It complains of much else: the configuration is for another machine.
	out, err := exec.Command(x.program, "check", filepath.Join(dir, "xcarp.yaml")).CombinedOutput()
	if err != nil && bytes.Contains(out, []byte("detect")) {
		return fmt.Errorf("detect: %s is not in this version", x.detect)
	}
	return nil
}

func (x xcarp) setting(node, dir string) setting {
	return setting{Node: node, Dir: dir, Sync: x.sync, Detect: x.detect, AdvBase: x.advBase, AdvSkew: x.advSkew, Classic: x.advBase == 0}
}

func (x xcarp) prepare(ctx context.Context, n *Net) error {
	if err := n.mountBPF(); err != nil {
		return err
	}
	key, err := exec.CommandContext(ctx, x.program, "keygen").Output()
	if err != nil {
		return fmt.Errorf("make a key with %s keygen: %w", x.program, withStderr(err))
	}
	for _, r := range n.Routers() {
		if err := os.WriteFile(filepath.Join(r.Dir, "xcarp.key"), key, 0o600); err != nil {
			return fmt.Errorf("write the key of %s: %w", r.Name, err)
		}
		if err := x.setting(r.Name, r.Dir).write("xcarp.yaml"); err != nil {
			return err
		}
		for _, d := range []string{"run", "state"} {
			if err := os.Mkdir(filepath.Join(r.Dir, d), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make the %s directory of %s: %w", d, r.Name, err)
			}
		}
	}
	return nil
}

// handover is the planned move. Without pulses nobody can claim: a node demotes itself
// below its peer.
func (x xcarp) handover(ctx context.Context, r *Node) error {
	if !x.pulses() {
		return x.tell(ctx, r, "demote", "--by", "240", "--reason", "handover")
	}
	return x.tell(ctx, r, "handover")
}

// takeback is the way back, of which a node is told that gave its role away.
func (x xcarp) takeback(ctx context.Context, r *Node) error {
	if !x.pulses() {
		return x.tell(ctx, r, "undemote")
	}
	return x.tell(ctx, r.lab.B, "handover")
}

func (x xcarp) pulses() bool { return x.sync && x.detect != "off" }

// tell carries out a command of an operator.
func (x xcarp) tell(ctx context.Context, r *Node, args ...string) error {
	if _, err := exec.CommandContext(ctx, x.program, append(args, x.dirs(r)...)...).Output(); err != nil {
		return fmt.Errorf("xcarp %s on %s: %w", args[0], r.Name, withStderr(err))
	}
	return nil
}

// xcarpMasters counts in a log how often a group became master.
func xcarpMasters(log []byte) int {
	n := 0
	for _, t := range parseXCarpLog("", log) {
		if t.To == string(Master) {
			n++
		}
	}
	return n
}

// dirs are the flags by which several nodes live on one machine.
func (x xcarp) dirs(r *Node) []string {
	return []string{
		"--run-dir", filepath.Join(r.Dir, "run"),
		"--state-dir", filepath.Join(r.Dir, "state"),
		"--pin-dir", r.PinDir(),
	}
}

func (x xcarp) start(_ context.Context, r *Node) error {
	args := append([]string{"run", "--config", filepath.Join(r.Dir, "xcarp.yaml")}, x.dirs(r)...)
	return r.Start(exec.Command(x.program, args...)) // its life is the node's, not the context's
}

// xcarpShow is the part of `xcarp show -o json` that the lab reads.
type xcarpShow struct {
	Groups []struct {
		Name    string `json:"name"`
		State   Role   `json:"state"`
		XDPMode string `json:"xdp_mode"`
	} `json:"groups"`
	Sync []struct {
		InSync bool `json:"in_sync"`
		Flows  int  `json:"flows"`
	} `json:"sync"`
}

func (x xcarp) status(ctx context.Context, r *Node) (Status, error) {
	if !r.running() {
		return Status{}, fmt.Errorf("the daemon of %s is not running", r.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // a stopped daemon answers nothing
	defer cancel()
	out, err := exec.CommandContext(ctx, x.program, append([]string{"show", "-o", "json"}, x.dirs(r)...)...).Output()
	if err != nil {
		return Status{}, fmt.Errorf("ask %s: %w", r.Name, withStderr(err))
	}
	return parseXCarpShow(out, x.sync)
}

// parseXCarpShow reads what `xcarp show -o json` printed. Without a sync section
// there is no peer to be in sync with, and InSync is what --no-sync asks for.
func parseXCarpShow(out []byte, sync bool) (Status, error) {
	var show xcarpShow
	if err := json.Unmarshal(out, &show); err != nil {
		return Status{}, fmt.Errorf("read what xcarp show printed: %w", err)
	}
	s := Status{Groups: map[string]Role{}, InSync: !sync || len(show.Sync) > 0}
	for _, g := range show.Groups {
		s.Groups[g.Name] = g.State
		s.XDPMode = g.XDPMode
	}
	for _, p := range show.Sync {
		s.InSync = s.InSync && (!sync || p.InSync)
		s.Flows = p.Flows
	}
	return s, nil
}

// withStderr adds the last line that a program wrote to its error.
func withStderr(err error) error {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if line := lastLine(exit.Stderr); line != "" {
			return fmt.Errorf("%w: %s", err, line)
		}
	}
	return err
}

func lastLine(b []byte) string {
	b = bytes.TrimSpace(b)
	return string(b[bytes.LastIndexByte(b, '\n')+1:])
}

func xcarpTransitions(r *Node) ([]Transition, error) {
	log, err := os.ReadFile(r.LogFile())
	if err != nil {
		return nil, fmt.Errorf("read the log of %s: %w", r.Name, err)
	}
	return parseXCarpLog(r.Name, log), nil
}

// parseXCarpLog finds the changes of state in a daemon's log: zap lines with the
// message "state", as JSON or as text with a JSON object at the end.
func parseXCarpLog(node string, log []byte) []Transition {
	var ts []Transition
	for sc := bufio.NewScanner(bytes.NewReader(log)); sc.Scan(); {
		head, object, ok := strings.Cut(sc.Text(), "{")
		if !ok {
			continue
		}
		var line struct {
			Msg    string          `json:"msg"`
			TS     json.RawMessage `json:"ts"`
			Time   json.RawMessage `json:"time"`
			VHID   int             `json:"vhid"`
			From   string          `json:"from"`
			To     string          `json:"to"`
			Reason string          `json:"reason"`
		}
		if json.Unmarshal([]byte("{"+object), &line) != nil || line.To == "" || line.VHID == 0 {
			continue
		}
		fields := strings.Split(strings.TrimRight(head, "\t "), "\t")
		if line.Msg != "state" && fields[len(fields)-1] != "state" {
			continue
		}
		t := Transition{Node: node, VHID: line.VHID, From: line.From, To: line.To, Reason: line.Reason}
		for _, s := range []string{string(line.TS), string(line.Time), fields[0]} {
			if at, ok := logTime(strings.Trim(s, `"`)); ok {
				t.at = at
				break
			}
		}
		ts = append(ts, t)
	}
	return ts
}

// logTime reads a time as zap's encoders write it.
func logTime(s string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.000Z0700"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && f > 1e9 {
		return time.UnixMicro(int64(math.Round(f * 1e6))), true // no float has more
	}
	return time.Time{}, false
}
