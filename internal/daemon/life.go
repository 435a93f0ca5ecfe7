package daemon

import (
	"time"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/carp/group"
)

// electionHung is how long an election may give no sign of life of its own: a busy
// machine keeps ordinary threads waiting.
const electionHung = time.Second

// sustainEvery is how often the sender thread speaks for the elections, at least.
const sustainEvery = 100 * time.Millisecond

// stamp notes the sign of life here, for the watchdog, and in the dataplane, for
// whom it answers.
func (m *member) stamp(now time.Time) {
	m.alive.Store(int64(carp.SinceBoot(now)))
	m.showLife(now)
	m.woke.Do(func() { close(m.awake) })
}

// showLife gives the dataplane a sign of life. It waits for nobody: the sender thread
// calls it, too.
func (m *member) showLife(now time.Time) {
	if m.ahead.Load() == nil {
		m.dev.port.Stamp(m.cfg.VHID, now)
	}
	if at := m.ahead.Load(); at != nil { // since just now, perhaps
		m.dev.port.Stamp(m.cfg.VHID, *at)
	}
}

// stampAhead gives it one of the time after a restart, which stays, or takes that back.
func (m *member) stampAhead(on bool) {
	if !on {
		m.ahead.Store(nil)
		return
	}
	at := group.BootClock().Add(restartGrace)
	m.ahead.Store(&at)
	m.showLife(at)
}

// sustain gives the dataplane a sign of life of a daemon that is starved: its real-time
// thread still runs, and the election has not been away for long. Where the process is
// stopped or gone, nobody does.
func (m *member) sustain(now time.Time) {
	if m.sustained(now) {
		m.showLife(now)
	}
}

func (m *member) sustained(now time.Time) bool {
	alive := m.alive.Load()
	return alive != 0 && carp.SinceBoot(now)-time.Duration(alive) < electionHung
}

// sustain speaks for the elections, which have no real-time priority.
func (t *pulseThread) sustain(now time.Time) {
	if now.Sub(t.sustained) < sustainEvery/2 { // it is awake for something else
		return
	}
	t.sustained = now
	for _, m := range t.d.members() {
		m.sustain(now)
	}
}
