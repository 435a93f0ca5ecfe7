package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/xcarp/xcarp/internal/probe"
)

const (
	readyLimit     = 20 * time.Second // for a pair to find its roles
	baseline       = time.Second      // of undisturbed traffic before the fault
	observeAtLeast = 1500 * time.Millisecond
	restartDelay   = 300 * time.Millisecond // as RestartSec of a unit would have it
	failbackLimit  = 12 * time.Second
	failbackBytes  = 50e6                   // that pass the backup before the failback
	answerGrace    = 250 * time.Millisecond // a younger probe is neither answered nor lost yet
	pollInterval   = 100 * time.Millisecond // of `show`
)

// Options say how to measure.
type Options struct {
	Fault     Fault
	Rate      float64 // of the download, bytes per second; 0: DefaultRate
	Sync      bool    // what the system was made with; reported
	NoRestart bool    // kill9: nobody restarts the daemon

	// Progress is told what is being done. Optional.
	Progress func(format string, args ...any)
	// Hold is called when the measurement is done, or failed with an error, while
	// the lab still stands. Optional.
	Hold func(context.Context, *Net, error)

	prepare func(context.Context, *Net) error // tests change the lab here
}

// run is one measurement while it is being made.
type run struct {
	Options
	*pair
	dl    *Download
	prb   *probe.Prober
	rst   *Resets
	flows *Flows
	cut   *Cut
	res   Result

	fault, faultDone, healed time.Duration
}

// Measure builds a lab, runs the system in it, makes the fault, heals it, and
// takes everything down again, also when it fails or the context ends.
func Measure(ctx context.Context, sys System, opt Options) (res Result, err error) {
	if opt.Rate <= 0 {
		opt.Rate = DefaultRate
	}
	if opt.Progress == nil {
		opt.Progress = func(string, ...any) {}
	}
	start := time.Now()
	r := &run{Options: opt, pair: &pair{sys: sys}, res: Result{
		System: sys.Name, Fault: opt.Fault, Mode: "nat", Sync: opt.Sync,
		Peers: []Result{}, Transitions: []Transition{},
	}}
	defer func() {
		err = errors.Join(err, r.close())
		res = r.res
		res.TookMS = ms(time.Since(start))
	}()
	for _, step := range []func(context.Context) error{
		r.build, r.load, r.cutOff, r.observe, r.heal, r.finish,
	} {
		if err = step(ctx); err != nil {
			break
		}
	}
	if opt.Hold != nil && r.net != nil && ctx.Err() == nil {
		opt.Hold(ctx, r.net, err)
	}
	return r.res, err
}

// build makes the lab and waits until the pair stands as it should.
func (r *run) build(ctx context.Context) (err error) {
	r.pair, err = newPair(ctx, r.sys, NAT, r.Progress, r.prepare)
	r.res.XDPMode = r.xdpMode
	return err
}

// load starts the traffic and makes sure that it flows.
func (r *run) load(ctx context.Context) (err error) {
	r.Progress("download through %s at %.0f MB/s, a probe each %v", SharedLAN, r.Rate/1e6, probe.Interval)
	if r.rst, err = r.net.WatchResets(); err != nil {
		return err
	}
	if r.cut, err = r.newCut(r.Fault); err != nil {
		return err
	}
	if r.prb, err = r.net.StartProbe(serverAddr); err != nil {
		return err
	}
	if r.dl, err = r.net.StartDownload(ctx, r.Rate, rand.Uint64()); err != nil {
		return err
	}
	from := r.net.now()
	// The fault must not always hit the same phase of the pair's timers.
	if err := wait(ctx, baseline+rand.N(500*time.Millisecond)); err != nil {
		return err
	}
	if !r.prb.AnsweredSince(from) {
		return errors.New("no probe was answered before any fault: the pair does not forward")
	}
	if r.dl.Got() == 0 {
		return errors.New("the download did not start before any fault: the pair does not forward TCP")
	}
	ok, why, err := r.await(ctx, 0, Master, Backup)
	if err == nil && !ok {
		err = fmt.Errorf("the pair left its roles before any fault: %s", why)
	}
	return err
}

// cutOff makes the fault.
func (r *run) cutOff(ctx context.Context) (err error) {
	r.Progress("fault: %s of fw-a", r.Fault)
	r.faulty = true
	r.fault, r.faultDone, err = r.cut.Do(ctx)
	r.res.FaultTookMS = ms(r.faultDone - r.fault)
	return err
}

// until waits until ok holds or the instant has come, and reports whether it
// held.
func (r *run) until(ctx context.Context, at time.Duration, ok func() bool) (bool, error) {
	for !ok() {
		if r.net.now() >= at {
			return false, nil
		}
		if err := wait(ctx, 5*time.Millisecond); err != nil {
			return false, err
		}
	}
	return true, nil
}

// observe watches the cut pair and takes the figures that must be taken before
// anything is healed.
func (r *run) observe(ctx context.Context) error {
	moves := r.Fault.effect().moves
	if r.Fault == Kill9 {
		if r.NoRestart {
			moves = true
		} else {
			if err := wait(ctx, restartDelay); err != nil {
				return err
			}
			if err := r.restart(ctx, r.Fault); err != nil {
				return err
			}
		}
	}
	limit := r.fault + SurvivalLimit - time.Second
	if moves {
		ok, _, err := r.await(ctx, limit-r.net.now(), "", Master)
		if err != nil {
			return err
		}
		if ok {
			r.res.MovedMS = ms(r.net.now() - r.fault)
		}
	}
	if err := wait(ctx, r.fault+observeAtLeast-r.net.now()); err != nil {
		return err
	}
	since := r.net.now()
	path, err := r.until(ctx, limit, func() bool { return r.prb.AnsweredSince(since) })
	if err != nil {
		return err
	}
	// What the server sends from here on has to find the way that is left.
	unsent, settled := r.dl.Unsent(), r.dl.Got()
	if _, err := r.until(ctx, r.fault+SurvivalLimit, func() bool { return r.dl.Got() > unsent }); err != nil {
		return err
	}
	if path {
		if r.flows, err = r.net.OpenFlows(ctx); err != nil {
			return err
		}
		r.res.Failback.FlowsTried, r.res.Failback.FlowsOpened = r.flows.Tried, r.flows.Opened
	}
	if r.res.Masters, err = r.net.Masters(ctx); err != nil {
		return err
	}
	r.res.MastersAfter = r.res.Masters.Count()

	end := r.net.now() - answerGrace
	arrivals := r.dl.Arrivals()
	r.res.TCP.Resumed = Survived(arrivals, unsent, r.fault, end)
	stall := MeasureStall(arrivals, r.fault, end)
	r.res.TCP.StallMS, r.res.TCP.StallFromMS = ms(stall.Length), ms(stall.From-r.fault)
	loss := probe.Measure(r.prb.Shots(0, r.fault-baseline/2, end), end)
	r.res.ProbesSent, r.res.ProbesLost = loss.Sent, loss.Lost
	r.res.BlackoutMS, r.res.PathRecovered = ms(loss.Blackout), !loss.Open
	// A stall far from the blackout's edges does not change it.
	near := r.prb.Shots(0, r.fault-answerGrace, max(r.fault, loss.From+loss.Blackout)+answerGrace)
	r.res.RigStallMS = ms(probe.Measure(near, end).RigStall)
	if loss.Blackout > 0 {
		r.res.BlackoutFromMS = ms(loss.From - r.fault)
	}
	if r.res.TCP.Resumed {
		enough := settled + min(failbackBytes, int64(r.Rate*5))
		if _, err := r.until(ctx, r.net.now()+6*time.Second, func() bool { return r.dl.Got() >= enough }); err != nil {
			return err
		}
		r.res.Failback.BytesBefore = r.dl.Got() - settled
	}
	return nil
}

// mend undoes the fault, but for a daemon that has ended.
func (r *run) mend(ctx context.Context) error {
	if r.Fault == Poweroff {
		if err := r.net.A.wipe(ctx); err != nil {
			return err
		}
	}
	r.healed = r.net.now()
	return r.cut.Undo(ctx)
}

// heal undoes the fault and watches the way back.
func (r *run) heal(ctx context.Context) error {
	r.Progress("healing, waiting for the failback")
	if err := r.mend(ctx); err != nil {
		return err
	}
	if r.Fault != Kill9 || r.NoRestart {
		if err := r.restart(ctx, r.Fault); err != nil {
			return err
		}
	}
	f := &r.res.Failback
	var err error
	if f.Done, _, err = r.await(ctx, failbackLimit, Master, Backup); err != nil {
		return err
	}
	f.TookMS = ms(r.net.now() - r.healed)
	if r.res.TCP.Resumed {
		unsent := r.dl.Unsent()
		if f.TCPAlive, err = r.until(ctx, r.net.now()+5*time.Second, func() bool { return r.dl.Got() > unsent }); err != nil {
			return err
		}
	}
	if r.flows != nil && r.flows.Opened > 0 {
		f.FlowsAlive = r.flows.Check()
	}
	if err := wait(ctx, 2*answerGrace); err != nil {
		return err
	}
	end := r.net.now() - answerGrace
	loss := probe.Measure(r.prb.Shots(0, r.healed, end), end)
	f.BlackoutMS, f.ProbesSent, f.ProbesLost = ms(loss.Blackout), loss.Sent, loss.Lost
	return nil
}

// finish ends the transfer and reads the logs.
func (r *run) finish(context.Context) error {
	t := &r.res.TCP
	t.Resets = r.rst.Count() // before the ends are closed by force
	limit := 5 * time.Second
	if !t.Resumed {
		limit = time.Second
	}
	t.Intact = r.dl.Stop(limit)
	t.Bytes, t.LostBytes = r.dl.Got(), r.dl.sent.Load()-r.dl.Got()
	t.Survived = t.Resumed && t.Intact
	r.dl = nil
	if r.sys.Transitions == nil {
		return nil
	}
	fault := r.net.epoch.Add(r.fault)
	for _, n := range r.net.Routers() {
		ts, err := r.sys.Transitions(n)
		if err != nil {
			return err
		}
		for _, t := range ts {
			if t.at.IsZero() {
				continue // cannot be placed
			}
			if t.AtMS = ms(t.at.Sub(fault)); t.AtMS >= -1 {
				r.res.Transitions = append(r.res.Transitions, t)
			}
		}
	}
	slices.SortStableFunc(r.res.Transitions, func(a, b Transition) int { return cmp.Compare(a.AtMS, b.AtMS) })
	return nil
}

// close ends what the run started. It can be called more than once.
func (r *run) close() error {
	var errs []error
	if r.dl != nil {
		r.dl.Stop(0)
	}
	if r.flows != nil {
		r.flows.Close()
	}
	if r.prb != nil {
		errs = append(errs, r.prb.Stop())
	}
	if r.rst != nil {
		r.rst.Close()
	}
	if r.cut != nil {
		errs = append(errs, r.cut.Close())
	}
	if r.net != nil {
		errs = append(errs, r.net.Close())
	}
	r.dl, r.flows, r.prb, r.rst, r.cut, r.net = nil, nil, nil, nil, nil, nil
	return errors.Join(errs...)
}
