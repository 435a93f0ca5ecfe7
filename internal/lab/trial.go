package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/xcarp/xcarp/internal/bench"
	"github.com/xcarp/xcarp/internal/probe"
)

const (
	trialSettle  = 300 * time.Millisecond // of everything flowing, before a watch ends
	trialAtLeast = 800 * time.Millisecond
	trialAtMost  = 9 * time.Second
)

// Trial is one fault to be measured, with its way back.
type Trial struct {
	System System
	Fault  Fault
	Mode   Mode
	Flows  int // other connections
	Order  int

	Progress func(format string, args ...any)
	Gaps     *bench.Gaps             // the prober's own, collected here
	Configs  func(file, text string) // is given fw-a's files
}

// trial is one measurement while it is being made.
type trial struct {
	*Trial
	*pair
	prb     *probe.Prober
	streams *Streams
	rst     *Resets
	ask     *Asker
	opens   *Opener // of a lost daemon
	cut     *Cut
	load    float64

	answers func(from, to time.Duration) Answers
	pause   time.Duration
}

// watch is a stretch of a trial: from a fault, or from its healing, until
// everything flows again.
type watch struct {
	fault       string
	from, after time.Duration // the cause, and when all of it was in place
	end         time.Duration
	echo, push  int64 // what had not been sent at its beginning
	resets      int
	masters     int
	settled     bool
	opened      *bench.Openings
}

// Run builds a lab, runs the system in it, makes the fault, heals it, and takes
// everything down. It returns two runs: the fault and the way back. A run that
// could not be made is returned as such: the benchmark goes on.
func (t *Trial) Run(ctx context.Context) []bench.Run {
	r := &trial{Trial: t, pair: &pair{sys: t.System}, load: loadAverage()}
	watches, err := r.measure(ctx)
	err = errors.Join(err, r.close())
	var runs []bench.Run
	for _, w := range watches {
		runs = append(runs, r.evaluate(w))
	}
	if err != nil && len(runs) < 2 {
		run := r.blank(string(t.Fault))
		if len(runs) == 1 {
			run.Fault = "failback:" + run.Fault
		}
		run.Error = err.Error()
		runs = append(runs, run)
	}
	return runs
}

func (r *trial) blank(fault string) bench.Run {
	return bench.Run{
		System: r.System.Name, Profile: r.System.Profile, Fault: fault, Mode: string(r.Mode), Flows: r.Flows,
		Order: r.Order, Load: r.load, Spans: []bench.Span{},
	}
}

func (r *trial) measure(ctx context.Context) (watches []watch, err error) {
	quiet := func(string, ...any) {}
	if r.pair, err = newPair(ctx, r.System, r.Mode, quiet, nil); err != nil {
		return nil, err
	}
	if r.Configs != nil {
		for _, f := range r.System.Files {
			text, err := os.ReadFile(r.net.A.Dir + "/" + f)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", f, err)
			}
			r.Configs(f, string(text))
		}
	}
	if r.Flows > 0 {
		if err := r.preload(ctx, r.Flows); err != nil {
			return nil, err
		}
	}
	if err := r.traffic(ctx); err != nil {
		return nil, err
	}

	w, err := r.begin(string(r.Fault))
	if err != nil {
		return nil, err
	}
	r.faulty = true
	if w.from, w.after, err = r.cut.Do(ctx); err != nil {
		return nil, err
	}
	if err := r.watch(ctx, &w); err != nil {
		return nil, err
	}
	if r.opens != nil {
		o := r.opens.Check(w.from, w.end)
		w.opened = &o
	}
	want := Backup // where fw-a should be, if that can be asked
	if !r.Fault.effect().moves {
		want = Master
	}
	if r.Fault == Handover || r.Fault == Restart {
		w.settled, _, err = r.await(ctx, 5*time.Second, want, "")
		if err != nil {
			return nil, err
		}
	}
	watches = append(watches, w)

	back, err := r.begin("failback:" + string(r.Fault))
	if err != nil {
		return watches, err
	}
	if r.Fault == Poweroff {
		if err := r.net.A.wipe(ctx); err != nil {
			return watches, err
		}
	}
	back.from = r.net.now()
	if err := errors.Join(r.cut.Undo(ctx), r.restart(ctx, r.Fault)); err != nil {
		return watches, err
	}
	back.after = r.net.now()
	if back.settled, _, err = r.await(ctx, failbackLimit, Master, Backup); err != nil {
		return watches, err
	}
	if err := r.watch(ctx, &back); err != nil {
		return watches, err
	}
	return append(watches, back), nil
}

// traffic starts everything that observes, and makes sure that it flows.
func (r *trial) traffic(ctx context.Context) (err error) {
	if r.rst, err = r.net.WatchResets(); err != nil {
		return err
	}
	if r.cut, err = r.newCut(r.Fault); err != nil {
		return err
	}
	if r.prb, err = r.net.StartProbe(serverAddr, serverAddr6); err != nil {
		return err
	}
	if r.streams, err = r.net.OpenStreams(ctx); err != nil {
		return err
	}
	if r.ask, err = r.net.StartAsker(); err != nil {
		return err
	}
	if r.Fault == Kill9 || r.Fault == Sigstop {
		if r.opens, err = r.net.StartOpener(ctx); err != nil {
			return err
		}
	}
	from := r.net.now()
	// The fault must not always hit the same phase of the pair's timers.
	if err := wait(ctx, baseline+rand.N(300*time.Millisecond)); err != nil {
		return err
	}
	now := r.net.now()
	if !r.prb.AnsweredSince(now - baseline/4) {
		return errors.New("a family of probes was not answered before any fault: the pair does not forward")
	}
	if r.streams.Echo.Got() == 0 || r.streams.Push.Got() == 0 {
		return errors.New("a stream did not start before any fault: the pair does not forward TCP")
	}
	for _, s := range []*Stream{r.streams.Echo, r.streams.Push} {
		r.pause = max(r.pause, MeasureStall(s.Arrivals(), from+100*time.Millisecond, now).Length)
	}
	// On a busy machine the shortest timers lose their roles before any fault.
	ok, why, err := r.await(ctx, readyLimit, Master, Backup)
	if err == nil && !ok {
		err = fmt.Errorf("the pair left its roles before any fault: %s", why)
	}
	return err
}

// begin notes where everything stands.
func (r *trial) begin(fault string) (watch, error) {
	masters, err := r.masters()
	return watch{
		fault: fault, echo: r.streams.Echo.Unsent(), push: r.streams.Push.Unsent(), resets: r.rst.Count(), masters: masters,
	}, err
}

// masters counts how often a router became master, by the logs of both.
func (r *trial) masters() (n int, err error) {
	for _, node := range r.net.Routers() {
		log, err := os.ReadFile(node.LogFile())
		if err != nil {
			return 0, fmt.Errorf("read the log of %s: %w", node.Name, err)
		}
		n += r.System.Masters(log)
	}
	return n, nil
}

// watch waits until everything has flowed for a while, or will not.
func (r *trial) watch(ctx context.Context, w *watch) error {
	// A system that still forwards is watched until its backup has moved, too.
	least := w.after + max(trialAtLeast, r.System.MasterDown+r.System.MasterDown/2+trialSettle)
	most := max(least, w.after+min(trialAtMost, 3*time.Second+3*r.System.MasterDown))
	if err := wait(ctx, least-r.net.now()); err != nil {
		return err
	}
	for r.net.now() < most {
		since := r.net.now()
		echo, push := r.streams.Echo.Unsent(), r.streams.Push.Unsent()
		if err := wait(ctx, trialSettle); err != nil {
			return err
		}
		if r.prb.AnsweredSince(since) && r.streams.Echo.Got() > echo && r.streams.Push.Got() > push {
			break
		}
	}
	w.end = r.net.now() - answerGrace
	w.resets = r.rst.Count() - w.resets
	masters, err := r.masters()
	w.masters = masters - w.masters
	return err
}

// evaluate turns a stretch into a run.
func (r *trial) evaluate(w watch) bench.Run {
	run := r.blank(w.fault)
	rel := func(at time.Duration) float64 { return ms(at - w.from) }
	near := r.prb.Shots(0, w.from-time.Second, w.end)
	gap, rejected := bench.Reject(near, w.from, w.after)
	run.Rejected, run.SenderGapMS = rejected, ms(gap)
	run.FaultTookMS, run.WatchedMS = ms(w.after-w.from), ms(w.end-w.from)
	run.Settled, run.Transitions, run.New = w.settled, w.masters, w.opened

	for i, lane := range []string{"IPv4", "IPv6"} {
		// What was lost just before the fault is the fault's, too: it was under way.
		shots := r.prb.Shots(i, w.from-5*time.Millisecond, w.end)
		loss := probe.Measure(shots, w.end)
		run.Dark = run.Dark || loss.Open
		run.DoubleForwards += loss.Doubled
		run.SlowestMS = max(run.SlowestMS, ms(loss.Slowest))
		if i == 0 {
			run.Sent, run.Lost, run.BlackoutMS = loss.Sent, loss.Lost, ms(loss.Blackout)
		} else {
			run.Lost6, run.Blackout6MS = loss.Lost, ms(loss.Blackout)
		}
		for _, g := range probe.Gaps(shots, w.end) {
			run.Spans = append(run.Spans, bench.Span{Lane: lane, FromMS: rel(g.From), ToMS: rel(g.To), Open: g.Open, Lost: g.Lost, Arrived: g.Arrived})
		}
	}
	run.TCP = bench.RunTCP{Survived: true, PauseMS: ms(r.pause), Resets: w.resets}
	for _, s := range []struct {
		lane   string
		stream *Stream
		unsent int64
		stall  *float64
	}{{"echo", r.streams.Echo, w.echo, &run.TCP.EchoMS}, {"push", r.streams.Push, w.push, &run.TCP.PushMS}} {
		arrivals := s.stream.Arrivals()
		stall := MeasureStall(arrivals, w.from, w.end)
		if early := w.from - 10*streamInterval - stall.From; early > 0 {
			// It was dead before: that is not what this stretch did.
			stall.From, stall.Length = stall.From+early, stall.Length-early
		}
		*s.stall = ms(stall.Length)
		run.TCP.Survived = run.TCP.Survived && Survived(arrivals, s.unsent, w.from, w.end)
		if stall.Length > 2*streamInterval {
			run.Spans = append(run.Spans, bench.Span{Lane: s.lane, FromMS: rel(stall.From), ToMS: rel(stall.From + stall.Length), Open: stall.Open})
		}
	}
	for _, s := range probe.Stalls(near, bench.RejectGap, w.from-bench.RejectWindow, w.end) {
		run.Spans = append(run.Spans, bench.Span{Lane: "rig", FromMS: rel(s.From), ToMS: rel(s.To)})
	}
	if r.answers != nil {
		a := r.answers(w.from, w.end)
		run.Queries, run.DoubleAnswers = a.Queries, a.Double
	}
	return run
}

// close ends what the trial started; the prober's memory stays readable.
func (r *trial) close() error {
	var errs []error
	if r.ask != nil {
		answers, err := r.ask.Stop()
		r.answers, errs = answers, append(errs, err)
	}
	if r.opens != nil {
		r.opens.Close()
	}
	if r.streams != nil {
		r.streams.Close()
	}
	if r.prb != nil {
		errs = append(errs, r.prb.Stop())
		if r.Gaps != nil {
			shots := r.prb.Shots(0, 0, r.net.now())
			for i := 1; i < len(shots); i++ {
				r.Gaps.Add(shots[i].Sent - shots[i-1].Sent)
			}
		}
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
	return errors.Join(errs...)
}

// loadAverage is that of the last minute, -1 if the system does not tell.
func loadAverage() float64 {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return -1
	}
	f := strings.Fields(string(b))
	v, err := strconv.ParseFloat(f[0], 64)
	if err != nil {
		return -1
	}
	return v
}
