package carp

import (
	"fmt"
	"slices"
	"time"
)

// Detect is how closely a peer is watched: asked every Interval, and silent after
// Count asks without an answer. The zero value does not watch.
type Detect struct {
	Interval time.Duration
	Count    int
}

// The profiles, the closest first.
var (
	DetectFast    = Detect{time.Millisecond, 4}
	DetectDefault = Detect{5 * time.Millisecond, 3}
	DetectOff     = Detect{}
)

// detectCut is how the carpdev is looked at for a moment when the sync device has lost
// its carrier: a peer without power explains both.
var detectCut = Detect{time.Millisecond, 3}

// limit is the least time between the first of Count unanswered asks and the
// verdict: the last one has had a quarter of an interval, and the first one much more.
func (d Detect) limit() time.Duration {
	return time.Duration(d.Count-1)*d.Interval + d.Interval/4
}

// back is the profile that puts up with more.
func (d Detect) back() Detect {
	if d.Interval != 0 && d.Interval < DetectDefault.Interval {
		return DetectDefault
	}
	return DetectOff
}

const (
	// hungAfter is how old the last sign of life of a daemon may be: it gives one
	// every 100 ms. hungBusy is that after two errors, see revived, and where a flood
	// makes sending slow here, or reflection slower than slowReflection.
	hungAfter = 300 * time.Millisecond
	hungBusy  = 600 * time.Millisecond

	slowReflection = time.Millisecond

	// hurryTime is for how long evidence of another kind makes us ask as fast as
	// we can.
	hurryTime = 100 * time.Millisecond

	// regretTime is how soon after a takeover an answer of the old master shows
	// that it had been alive; two such errors within regretMemory cost a step.
	regretTime   = time.Second
	regretMemory = 10 * time.Minute

	// slowFactor is how many times the slowest usual reflection an ask may take.
	slowFactor = 2
)

// Path is a way on which a peer is asked.
type Path uint8

// The paths to a peer.
const (
	PathCarpdev Path = iota // of the group
	PathSync
	paths
)

// String returns the word for it.
func (p Path) String() string {
	switch p {
	case PathCarpdev:
		return "carpdev"
	case PathSync:
		return "sync"
	}
	return fmt.Sprintf("Path(%d)", uint8(p))
}

// Answer is what a peer's dataplane says about a group.
type Answer struct {
	State     State
	Demotion  uint8
	Age       time.Duration // of its daemon's last sign of life
	Term      uint64
	Lease     time.Duration // what is left of it
	Challenge uint32        // to be shown by a claim
}

// Silence is what the answers of a peer, and their absence, mean.
type Silence uint8

// What they can mean.
const (
	Unwatched Silence = iota // no pulses: the timers of CARP alone
	Lives                    // it answers on the carpdev
	Doubt                    // silent on the carpdev; the sync device will tell
	Hung                     // its dataplane answers, its daemon is gone or hangs
	CutOff                   // silent on the carpdev, alive on the sync device
	Gone                     // silent on both
)

// String returns words for it.
func (s Silence) String() string {
	switch s {
	case Unwatched:
		return "unwatched"
	case Lives:
		return "lives"
	case Doubt:
		return "in doubt"
	case Hung:
		return "hung"
	case CutOff:
		return "cut off"
	case Gone:
		return "gone"
	}
	return fmt.Sprintf("Silence(%d)", uint8(s))
}

// Finding is the verdict of a Watch, and what it rests on.
type Finding struct {
	Silence
	Master  bool          // the peer last answered that it is MASTER
	Deaf    bool          // alive on the carpdev, silent on the sync device
	Heard   time.Time     // the last answer on any path
	Limit   time.Duration // that was applied
	Missed  int           // asks without an answer, on the carpdev
	Carrier bool          // the sync device has lost its carrier
	Stale   bool          // the verdict is an earlier one: see Late
	Unheard bool          // two asks on the carpdev have had their time: see who is cut off
}

// Watch reads the silence of one peer about one group. It is as pure as Machine:
// facts come in with their time, Judge says what they mean.
//
//	carpdev  sync              verdict
//	-------+-----------------+--------
//	answers answers           Lives; Hung if the daemon gave no sign of life
//	answers silent            Lives, and Deaf: an alarm, no transition
//	silent  silent            Gone
//	silent  carrier lost      Gone, and asked faster from then on
//	silent  answers           CutOff: somebody has to find out who of the two
//	never   any               Unwatched
//	silent  never             Unwatched: nobody can tell a dead peer from a cut LAN
//
// An ask accuses only if it was sent, and if nobody was late: see Late.
type Watch struct {
	config Detect
	now    Detect // after what was learnt
	wrong  []time.Time
	path   [paths]watchPath

	last     Answer
	lastAt   time.Time
	lastAsk  time.Time     // to which it is the answer
	slept    time.Time     // until then, last; see Slept
	verdict  Silence       // while nothing is heard on the carpdev
	slowed   time.Duration // see Slow
	tookOver time.Time     // by silence; zero if it is settled who was right
	claimed  time.Time     // from a hung daemon; the same
	hasty    []time.Time   // claims from a daemon that gave a sign of life soon after
	hurry    time.Time     // until then
}

// NewWatch returns a Watch that has heard nothing yet.
func NewWatch(d Detect) *Watch { return &Watch{config: d, now: d} }

// Detect returns the profile that holds now.
func (w *Watch) Detect() Detect { return w.now }

// Configured returns the one that NewWatch was given.
func (w *Watch) Configured() Detect { return w.config }

// Last returns the newest answer about the group, and when it came.
func (w *Watch) Last() (Answer, time.Time) { return w.last, w.lastAt }

// Asked tells that the peer was asked on a path, whatever about. sent is false if
// the ask did not leave: that accuses nobody.
func (w *Watch) Asked(p Path, now time.Time, sent bool) {
	if sent && !w.path[p].down {
		w.path[p].asked(now)
	}
}

// Answered tells of a genuine answer: which ask it was to, by the time of that, and
// when it came. a is nil if it was about another group of the same devices.
func (w *Watch) Answered(p Path, asked, at time.Time, a *Answer) {
	if a != nil && at.After(w.lastAt) {
		w.last, w.lastAt, w.lastAsk = *a, at, asked
		w.revived(a, at)
	}
	if !w.path[p].answered(asked, at) {
		return
	}
	if p == PathCarpdev {
		w.verdict = Unwatched
	}
	if !w.tookOver.IsZero() && at.After(w.tookOver) {
		if at.Sub(w.tookOver) < regretTime {
			w.regret(at)
		}
		w.tookOver = time.Time{}
	}
}

// Late tells that this node overslept: answers may wait in a queue, and none of the
// asks that are out accuses anybody. A peer that was silent before is not heard by that:
// the verdict stays, marked as Stale, until new asks confirm it or one is answered.
func (w *Watch) Late() {
	for i := range w.path {
		w.path[i].n = 0
	}
}

// Slept tells that this node did nothing for a good part of what a daemon may be without
// a sign of life, until now. What stopped it may have stopped the peer: what that answered
// to earlier asks does not show that its daemon hangs.
func (w *Watch) Slept(now time.Time) { w.slept = now }

// Stalled tells that sending something, to whomever, took so long. If that is much of
// an interval this node is late: what held it up may hold up answers as well.
func (w *Watch) Stalled(now time.Time, took time.Duration) {
	if took > w.detect(now).Interval/4 {
		w.Late()
	}
}

// Carrier tells whether the device of a path can carry frames. A sync device that
// loses its carrier is silent, and a reason to look at the carpdev at once.
func (w *Watch) Carrier(p Path, now time.Time, up bool) {
	q := &w.path[p]
	if q.down == !up {
		return
	}
	q.down, q.n = !up, 0
	if p == PathSync && !up {
		w.Hurry(now)
	}
}

// Hurry makes the Watch ask as fast as it can for a moment: other evidence says that
// something has happened.
func (w *Watch) Hurry(now time.Time) {
	if w.now != DetectOff {
		w.hurry = now.Add(hurryTime)
	}
}

// Slow tells that this node cannot ask more often than every so often, whatever the
// profile says; 0: it can. Silence takes as much longer to show.
func (w *Watch) Slow(interval time.Duration) { w.slowed = interval }

// Slowed returns what Slow was told, if that is slower than the profile; else 0.
func (w *Watch) Slowed() time.Duration {
	if w.now == DetectOff || w.slowed <= w.now.Interval {
		return 0
	}
	return w.slowed
}

// Pace returns how often to ask now; 0: not at all.
func (w *Watch) Pace(now time.Time) time.Duration {
	pace := w.now.Interval
	if now.Before(w.hurry) {
		pace = DetectFast.Interval
	}
	if pace == 0 {
		return 0
	}
	return max(pace, w.slowed)
}

// Claimed tells that the peer has acknowledged a claim, made because Judge called it
// hung.
func (w *Watch) Claimed(now time.Time) { w.claimed = now }

// revived looks whether a daemon that was claimed from hung for a moment only: then it
// was busy. After two such errors its signs of life may be older.
func (w *Watch) revived(a *Answer, at time.Time) {
	switch {
	case w.claimed.IsZero():
	case at.Sub(w.claimed) >= regretTime:
		w.claimed = time.Time{}
	case a.Age <= hungAfter && at.After(w.claimed):
		w.claimed = time.Time{}
		w.hasty = append(slices.DeleteFunc(w.hasty, func(t time.Time) bool { return at.Sub(t) > regretMemory }), at)
	}
}

// hung reports whether the peer's daemon has given no sign of life for too long. One that
// is known to be busy is waited for, but not until its lease is over: then it is too late
// to claim.
func (w *Watch) hung() bool {
	if w.lastAsk.Before(w.slept) {
		return false
	}
	busy := len(w.hasty) >= 2 || w.Slowed() > 0 || w.Slowest(PathCarpdev) > slowReflection
	if busy && w.last.Lease > hungBusy {
		return w.last.Age > hungBusy
	}
	return w.last.Age > hungAfter
}

// Heard returns when the peer last answered on a path, whatever about.
func (w *Watch) Heard(p Path) time.Time { return w.path[p].heard }

// TookOver tells that this node took over because of what the Watch said.
func (w *Watch) TookOver(now time.Time) { w.tookOver = now }

// regret notes a takeover from a peer that lived. The second one means that the
// profile is too close for this network or these machines.
func (w *Watch) regret(now time.Time) {
	if len(w.wrong) > 0 && now.Sub(w.wrong[len(w.wrong)-1]) > regretMemory {
		w.wrong = w.wrong[:0]
	}
	w.wrong = append(w.wrong, now)
	if len(w.wrong)%2 == 0 {
		w.now = w.now.back()
	}
}

// Regrets returns how many takeovers and claims there were lately from a peer that lived.
func (w *Watch) Regrets() int { return len(w.wrong) + len(w.hasty) }

// forgive goes back to the configured profile after a long time without an error.
func (w *Watch) forgive(now time.Time) {
	if n := len(w.wrong); n > 0 && now.Sub(w.wrong[n-1]) > regretMemory {
		w.wrong, w.now = nil, w.config
	}
	if n := len(w.hasty); n > 0 && now.Sub(w.hasty[n-1]) > regretMemory {
		w.hasty = nil
	}
}

// detect is the profile for the moment, for a path.
func (w *Watch) detect(now time.Time) Detect {
	d := w.now
	switch {
	case d == DetectOff:
		return d
	case now.Before(w.hurry) && w.path[PathSync].down:
		d = detectCut
	case now.Before(w.hurry) && d.Interval > DetectFast.Interval:
		d = DetectFast
	}
	d.Interval = max(d.Interval, w.slowed)
	return d
}

// Limit returns how long asks on a path may stay unanswered now: what the profile
// says, or longer where reflection is slow.
func (w *Watch) Limit(p Path, now time.Time) time.Duration {
	return max(w.detect(now).limit(), slowFactor*w.path[p].rtt.slowest())
}

// silent reports whether the peer is silent on a path: enough asks are out, for long
// enough.
func (w *Watch) silent(p Path, now time.Time) bool {
	at, ok := w.silentAt(p, now)
	return ok && !now.Before(at)
}

// silentAt returns when it will be, if none of the asks that are out is answered, and
// whether they are enough. The last of them has had a quarter of an interval by then,
// also if the first ones were sent at another pace.
func (w *Watch) silentAt(p Path, now time.Time) (time.Time, bool) {
	q, d := &w.path[p], w.detect(now)
	if d.Count == 0 || q.n < d.Count {
		return time.Time{}, false
	}
	at := q.asks[0].Add(w.Limit(p, now))
	if last := q.asks[d.Count-1].Add(d.Interval / 4); last.After(at) {
		at = last
	}
	return at, true
}

// Judge says what the answers mean. The caller has told of all answers that have
// come.
func (w *Watch) Judge(now time.Time) Finding {
	w.forgive(now)
	here, there := &w.path[PathCarpdev], &w.path[PathSync]
	f := Finding{
		Master: w.last.State == Master, Heard: here.heard, Limit: w.Limit(PathCarpdev, now),
		Missed: here.n, Carrier: there.down,
	}
	if there.heard.After(f.Heard) {
		f.Heard = there.heard
	}
	if at, ok := w.unheardAt(now); ok {
		f.Unheard = !now.Before(at)
	}
	if w.config == DetectOff || here.heard.IsZero() {
		return f
	}
	silentHere, silentThere := w.silent(PathCarpdev, now), there.down || w.silent(PathSync, now)
	switch {
	case w.now == DetectOff: // after too many errors
	case !silentHere && w.verdict != Unwatched:
		f.Silence, f.Stale = w.verdict, true
		return f
	case !silentHere:
		f.Silence = Lives
		f.Deaf = silentThere && !there.heard.IsZero()
		if f.Master && w.hung() {
			f.Silence = Hung
		}
	case there.heard.IsZero() && !there.down:
	case silentThere:
		f.Silence = Gone
	case now.Sub(there.heard) <= w.Limit(PathSync, now):
		f.Silence = CutOff
	default:
		f.Silence = Doubt
	}
	if f.Silence == Doubt || f.Silence == CutOff || f.Silence == Gone {
		w.verdict = f.Silence
	}
	return f
}

// unheardAt returns when the second of the asks that are out on the carpdev has had its
// time, and whether there is one.
func (w *Watch) unheardAt(now time.Time) (time.Time, bool) {
	q := &w.path[PathCarpdev]
	if q.n < 2 || w.now == DetectOff {
		return time.Time{}, false
	}
	return q.asks[1].Add(max(w.detect(now).Interval/4, slowFactor*q.rtt.slowest())), true
}

// Wait returns when Judge may say something new although nothing is heard: when the
// asks that are out have been so for long enough.
func (w *Watch) Wait(now time.Time) (at time.Time, ok bool) {
	sooner := func(t time.Time, enough bool) {
		if enough && t.After(now) && (!ok || t.Before(at)) {
			at, ok = t, true
		}
	}
	for p := range paths {
		sooner(w.silentAt(p, now))
	}
	sooner(w.unheardAt(now))
	return at, ok
}

// Slowest returns the slowest usual reflection on a path.
func (w *Watch) Slowest(p Path) time.Duration { return w.path[p].rtt.slowest() }

// asksMax is how many unanswered asks are remembered one by one.
const asksMax = 16

// watchPath is what is known of one path.
type watchPath struct {
	down  bool // no carrier
	asks  [asksMax]time.Time
	n     int       // of asks, unanswered
	seen  time.Time // the newest ask that was answered
	heard time.Time // when
	rtt   reflections
}

func (q *watchPath) asked(now time.Time) {
	if q.n < asksMax {
		q.asks[q.n] = now
		q.n++
	}
}

// answered reports whether the answer is news.
func (q *watchPath) answered(asked, at time.Time) bool {
	if !asked.After(q.seen) {
		return false
	}
	q.seen, q.heard = asked, at
	q.rtt.add(at.Sub(asked))
	done := 0
	for done < q.n && !q.asks[done].After(asked) {
		done++
	}
	q.n = copy(q.asks[:], q.asks[done:q.n])
	return true
}
