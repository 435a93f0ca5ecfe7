package carp

import (
	"errors"
	"net/netip"
	"time"
)

const (
	// drainTime is how long a node that leaves still takes frames in flight.
	drainTime = 100 * time.Millisecond

	// peerTime is how old what a peer said may be: ten of its messages.
	peerTime = time.Second

	// maxDemotion is the highest demotion an advert can carry.
	maxDemotion = 255

	// maxSkew caps what demotion does to advskew, as CARP_MAXSKEW of FreeBSD.
	maxSkew = 240
)

// Config is what an operator says about a vhid.
type Config struct {
	VHID    uint8 // 1…255
	AdvBase uint8 // seconds
	AdvSkew uint8 // 1/256 seconds, at most 254
	Preempt bool  // replace a slower master

	// SendErrDemotion is how much worse three failed sends in a row make us:
	// net.inet.carp.senderr_demotion_factor. 0 is FreeBSD's 240, less than 0
	// not at all.
	SendErrDemotion int

	// Counter is above all that were used before a restart. Adverts carry
	// higher ones.
	Counter uint64

	// Node is our id: a random number, kept over restarts.
	Node uint64

	// Trailer says that our adverts have one, and so tell Node and Term.
	Trailer bool

	// Term is the highest one known so far.
	Term uint64

	// Split says what a backup does about a master that is silent on the
	// carpdev and alive by the sync channel.
	Split Split
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	if c.VHID == 0 {
		return errors.New("vhid 0: must be 1 to 255")
	}
	if c.AdvSkew == 255 {
		return errors.New("advskew 255: must be 0 to 254, for 255 says goodbye")
	}
	return nil
}

// Effects is what the caller must now do, in field order.
type Effects struct {
	// Claim asks the master to stop, before anything else is done. What became of
	// it comes back as Acked or Refused.
	Claim *Claim

	// Accept says that a claim has changed the dataplane: its role is to be taken
	// as it is, not set.
	Accept bool

	// Role goes into the dataplane: it answers for the addresses before they
	// are claimed, and stops before they are given up. Set on every change of
	// state and on every renewal of the lease.
	Role *Role

	// Advert tells the other members; it is not signed yet. If both families
	// are sent, the second frame carries Counter+FamilyStep. What became of it comes
	// back as Sent. A Goodbye leaves from the NIC's own MAC, all others from
	// the virtual one.
	Advert *Advert

	// Announce moves the tables of neighbours and switches: gratuitous ARP,
	// unsolicited NA.
	Announce bool

	// Reason is why the state changed, and empty if it did not.
	Reason string
}

// Heard is a believed advert of another member.
type Heard struct {
	Advert
	From netip.Addr // its source
	Own  netip.Addr // the source of our adverts in that family, for ties

	// Node and Term are the sender's if its trailer was right, else zero.
	Node uint64
	Term uint64
}

// Machine is the election of one vhid on one carpdev. It starts in INIT and
// leaves it with Link or Adopt.
type Machine struct {
	cfg     Config
	state   State
	since   time.Time
	reason  string
	stopped bool

	term     uint64 // of our last takeover
	seen     uint64 // the highest anybody told us, term included
	followed uint64 // that of the master whose state we have been mirroring

	counter uint64
	demoted []demotion

	// BACKUP, and DRAIN for the time after it
	down  time.Time     // when the master counts as gone
	heard time.Time     // last advert, or when we began to listen
	his   time.Duration // the master's interval
	slow  int           // its rank, 0 until it is heard

	humble time.Time // no preemption before that
	left   bool      // the master that we made way for said goodbye

	// MASTER
	next     time.Time // next advert
	lease    time.Time // until when we may act
	again    int       // adverts until the second announcement; 0: none
	answered time.Time // last advert or announcement out of turn
	tied     time.Time // last equal advert that we should make way for
	equal4   time.Time // last equal IPv4 advert

	mate   netip.Addr // the lowest address of the equals that make way to us for our id
	mateAt time.Time  // when it was last equal

	drained time.Time // DRAIN: its end

	sendErrs, sendOKs int
	sendErrAt         time.Time // when they demoted us, zero if they do not

	peers map[string]said // what each node of ours said last
	deaf  bool            // nothing heard here since making way to a term, or since the link is back
	lost  bool            // the link was lost
	yield uint64          // the term we made way for; 0: none
	doubt bool            // see Doubt
	ears  Ears            // what we hear on the carpdev ourselves
	split bool            // a master is silent here that lives by the sync channel

	pulses  bool      // the master acknowledges claims
	bid     *bid      // our claim under way
	refused time.Time // no claim before that
	offered time.Time // a peer was asked to claim, until then
	stay    bool      // handed over by an operator: no preemption
}

// NewMachine returns a Machine in INIT. It panics on a Config that Validate
// refuses.
func NewMachine(c Config) *Machine {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	return &Machine{cfg: c, counter: c.Counter, seen: c.Term}
}

// Config returns what NewMachine was given.
func (m *Machine) Config() Config { return m.cfg }

// State returns where the group stands.
func (m *Machine) State() State { return m.state }

// Since returns when and why that state was entered.
func (m *Machine) Since() (time.Time, string) { return m.since, m.reason }

// Heard returns when a backup last heard its master, or began to listen for one.
func (m *Machine) Heard() time.Time { return m.heard }

// Stopped reports whether Stop is complete: nothing will come any more.
func (m *Machine) Stopped() bool { return m.stopped && m.state == Init }

// Lease returns until when a master may act, zero in other states.
func (m *Machine) Lease() time.Time {
	if m.state != Master {
		return time.Time{}
	}
	return m.lease
}

// Term returns the number of our mastership as MASTER or DRAIN, else the
// highest one known. Every takeover has a higher term than all before.
func (m *Machine) Term() uint64 {
	if m.state == Master || m.state == Drain {
		return m.term
	}
	return m.seen
}

// Deadline returns when to call Tick, and whether at all.
func (m *Machine) Deadline() (time.Time, bool) {
	switch m.state {
	case Backup:
		if m.bid != nil && m.bid.until.Before(m.down) {
			return m.bid.until, true
		}
		return m.down, true
	case Master:
		if m.lease.Before(m.next) {
			return m.lease, true
		}
		return m.next, true
	case Drain:
		return m.drained, true
	}
	return time.Time{}, false
}

// Link tells whether the carpdev can carry frames. A group takes part only
// while it does, and always begins as BACKUP.
func (m *Machine) Link(now time.Time, up bool) Effects {
	switch {
	case !up && m.state != Init:
		m.lost = true
		m.followed = 0 // we shall not know what was missed
		return m.become(now, Init, "hardware interface down")
	case up && m.state == Init && !m.stopped:
		m.forgetSendErrs()
		m.deaf, m.lost = m.lost, false
		return m.become(now, Backup, "initialization complete")
	}
	return m.Tick(now)
}

// Tick does what is due. Calling it early does nothing.
func (m *Machine) Tick(now time.Time) Effects {
	if e, lapsed := m.lapse(now); lapsed {
		return e
	}
	if at, ok := m.Deadline(); !ok || now.Before(at) {
		return Effects{}
	}
	switch m.state {
	case Backup:
		return m.timeout(now)
	case Master:
		return m.advertise(now)
	case Drain:
		if m.stopped {
			return m.become(now, Init, "stopped")
		}
		return m.become(now, Backup, "drained")
	}
	return Effects{}
}

// timeout decides whether a silent master is gone.
func (m *Machine) timeout(now time.Time) Effects {
	if b := m.bid; b != nil && !now.Before(b.until) && b.Planned {
		m.bid, m.refused = nil, now.Add(postponement) // nobody has heard of it
	} else if b != nil && !now.Before(b.until) {
		return m.become(now, Master, b.reason+"; it did not acknowledge the claim")
	}
	if now.Before(m.down) {
		return Effects{}
	}
	if until, held := m.held(now); held {
		m.down = until
		return Effects{}
	}
	until, split, cutOff := m.witness(now)
	if m.split = split; split {
		m.down = until
		return Effects{}
	}
	if now.Sub(m.down) > max(m.interval()/2, 50*time.Millisecond) {
		// We are the late one: what the master said meanwhile may still lie
		// in a queue. Without this every SIGSTOP of a backup makes two masters.
		m.listen(now)
		return Effects{}
	}
	switch {
	case m.left:
		return m.become(now, Master, "master said goodbye")
	case cutOff:
		return m.overtake(now, "master is cut off from the carpdev, by its own word")
	}
	return m.overtake(now, "master timed out")
}

// overtake takes the role of a master that was not heard in time.
func (m *Machine) overtake(now time.Time, reason string) Effects {
	e := m.take(now, reason)
	m.down = now.Add(claimTime) // if it answers claims; else that is past
	return e
}

// Follow tells that another group of the bundle took over here. This one does
// the same if its own master is late, too, or worse than we are, also without
// preempt of its own: a bundle moves together, but not away from a better master
// that lives.
func (m *Machine) Follow(now time.Time) Effects {
	if e, lapsed := m.lapse(now); lapsed {
		return e
	}
	me := m.self()
	late := now.Sub(m.heard) > m.his*3/2
	slower := m.slow > me.rank() && !now.Before(m.humble) && !m.stay
	if _, held := m.held(now); m.state != Backup || held || !late && !slower {
		return Effects{}
	}
	return m.take(now, "following the bundle")
}

// Stop leaves in an orderly way. A master drains and says goodbye; call Tick
// until Stopped.
func (m *Machine) Stop(now time.Time) Effects {
	first := !m.stopped
	m.stopped = true
	e, _ := m.lapse(now)
	switch {
	case !first, m.state == Init:
		return e
	case m.state == Master:
		e = m.become(now, Drain, "stopping")
		e.Advert = m.goodbye()
		return e
	case m.state == Backup:
		return m.become(now, Init, "stopped")
	}
	return e // already draining
}

// Adopt takes over from an earlier process of this node: the role that its
// dataplane still has, and its term. A MASTER within its lease goes on and
// advertises at once; everything else begins in INIT.
func (m *Machine) Adopt(now time.Time, r Role, term uint64) Effects {
	m.seen = max(m.seen, term)
	if m.state != Init || m.stopped || r.State != Master || !now.Before(r.Until) {
		return m.Tick(now)
	}
	m.term = term
	m.state, m.since, m.reason = Master, now, "adopted from the process before"
	m.lease = r.Until
	if most := now.Add(m.leaseTime()); m.lease.After(most) {
		m.lease = most // of a process with another advbase
	}
	e := m.advertise(now)
	e.Reason = m.reason
	return e
}

// lapse steps down if the lease is over. Every verb asks it first: whatever
// else happened, the dataplane has already stopped acting, and others may have
// begun to. What lies in the socket's queue is old, and what this node knows
// of connections, too: it listens for a whole master-down time before it may
// preempt anybody.
func (m *Machine) lapse(now time.Time) (Effects, bool) {
	if m.state != Master || now.Before(m.lease) {
		return Effects{}, false
	}
	e := m.become(now, Backup, "lease ran out")
	m.humble = m.down
	m.followed = 0
	return e, true
}

// become is the only place where the state changes, but for Adopt.
func (m *Machine) become(now time.Time, s State, reason string) Effects {
	from := m.state
	m.state, m.since, m.reason = s, now, reason
	m.bid = nil
	e := Effects{Role: &Role{State: s}, Reason: reason}
	switch s {
	case Backup:
		if from != Drain { // it has been listening
			m.listen(now)
		}
	case Master:
		m.term = m.seen + 1
		m.seen = m.term
		m.yield, m.deaf, m.split = 0, false, false
		m.stay, m.offered = false, time.Time{}
		m.lease = now.Add(m.leaseTime())
		m.again = 2
		m.answered, m.tied, m.equal4, m.mate = time.Time{}, time.Time{}, time.Time{}, netip.Addr{}
		e.Role.Until = m.lease
		e.Advert = m.advert()
		e.Announce = true
		m.next = now.Add(m.interval())
	case Drain:
		if now.Before(m.offered) { // whoever was faster, its claim or its advert
			m.stay, m.offered = true, time.Time{}
		}
		m.drained = now.Add(drainTime)
		m.listen(now)
		e.Role.Until = m.drained
	}
	return e
}

// listen begins to wait for a master.
func (m *Machine) listen(now time.Time) {
	m.split = false
	m.heard, m.his, m.slow, m.left = now, m.interval(), 0, false
	m.down = now.Add(MasterDown(m.cfg.AdvBase, m.cfg.AdvSkew))
}

func (m *Machine) interval() time.Duration { return Interval(m.cfg.AdvBase, m.cfg.AdvSkew) }

func (m *Machine) leaseTime() time.Duration { return Lease(m.cfg.AdvBase, m.cfg.AdvSkew) }
