package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// controlSocket is the name of a kept lab's socket in its directory. One line in
// is a command; the answer is text, after "error: " if it was refused.
const controlSocket = "control"

// Keep builds a lab, runs the system in it, and obeys Ask until it is told
// "down" or the context ends; then it takes everything down. ready is called
// when the pair stands.
func Keep(ctx context.Context, sys System, ready func(*Net)) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, err := keptSocket(); err == nil {
		return errors.New("a kept lab is up already: xcarp-lab down")
	}
	r := &run{Options: Options{Progress: func(string, ...any) {}}, pair: &pair{sys: sys}}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.build(ctx); err != nil {
		return err
	}
	l, err := net.Listen("unix", filepath.Join(r.net.Dir, controlSocket))
	if err != nil {
		return fmt.Errorf("listen for commands: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	ready(r.net)
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for a command: %w", err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		line, err := bufio.NewReader(io.LimitReader(c, 256)).ReadString('\n')
		if err == nil {
			var text string
			if text, err = r.obey(ctx, strings.Fields(line)); err != nil {
				text = "error: " + err.Error()
			}
			_, _ = io.WriteString(c, text)
		}
		if strings.TrimSpace(line) == "down" {
			err := r.close() // before the answer ends
			_ = c.Close()
			return err
		}
		_ = c.Close()
	}
}

// obey carries out one command of a kept lab.
func (r *run) obey(ctx context.Context, command []string) (string, error) {
	switch {
	case len(command) == 1 && command[0] == "down":
		return "down\n", nil
	case len(command) == 1 && command[0] == "status":
		return r.describe(ctx), nil
	case len(command) == 1 && command[0] == "heal":
		if r.cut == nil {
			return "", errors.New("nothing is cut")
		}
		err := errors.Join(r.mend(ctx), r.restart(ctx, r.Fault), r.cut.Close())
		r.cut = nil
		return "healed\n", err
	case len(command) == 2 && command[0] == "cut":
		f, err := ParseFault(command[1])
		if err != nil {
			return "", err
		}
		if r.cut != nil {
			return "", fmt.Errorf("%s is in place: xcarp-lab cut heal", r.cut.Fault)
		}
		if r.cut, err = r.newCut(f); err != nil {
			return "", err
		}
		r.Fault, r.faulty = f, true
		if _, _, err := r.cut.Do(ctx); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s: %s\n", f, faultText[f]), nil
	}
	return "", fmt.Errorf("command %q is unknown", strings.Join(command, " "))
}

// describe says where both routers stand.
func (r *run) describe(ctx context.Context) string {
	var b strings.Builder
	for _, n := range r.net.Routers() {
		st, err := r.sys.Status(ctx, n)
		if err != nil {
			fmt.Fprintf(&b, "%s  %v\n", n.Name, err)
			continue
		}
		fmt.Fprintf(&b, "%s  lan %-6s  wan %-6s  in sync %-5v  flows %d  XDP %s\n",
			n.Name, st.Groups["lan"], st.Groups["wan"], st.InSync, st.Flows, st.XDPMode)
	}
	if r.cut != nil {
		fmt.Fprintf(&b, "in place: %s\n", r.cut.Fault)
	}
	return b.String()
}

// keptSocket finds the socket of the kept lab that is up.
func keptSocket() (string, error) {
	paths, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*", controlSocket))
	if err != nil {
		return "", err
	}
	for _, p := range paths {
		if !orphan(filepath.Base(filepath.Dir(p))) {
			return p, nil
		}
	}
	return "", errors.New("no kept lab is up: xcarp-lab up")
}

// Ask gives the kept lab a command and returns its answer.
func Ask(command string) (string, error) {
	path, err := keptSocket()
	if err != nil {
		return "", err
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		return "", fmt.Errorf("reach the kept lab: %w", err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, command+"\n"); err != nil {
		return "", fmt.Errorf("tell the kept lab to %s: %w", command, err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return "", fmt.Errorf("hear the kept lab: %w", err)
	}
	if text, refused := strings.CutPrefix(string(answer), "error: "); refused {
		return "", errors.New(text)
	}
	return string(answer), nil
}

// KeptNamespace returns the name of the namespace of a node of the kept lab.
func KeptNamespace(node string) (string, error) {
	path, err := keptSocket()
	if err != nil {
		return "", err
	}
	m := leftover.FindStringSubmatch(filepath.Base(filepath.Dir(path)))
	return nsPrefix + m[1] + "-" + node, nil
}
