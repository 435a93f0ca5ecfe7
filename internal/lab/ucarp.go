package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
)

const ucarpState = "Switching to state: "

// UCARP returns the system ucarp, for the LAN side alone: one address, a password,
// the timers of the others.
func UCARP() System {
	return System{
		Name: "ucarp",
		Check: func() error {
			if _, err := exec.LookPath("ucarp"); err != nil {
				return fmt.Errorf("needs the program ucarp: apt-get install ucarp")
			}
			return nil
		},
		Prepare: func(context.Context, *Net) error { return nil },
		Start: func(_ context.Context, r *Node) error {
			src, skew := "10.0.0.2", "0"
			if r == r.lab.B {
				src, skew = "10.0.0.3", "100"
			}
			cmd := exec.Command("ucarp", "--interface=eth1", "--srcip="+src, "--addr="+SharedLAN, "--vhid=2", "--pass=carpdiem",
				"--advbase=1", "--advskew="+skew, "--preempt", "--upscript=/bin/true", "--downscript=/bin/true")
			cmd.Dir = r.Dir
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
