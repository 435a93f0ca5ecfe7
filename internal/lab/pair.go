package lab

import (
	"context"
	"fmt"
	"os"
	"time"
)

// pair is a lab with a system in it.
type pair struct {
	net *Net
	sys System

	progress func(format string, args ...any)
	xdpMode  string // as fw-a said last
	faulty   bool   // a fault was made: a daemon may have ended
}

// newPair builds a lab, starts the system, and waits until the pair stands as it
// should. Close its net, also after an error.
func newPair(ctx context.Context, sys System, mode Mode, progress func(string, ...any), prepare func(context.Context, *Net) error) (*pair, error) {
	p := &pair{sys: sys, progress: progress}
	if sys.Check != nil {
		if err := sys.Check(); err != nil {
			return p, err
		}
	}
	progress("building a two-router lab in network namespaces")
	var err error
	if p.net, err = New(ctx, mode); err != nil {
		p.net = nil // it has taken itself down
		return p, err
	}
	if prepare != nil {
		if err := prepare(ctx, p.net); err != nil {
			return p, err
		}
	}
	if err := sys.Prepare(ctx, p.net); err != nil {
		return p, err
	}
	for _, n := range p.net.Routers() {
		if err := sys.Start(ctx, n); err != nil {
			return p, err
		}
	}
	return p, p.settle(ctx)
}

// settle waits until fw-a is master and fw-b backup of all groups, and in sync.
func (p *pair) settle(ctx context.Context) error {
	p.progress("%s: waiting for fw-a MASTER, fw-b BACKUP, in sync", p.sys.Name)
	began := time.Now()
	ok, why, err := p.await(ctx, readyLimit, Master, Backup)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%s: the pair is not ready after %v: %s", p.sys.Name, time.Since(began).Round(time.Millisecond), why)
	}
	return nil
}

// await polls until fw-a has one role in every group and fw-b the other, both
// in sync. An empty role means any. If that is not so in time it says why.
func (p *pair) await(ctx context.Context, limit time.Duration, a, b Role) (ok bool, why string, err error) {
	deadline := time.Now().Add(limit)
	for {
		why = ""
		for _, want := range []struct {
			node *Node
			role Role
		}{{p.net.A, a}, {p.net.B, b}} {
			if want.role == "" {
				continue
			}
			st, err := p.sys.Status(ctx, want.node)
			if err == nil && want.node == p.net.A {
				p.xdpMode = st.XDPMode
			}
			switch {
			case err != nil:
				why = fmt.Sprintf("%v; last line of its log: %s", err, want.node.lastLogLine())
			case !st.all(want.role):
				why = fmt.Sprintf("%s is not %s of all groups: %v", want.node.Name, want.role, st.Groups)
			case a != "" && b != "" && !st.InSync:
				why = fmt.Sprintf("%s is not in sync with its peer", want.node.Name)
			}
			if why != "" {
				break
			}
		}
		if why == "" {
			return true, "", nil
		}
		if time.Now().After(deadline) {
			return false, why, nil
		}
		for _, n := range p.net.Routers() {
			if !n.running() && !p.faulty {
				return false, why, nil // it will not come by itself
			}
		}
		if err := wait(ctx, pollInterval); err != nil {
			return false, why, err
		}
	}
}

// newCut prepares a fault of fw-a.
func (p *pair) newCut(f Fault) (*Cut, error) {
	c, err := p.net.NewCut(f, p.net.A)
	if err != nil {
		return nil, err
	}
	var do, undo func(context.Context, *Node) error
	switch f {
	case Handover:
		do, undo = p.sys.Handover, p.sys.Takeback
	case Restart:
		do, undo = p.sys.Restart, func(context.Context, *Node) error { return nil }
	default:
		return c, nil
	}
	if do == nil {
		return nil, fmt.Errorf("%s knows no %s", p.sys.Name, f)
	}
	c.ask, c.askBack = do, undo
	return c, nil
}

// restart starts fw-a's system again if the fault ended its daemon.
func (p *pair) restart(ctx context.Context, f Fault) error {
	if f == Sigstop || f.effect().signal == 0 {
		return nil
	}
	if err := p.net.A.ended(ctx, 5*time.Second); err != nil {
		return fmt.Errorf("%s: %w", f, err)
	}
	return p.sys.Start(ctx, p.net.A)
}

// lastLogLine is for error messages.
func (n *Node) lastLogLine() string {
	log, err := os.ReadFile(n.LogFile())
	if err != nil {
		return "(none)"
	}
	return lastLine(log)
}
