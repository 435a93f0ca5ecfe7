package carp

import (
	"math/rand/v2"
	"testing"
	"time"
)

// watched is a Watch with a peer that answers, or does not, as a sender thread would
// feed it: it asks on both paths at the Watch's own pace, and judges with every ask
// and whenever Wait says so.
type watched struct {
	*Watch
	now    time.Time
	next   time.Time     // ask
	rtt    time.Duration // of every answer
	took   time.Duration // of every send
	dead   [paths]bool
	unsent [paths]bool
	answer Answer
	due    []due
	last   Finding
}

type due struct {
	path      Path
	asked, at time.Time
	answer    Answer
}

func watch(d Detect) *watched {
	start := BootTime(time.Hour)
	return &watched{Watch: NewWatch(d), now: start, next: start, rtt: 100 * time.Microsecond, answer: Answer{State: Master, Term: 5}}
}

// step goes on to the next thing that happens.
func (w *watched) step() Finding {
	at := w.next
	if t, ok := w.Wait(w.now); ok && t.Before(at) {
		at = t
	}
	w.now = at
	keep := w.due[:0]
	for _, d := range w.due {
		if d.at.After(w.now) {
			keep = append(keep, d)
			continue
		}
		w.Answered(d.path, d.asked, d.at, &d.answer)
	}
	w.due = keep
	w.last = w.Judge(w.now)
	if w.now.Equal(w.next) {
		for p := range paths {
			w.Asked(p, w.now, !w.unsent[p])
			if !w.dead[p] && !w.unsent[p] {
				w.due = append(w.due, due{p, w.now, w.now.Add(w.rtt), w.answer})
			}
		}
		w.Stalled(w.now, w.took)
		pace := w.Pace(w.now)
		if pace == 0 {
			pace = time.Second
		}
		w.next = w.now.Add(pace)
	}
	return w.last
}

// run goes on for a while and returns when a verdict was reached first, after how
// long.
func (w *watched) run(d time.Duration, until Silence) (time.Duration, bool) {
	begin, end := w.now, w.now.Add(d)
	for w.now.Before(end) {
		if w.step().Silence == until {
			return w.now.Sub(begin), true
		}
	}
	return 0, false
}

func (w *watched) must(t *testing.T, d time.Duration, never ...Silence) {
	t.Helper()
	for end := w.now.Add(d); w.now.Before(end); {
		f := w.step()
		for _, s := range never {
			if f.Silence == s {
				t.Fatalf("after %v: %v: %+v", w.now.Sub(BootTime(time.Hour)), s, f)
			}
		}
	}
}

var acting = []Silence{Hung, CutOff, Gone}

func TestWatchTable(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*watched)
		want   Silence
		deaf   bool
		within time.Duration
	}{
		{"all is well", func(*watched) {}, Lives, false, 5 * time.Millisecond},
		{"silent on both", func(w *watched) { w.dead = [paths]bool{true, true} }, Gone, false, 18 * time.Millisecond},
		{"silent on the carpdev", func(w *watched) { w.dead[PathCarpdev] = true }, CutOff, false, 18 * time.Millisecond},
		{"silent on the sync device", func(w *watched) { w.dead[PathSync] = true }, Lives, true, 18 * time.Millisecond},
		{"silent, and the sync device lost its carrier", func(w *watched) {
			w.dead = [paths]bool{true, true}
			w.Carrier(PathSync, w.now, false)
			w.next = w.now // the thread is woken
		}, Gone, false, 5 * time.Millisecond},
		{"the sync device alone lost its carrier", func(w *watched) {
			w.dead[PathSync] = true
			w.Carrier(PathSync, w.now, false)
		}, Lives, true, 5 * time.Millisecond},
		{"its daemon hangs", func(w *watched) { w.answer.Age = 301 * time.Millisecond }, Hung, false, 11 * time.Millisecond},
		{"its daemon was slow", func(w *watched) { w.answer.Age = 299 * time.Millisecond }, Lives, false, 5 * time.Millisecond},
		{"a backup's daemon hangs", func(w *watched) { w.answer = Answer{State: Backup, Age: time.Second} }, Lives, false, 11 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := watch(DetectDefault)
			w.must(t, 100*time.Millisecond, acting...)
			tt.change(w)
			right := func() bool {
				f := w.last
				return f.Silence == tt.want && f.Deaf == tt.deaf && f.Master == (w.answer.State == Master)
			}
			for end := w.now.Add(tt.within); w.now.Before(end) && (!right() || w.now.Equal(end.Add(-tt.within))); {
				w.step()
			}
			if !right() {
				t.Fatalf("got %+v, want %v, deaf %v within %v", w.last, tt.want, tt.deaf, tt.within)
			}
		})
	}
}

// TestWatchLatency is what a crash at any instant costs.
func TestWatchLatency(t *testing.T) {
	for _, tt := range []struct {
		detect    Detect
		mean, max time.Duration
	}{
		{DetectFast, 4100 * time.Microsecond, 4700 * time.Microsecond},
		{DetectDefault, 15100 * time.Microsecond, 17600 * time.Microsecond},
	} {
		var sum, longest time.Duration
		const n = 200
		for i := range n {
			w := watch(tt.detect)
			w.must(t, 50*time.Millisecond, acting...)
			lived := tt.detect.Interval * time.Duration(i) / n
			w.dead = [paths]bool{true, true} // asks from here on
			last := w.next.Add(-tt.detect.Interval)
			if _, ok := w.run(time.Second, Gone); !ok {
				t.Fatal("never noticed")
			}
			took := w.now.Sub(last) - lived
			sum, longest = sum+took, max(longest, took)
		}
		if mean := sum / n; mean > tt.mean || longest > tt.max {
			t.Errorf("%v: mean %v, max %v; want %v, %v", tt.detect, mean, longest, tt.mean, tt.max)
		}
	}
}

func TestWatchSaysNothingWithoutPulses(t *testing.T) {
	never := watch(DetectDefault)
	never.dead = [paths]bool{true, true}
	never.must(t, 200*time.Millisecond, Lives, Hung, CutOff, Gone, Doubt)

	off := watch(DetectOff)
	off.must(t, 3*time.Second, Lives, Hung, CutOff, Gone, Doubt)

	// A peer that never answered on the sync device: a cut LAN looks as a dead peer.
	w := watch(DetectDefault)
	w.dead[PathSync] = true
	w.must(t, 100*time.Millisecond, acting...)
	w.dead[PathCarpdev] = true
	w.must(t, 200*time.Millisecond, acting...)
}

func TestWatchAccusesOnlyByWhatWasSent(t *testing.T) {
	w := watch(DetectDefault)
	w.must(t, 100*time.Millisecond, acting...)
	w.unsent = [paths]bool{true, true}
	w.must(t, time.Second, acting...)
}

// TestWatchLate is a node that was stopped: the answers wait in a queue.
func TestWatchLate(t *testing.T) {
	w := watch(DetectFast)
	w.must(t, 100*time.Millisecond, acting...)
	w.dead = [paths]bool{true, true}
	w.must(t, 3*time.Millisecond, acting...)
	w.now = w.now.Add(50 * time.Millisecond) // stopped
	w.next = w.now
	w.Late()
	w.dead = [paths]bool{}
	w.must(t, 100*time.Millisecond, acting...)
	w.dead = [paths]bool{true, true}
	if took, ok := w.run(time.Second, Gone); !ok || took > 5*time.Millisecond {
		t.Fatalf("after that: %v, %v", took, ok)
	}
}

// TestWatchSlowSoftirq is a peer whose answers take longer than the profile allows.
func TestWatchSlowSoftirq(t *testing.T) {
	w := watch(DetectFast)
	w.must(t, 100*time.Millisecond, acting...)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 3000 {
		w.rtt = 100*time.Microsecond + time.Duration(i)*time.Microsecond // slowly slower
		w.rtt += time.Duration(r.Int64N(1e6))
		if f := w.step(); f.Silence == Gone || f.Silence == CutOff {
			t.Fatalf("answer after %v: %+v", w.rtt, f)
		}
	}
	if limit := w.Limit(PathCarpdev, w.now); limit < 6*time.Millisecond {
		t.Errorf("limit %v after answers of %v", limit, w.rtt)
	}
	w.dead = [paths]bool{true, true}
	if _, ok := w.run(50*time.Millisecond, Gone); !ok {
		t.Error("a dead peer is not noticed any more")
	}
}

// TestWatchStepsBack after two takeovers from a peer that lived.
func TestWatchStepsBack(t *testing.T) {
	w := watch(DetectFast)
	wrongly := func() {
		t.Helper()
		w.must(t, 50*time.Millisecond, acting...)
		w.dead = [paths]bool{true, true}
		if _, ok := w.run(time.Second, Gone); !ok {
			t.Fatal("not noticed")
		}
		w.TookOver(w.now)
		w.dead = [paths]bool{}
		w.run(time.Second, Lives)
	}
	for i, want := range []Detect{DetectFast, DetectDefault, DetectDefault, DetectOff} {
		wrongly()
		w.must(t, 50*time.Millisecond, acting...)
		if w.Detect() != want {
			t.Fatalf("after %d errors: got %v, want %v", i+1, w.Detect(), want)
		}
	}
	w.dead = [paths]bool{true, true}
	w.must(t, time.Second, acting...)
	w.dead = [paths]bool{}
	w.must(t, regretMemory, acting...)
	if w.Detect() != DetectFast {
		t.Errorf("after a quiet time: got %v", w.Detect())
	}

	right := watch(DetectFast)
	for range 3 {
		right.must(t, 50*time.Millisecond, acting...)
		right.dead = [paths]bool{true, true}
		right.run(time.Second, Gone)
		right.TookOver(right.now)
		right.must(t, regretTime)
		right.dead = [paths]bool{}
		right.run(time.Second, Lives)
	}
	if right.must(t, 50*time.Millisecond); right.Detect() != DetectFast {
		t.Error("takeovers from a dead peer cost a step")
	}
}

func TestReflections(t *testing.T) {
	var r reflections
	for _, d := range []time.Duration{0, time.Microsecond, 7 * time.Microsecond, 99 * time.Microsecond, 5 * time.Millisecond, time.Hour} {
		if i := bucket(d); d < 60*time.Millisecond && (most(i) <= d || i > 0 && most(i-1) > d) {
			t.Errorf("%v is in the bucket of %v to %v", d, most(max(i-1, 0)), most(i))
		}
	}
	r.add(50 * time.Microsecond)
	if s := r.slowest(); s < 50*time.Microsecond || s > 60*time.Microsecond {
		t.Errorf("of one: %v", s)
	}
	for range 3000 {
		r.add(100 * time.Microsecond)
	}
	r.add(10 * time.Millisecond)
	if s := r.slowest(); s > 120*time.Microsecond {
		t.Errorf("one slow answer of 3000: %v", s)
	}
	for range 10000 {
		r.add(time.Millisecond)
	}
	if s := r.slowest(); s < time.Millisecond || s > 1300*time.Microsecond {
		t.Errorf("after a change: %v", s)
	}
}

// TestWatchBearsWithABusyDaemon: two claims from a daemon that goes on at once are two
// too many; one that stays away is claimed from as ever, and so is one whose lease ends.
func TestWatchBearsWithABusyDaemon(t *testing.T) {
	w := watch(DetectDefault)
	claim := func(age, away, lease time.Duration) {
		t.Helper()
		w.answer = Answer{State: Master, Age: age, Lease: lease}
		if _, ok := w.run(time.Second, Hung); !ok {
			t.Fatalf("with a sign of life %v ago the verdict is %v", age, w.last.Silence)
		}
		w.Claimed(w.now)
		w.answer = Answer{State: Backup, Age: age + away}
		w.run(away, Gone)
		w.answer = Answer{State: Backup}
		w.run(100*time.Millisecond, Gone)
	}
	const soon, lease = 50 * time.Millisecond, 2 * time.Second
	w.run(100*time.Millisecond, Gone)
	claim(301*time.Millisecond, regretTime, lease)
	claim(301*time.Millisecond, regretTime, lease)
	claim(301*time.Millisecond, soon, lease)
	claim(301*time.Millisecond, soon, lease)
	w.answer = Answer{State: Master, Age: 600 * time.Millisecond, Lease: lease}
	w.must(t, time.Second, Hung)
	if w.last.Silence != Lives {
		t.Errorf("with a sign of life 600 ms ago the verdict is %v", w.last.Silence)
	}
	claim(601*time.Millisecond, soon, lease)
	claim(301*time.Millisecond, soon, 600*time.Millisecond)
	if w.Regrets() != 4 {
		t.Errorf("%d regrets, want 4", w.Regrets())
	}
	w.answer = Answer{State: Master}
	w.must(t, regretMemory, Hung)
	if w.Regrets() != 0 {
		t.Errorf("%d regrets after a while without", w.Regrets())
	}
	claim(301*time.Millisecond, soon, lease)
}

// TestWatchBearsWithADaemonInAFlood: slow reflection shows that the peer's CPUs are busy,
// slow sends that ours are.
func TestWatchBearsWithADaemonInAFlood(t *testing.T) {
	for name, flood := range map[string]func(*watched){
		"there": func(w *watched) { w.rtt = 2 * time.Millisecond },
		"here":  func(w *watched) { w.Slow(20 * time.Millisecond) },
	} {
		w := watch(DetectDefault)
		flood(w)
		w.run(time.Second, Gone)
		w.answer = Answer{State: Master, Age: 600 * time.Millisecond, Lease: 2 * time.Second}
		w.must(t, time.Second, Hung)
		w.answer.Age++
		if _, ok := w.run(time.Second, Hung); !ok {
			t.Errorf("%s: after 600 ms without a sign of life the verdict is %v", name, w.last.Silence)
		}
	}
}

// TestWatchThatSleptAsksAgain: what stopped this node may have stopped the daemon of the
// peer as well, for as long.
func TestWatchThatSleptAsksAgain(t *testing.T) {
	w := watch(DetectDefault)
	w.run(100*time.Millisecond, Gone)
	w.answer.Age = 301 * time.Millisecond
	for len(w.due) == 0 || w.due[0].answer.Age == 0 {
		w.step()
	}
	w.now = w.now.Add(200 * time.Millisecond)
	w.next = w.now.Add(DetectDefault.Interval)
	w.Late()
	w.Slept(w.now)
	asked := w.next
	w.answer.Age = 0
	for w.now.Before(asked.Add(w.rtt)) {
		if f := w.step(); f.Silence == Hung {
			t.Fatalf("an answer from before is believed: %+v", f)
		}
	}
	w.answer.Age = 301 * time.Millisecond
	if took, ok := w.run(time.Second, Hung); !ok || took > 3*DetectDefault.Interval {
		t.Errorf("one that hangs is found out after %v, %v", took, ok)
	}
}

// TestWatchUnheard is what makes two nodes find out who is cut off, long before a verdict.
func TestWatchUnheard(t *testing.T) {
	w := watch(DetectDefault)
	for end := w.now.Add(100 * time.Millisecond); w.now.Before(end); {
		if f := w.step(); f.Unheard {
			t.Fatalf("unheard: %+v", f)
		}
	}
	first := w.next
	w.dead[PathCarpdev] = true
	for !w.step().Unheard {
	}
	if took := w.now.Sub(first); took != DetectDefault.Interval*5/4 {
		t.Errorf("unheard %v after the first ask in vain: %+v", took, w.last)
	}
	w.dead[PathCarpdev] = false
	w.must(t, 20*time.Millisecond, acting...)
	if w.last.Unheard {
		t.Errorf("answered: %+v", w.last)
	}
}

// TestWatchSlowSends is a node that does other work whenever it sends: it asks less often,
// and believes nothing until then.
func TestWatchSlowSends(t *testing.T) {
	w := watch(DetectDefault)
	w.must(t, 100*time.Millisecond, acting...)
	w.dead = [paths]bool{true, true}
	w.took = 2 * time.Millisecond
	w.must(t, time.Second, acting...)
	w.Slow(100 * time.Millisecond)
	if took, ok := w.run(time.Second, Gone); !ok {
		t.Errorf("slowed: %v, %v", took, ok)
	}
}

// TestWatchLateKeepsTheVerdict is a node that is stopped again and again: what it has
// found out before is not undone by that, and nothing follows from it either.
func TestWatchLateKeepsTheVerdict(t *testing.T) {
	w := watch(DetectDefault)
	w.must(t, 100*time.Millisecond, acting...)
	w.dead[PathCarpdev] = true
	if _, ok := w.run(100*time.Millisecond, CutOff); !ok {
		t.Fatal("never cut off")
	}
	w.Late()
	if f := w.Judge(w.now); f.Silence != CutOff || !f.Stale {
		t.Errorf("late: got %+v, want cut off, stale", f)
	}
	w.must(t, 100*time.Millisecond, Lives, Gone)
	if w.last.Stale {
		t.Errorf("after new asks: %+v", w.last)
	}
	w.dead[PathCarpdev] = false
	if _, ok := w.run(20*time.Millisecond, Lives); !ok {
		t.Errorf("after answers: %+v", w.last)
	}
}

// TestWatchChangesItsPace is a node that could not ask for a while: what was sent
// before that is not all that a verdict rests on.
func TestWatchChangesItsPace(t *testing.T) {
	w := watch(DetectDefault)
	w.must(t, 100*time.Millisecond, acting...)
	w.Slow(600 * time.Millisecond)
	w.must(t, 3*time.Second, acting...)
	w.dead = [paths]bool{true, true}
	for w.Judge(w.now).Missed < 2 {
		w.step()
	}
	w.Slow(0)
	w.next = w.now
	w.step() // the third ask
	if f := w.Judge(w.now); f.Missed != 3 || f.Silence != Lives {
		t.Errorf("with the third ask: %+v, want lives", f)
	}
	if took, ok := w.run(100*time.Millisecond, Gone); !ok || took > DetectDefault.Interval {
		t.Errorf("after that: %v, %v", took, ok)
	}
}

// TestWatchSlowed is a node that cannot ask as often as it should.
func TestWatchSlowed(t *testing.T) {
	w := watch(DetectDefault)
	w.must(t, 100*time.Millisecond, acting...)
	w.Slow(60 * time.Millisecond)
	if pace, slowed := w.Pace(w.now), w.Slowed(); pace != 60*time.Millisecond || slowed != pace {
		t.Errorf("pace %v, slowed to %v", pace, slowed)
	}
	w.must(t, time.Second, acting...)
	w.dead = [paths]bool{true, true}
	took, ok := w.run(time.Second, Gone)
	if !ok || took < 2*60*time.Millisecond || took > 4*60*time.Millisecond {
		t.Errorf("noticed after %v, %v", took, ok)
	}
	w.dead = [paths]bool{}
	w.Hurry(w.now)
	if pace := w.Pace(w.now); pace != 60*time.Millisecond {
		t.Errorf("in a hurry: %v", pace)
	}
	if w.Slow(0); w.Slowed() != 0 || w.Pace(w.now) != time.Millisecond {
		t.Errorf("no more: pace %v, slowed to %v", w.Pace(w.now), w.Slowed())
	}
}
