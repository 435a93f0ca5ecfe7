package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const ucarpState = "Switching to state: "

// UCARP returns the system ucarp, for the LAN side alone: one address, a password,
// the timers of the others.
func UCARP() System {
	return System{
		Name:    "ucarp",
		Check:   needs([2]string{"ucarp", "ucarp"}),
		Prepare: func(context.Context, *Net) error { return nil },
		Start: func(_ context.Context, r *Node) error {
			src, skew := "10.0.0.2", "0"
			if r == r.lab.B {
				src, skew = "10.0.0.3", "100"
			}
			cmd := exec.Command("ucarp", "--interface=eth1", "--srcip="+src, "--addr="+SharedLAN, "--vhid=2", "--pass=carpdiem",
				"--advbase=1", "--advskew="+skew, "--preempt", "--upscript=/bin/true", "--downscript=/bin/true")
			return r.Start(cmd)
		},
		Status: func(_ context.Context, r *Node) (Status, error) {
			log, err := os.ReadFile(r.LogFile())
			if err != nil {
				return Status{}, fmt.Errorf("read the log of %s: %w", r.Name, err)
			}
			state := Backup
			if i := bytes.LastIndex(log, []byte(ucarpState)); i >= 0 && bytes.HasPrefix(log[i+len(ucarpState):], []byte(Master)) {
				state = Master
			}
			return Status{Groups: map[string]Role{"lan": state}, InSync: true}, nil
		},
	}
}

// UCARPPair returns ucarp on both sides, one process each, which know nothing of
// each other: with the interval of its default, or with the shortest one that it
// takes.
func UCARPPair(profile string) System {
	u := map[string]ucarp{"1s": {base: 1, skewA: 0, skewB: 100}, "skew4": {base: 0, skewA: 4, skewB: 13}}[profile]
	s := System{
		Name: "ucarp", Profile: profile,
		Check:   needs([2]string{"ucarp", "ucarp"}),
		Prepare: u.prepare,
		Start:   u.start,
		Status:  holds,
		Version: func() string { return "ucarp " + packageVersion("ucarp") },
		Masters: func(log []byte) int { return bytes.Count(log, []byte(ucarpState+string(Master))) },
		Files:   []string{"ucarp.sh", "ucarp-up.sh", "ucarp-down.sh"},
		// 3 intervals of its own, skew included, as in ucarp.c.
		MasterDown: 3 * time.Duration((float64(u.base)+float64(u.skewB)/256)*1e9),
		Handover:   func(_ context.Context, r *Node) error { return r.Signal(syscall.SIGUSR2) },
		// It listens for a while and preempts by itself.
		Takeback: func(context.Context, *Node) error { return nil },
		Restart:  stopAndStart(u.start),
	}
	return s
}

type ucarp struct{ base, skewA, skewB int }

func (u ucarp) prepare(_ context.Context, n *Net) error {
	for _, r := range n.Routers() {
		s := settingOf(r)
		s.AdvBase, s.AdvSkew = u.base, u.skewA
		s.Own = map[string]string{"eth0": ownWANa, "eth1": "10.0.0.2"}
		if r == n.B {
			s.AdvSkew = u.skewB
			s.Own = map[string]string{"eth0": ownWANb, "eth1": "10.0.0.3"}
		}
		if err := s.write("ucarp.sh", "ucarp-up.sh", "ucarp-down.sh"); err != nil {
			return err
		}
		for _, dev := range []string{"eth0", "eth1"} {
			if err := r.NS.WriteSysctl("net/ipv6/conf/"+dev+"/ndisc_notify", "1"); err != nil {
				return fmt.Errorf("have %s announce IPv6 addresses: %w", r.Name, err)
			}
		}
	}
	return nil
}

func (u ucarp) start(_ context.Context, r *Node) error {
	var cmds []*exec.Cmd
	for _, dev := range []string{"eth0", "eth1"} {
		cmds = append(cmds, exec.Command(filepath.Join(r.Dir, "ucarp.sh"), dev))
	}
	return r.Start(cmds...)
}
