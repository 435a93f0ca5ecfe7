package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
)

// ShieldOptions say how to measure.
type ShieldOptions struct {
	Attacks  []Attack      // none: all
	For      time.Duration // of each flood before the master is killed
	Progress func(format string, args ...any)
}

// lanVHID is that of the group that is attacked.
const lanVHID = 2

// The promises of MeasureShield.
const (
	shieldCPU   = 5.0 // percent of a processor, each daemon
	shieldLines = 10  // in each log
	failoverMS  = masterDownMS + 1000
)

// floodRun is one flood under one system.
type floodRun struct {
	*pair
	opt ShieldOptions
}

// MeasureShield floods the election of a pair and kills the master while the
// flood goes on, once for each attack.
func MeasureShield(ctx context.Context, sys System, opt ShieldOptions) (all []ShieldResult, err error) {
	if opt.Progress == nil {
		opt.Progress = func(string, ...any) {}
	}
	if len(opt.Attacks) == 0 {
		opt.Attacks = Attacks
	}
	if s, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME)); err == nil {
		defer s.Close()
	}
	p, err := newPair(ctx, sys, NAT, opt.Progress, nil)
	defer func() {
		if p.net != nil {
			err = errors.Join(err, p.net.Close())
		}
	}()
	if err != nil {
		return nil, err
	}
	f := &floodRun{p, opt}
	for _, a := range opt.Attacks {
		r, err := f.attack(ctx, a)
		if err != nil {
			return all, fmt.Errorf("%s under %s adverts: %w", sys.Name, a, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// attack measures one flood.
func (f *floodRun) attack(ctx context.Context, a Attack) (res ShieldResult, err error) {
	res = ShieldResult{System: f.sys.Name, Profile: f.sys.Profile, Attack: a, BoundMS: failoverMS}
	if err := f.settle(ctx); err != nil {
		return res, err
	}
	attacker := f.net.Client
	dev, err := attacker.h.LinkByName("eth0")
	if err != nil {
		return res, fmt.Errorf("find eth0 of the client: %w", err)
	}
	captured, err := f.capture(ctx, dev.Attrs().Index)
	if err != nil {
		return res, err
	}
	frames, err := a.Frames(captured, carp.MAC(dev.Attrs().HardwareAddr))
	if err != nil {
		return res, err
	}
	before, err := f.look(ctx)
	if err != nil {
		return res, err
	}
	f.opt.Progress("%s: %s adverts for %v", f.sys.Label(), a, f.opt.For)
	flooding, stop := context.WithCancel(ctx)
	defer stop()
	type end struct {
		sent uint64
		at   time.Time
		err  error
	}
	done, began := make(chan end, 1), time.Now()
	go func() {
		sent, err := FloodAll(flooding, attacker.NS.Do, dev.Attrs().Index, frames)
		done <- end{sent, time.Now(), err}
	}()
	if err := wait(ctx, f.opt.For); err != nil {
		return res, err
	}
	after, err := f.look(ctx)
	if err != nil {
		return res, err
	}
	res.compare(before, after)
	res.Seconds = time.Since(began).Seconds()

	f.opt.Progress("%s: killing the master in the flood", f.sys.Label())
	f.faulty = true
	killed := time.Now()
	if err := f.net.A.Signal(syscall.SIGKILL); err != nil {
		return res, err
	}
	if moved, err := f.moved(ctx, killed); err != nil {
		return res, err
	} else if moved > 0 {
		res.FailoverMS = ms(moved)
	}
	stop()
	e := <-done
	if e.err != nil {
		return res, e.err
	}
	res.FramesSent = e.sent
	res.RatePPS = float64(e.sent) / e.at.Sub(began).Seconds()
	res.judge()
	f.net.A.Stop(0) // waits for its end
	f.faulty = false
	return res, f.sys.Start(ctx, f.net.A)
}

// moved waits until fw-b says that it became master, and returns how long that
// took; 0 if it took far too long.
func (f *floodRun) moved(ctx context.Context, since time.Time) (time.Duration, error) {
	for ms(time.Since(since)) < 3*failoverMS {
		st, err := f.role(ctx, f.net.B)
		if err != nil {
			return 0, err
		}
		if st == Master {
			return time.Since(since), nil
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// role reads from a router's log where its LAN group is: asking its daemon would
// cost what is measured.
func (f *floodRun) role(ctx context.Context, r *Node) (Role, error) {
	if f.sys.Transitions == nil {
		st, err := f.sys.Status(ctx, r)
		return st.Groups["lan"], err
	}
	ts, err := f.sys.Transitions(r)
	if err != nil {
		return "", err
	}
	for i := len(ts) - 1; i >= 0; i-- {
		if ts[i].VHID == lanVHID {
			return Role(ts[i].To), nil
		}
	}
	return "", nil
}

func (f *floodRun) capture(ctx context.Context, index int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, captureLimit)
	defer cancel()
	return Capture(ctx, f.net.Client.NS.Do, index, lanVHID)
}

// sight is what can be seen of a system at one time.
type sight struct {
	at    time.Time
	nodes [2]nodeSight
}

// nodeSight is one router: fw-a, fw-b.
type nodeSight struct {
	user  time.Duration // of the daemon
	cpu   time.Duration // the same, with what the kernel did on its time
	lines int
	moves int
	rx    uint64 // frames that its LAN device has received
	group floodShow
	spent time.Duration // of the XDP program
	runs  uint64
}

// floodShow is the part of a group in `xcarp show -o json` that is compared.
type floodShow struct {
	Name     string            `json:"name"`
	Packets  map[string]uint64 `json:"packets"`
	Drops    map[string]uint64 `json:"drops"`
	Sent     uint64            `json:"adverts_sent"`
	Received uint64            `json:"adverts_received"`
	Hint     string            `json:"hint"`
	Shield   string            `json:"shield"`
	XDPMode  string            `json:"xdp_mode"`
}

func (f *floodRun) look(ctx context.Context) (s sight, err error) {
	for i, r := range f.net.Routers() {
		n := &s.nodes[i]
		if n.user, n.cpu, err = r.cpu(); err != nil {
			return s, err
		}
		lan, err := r.h.LinkByName("eth1")
		if err != nil {
			return s, fmt.Errorf("find the LAN device of %s: %w", r.Name, err)
		}
		n.rx = lan.Attrs().Statistics.RxPackets
		log, err := os.ReadFile(r.LogFile())
		if err != nil {
			return s, fmt.Errorf("read the log of %s: %w", r.Name, err)
		}
		n.lines, n.moves = bytes.Count(log, []byte{'\n'}), bytes.Count(log, []byte(ucarpState))
		if f.sys.show == nil {
			continue
		}
		ts, err := f.sys.Transitions(r)
		if err != nil {
			return s, err
		}
		n.moves = len(ts)
		if n.group, err = f.sys.show(ctx, r); err != nil {
			return s, err
		}
		n.spent, n.runs = xdpTime(r)
	}
	s.at = time.Now()
	return s, nil
}

// show asks the daemon of a router for what is compared.
func (x xcarp) show(ctx context.Context, r *Node) (floodShow, error) {
	out, err := exec.CommandContext(ctx, x.program, append([]string{"show", "-o", "json"}, x.dirs(r)...)...).Output()
	if err != nil {
		return floodShow{}, fmt.Errorf("ask %s: %w", r.Name, withStderr(err))
	}
	var all struct{ Groups []floodShow }
	if err := json.Unmarshal(out, &all); err != nil {
		return floodShow{}, fmt.Errorf("read what xcarp show printed: %w", err)
	}
	for _, g := range all.Groups {
		if g.Name == "lan" {
			return g, nil
		}
	}
	return floodShow{}, fmt.Errorf("%s has no group lan", r.Name)
}

// cpu returns the processor time that the node's daemon has used, in user space and in
// all: the 14th and 15th field of proc_pid_stat(5), in hundredths of a second.
func (n *Node) cpu() (user, all time.Duration, err error) {
	if !n.running() {
		return 0, 0, fmt.Errorf("the daemon of %s is not running", n.Name)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.daemons[0].cmd.Process.Pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read the processor time of %s: %w", n.Name, err)
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 13 {
		return 0, 0, fmt.Errorf("read the processor time of %s: %q", n.Name, b)
	}
	var ticks [2]time.Duration
	for i, f := range fields[11:13] {
		t, err := strconv.Atoi(string(f))
		if err != nil {
			return 0, 0, fmt.Errorf("read the processor time of %s: %w", n.Name, err)
		}
		ticks[i] = time.Duration(t) * 10 * time.Millisecond
	}
	return ticks[0], ticks[0] + ticks[1], nil
}

// xdpTime returns what the kernel counted of the program on the LAN side, zero
// where there is none.
func xdpTime(r *Node) (time.Duration, uint64) {
	l, err := link.LoadPinnedLink(filepath.Join(r.PinDir(), "eth1", "xdp"), nil)
	if err != nil {
		return 0, 0
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return 0, 0
	}
	prog, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return 0, 0
	}
	defer prog.Close()
	st, err := prog.Stats()
	if err != nil {
		return 0, 0
	}
	return st.Runtime, st.RunCount
}
