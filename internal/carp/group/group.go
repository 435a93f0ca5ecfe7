package group

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
)

// Config is what a Group runs on.
type Config struct {
	Name    string
	Carpdev string
	Machine carp.Config

	// Guard says which adverts are believed. Its VHID, Node, Counter and Forget are
	// those of the Machine, whose Trailer it decides about.
	Guard carp.GuardConfig

	Addrs []netip.Prefix // the shared addresses

	// Quiet groups announce nothing: neighbours differ in what they are told.
	Quiet bool

	// Conn moves whole Ethernet frames; Listen makes the real one. Run closes it.
	Conn net.PacketConn

	// HardwareAddr is the carpdev's own.
	HardwareAddr net.HardwareAddr

	// Source4 and Source6 return the carpdev's own address now: the first one,
	// the link-local one. Without an own IPv4 address adverts come from the
	// shared one; without an own IPv6 address that family is not sent, unless
	// it is the only one.
	Source4, Source6 func() netip.Addr

	// To4 and To6 return where adverts go now: another multicast group, or one
	// peer. They must not block. nil: to CARP's own group.
	To4, To6 func() Destination

	// TOS is the type of service, or traffic class, of adverts.
	TOS uint8

	// Router is the R flag of neighbour advertisements: this node forwards IPv6.
	Router bool

	Dataplane carp.Dataplane

	// BeforeMaster is called before the map is flipped to MASTER, also for an
	// adopted one. It must return within microseconds. May be nil.
	BeforeMaster func()

	// OnRole is called in Run's own goroutine after the effects of a change of
	// state were carried out. It must not block. May be nil.
	OnRole func(Transition)

	// OnClaim is told which claim the group has under way, and when it has none any
	// more. It is called while a verb is carried out: it must not block, nor call
	// the Group. May be nil.
	OnClaim func(c carp.Claim, claiming bool)

	// OnStamp is called in Run's own goroutine after each Stamp. It must not
	// block. May be nil.
	OnStamp func(now time.Time)

	// OnDeaf is told when the group has made way to a peer that it does not
	// hear on the carpdev, and when it hears something again. It must not
	// block. May be nil.
	OnDeaf func(deaf bool)

	// Adopt and Term are what the dataplane and the state file hold of an
	// earlier process of this node.
	Adopt carp.Role
	Term  uint64

	// OnEpoch is told when somebody has shown us that our epoch was in use
	// before, and which one is to be stored and then to Begin. It must not
	// block. May be nil.
	OnEpoch func(epoch uint64)

	// OnSign is told how far we have come before a signed advert leaves, and
	// OnVerdict what was thought of one that came: mark is where the node that
	// signed it has come by that. Neither may block. May be nil.
	OnSign    func(self carp.Mark)
	OnVerdict func(v *carp.Verdict, mark carp.Mark)

	Now func() time.Time // nil: the boot clock
	Log *zap.Logger      // nil: none
}

// Transition is one change of state.
type Transition struct {
	Name     string
	VHID     uint8
	From, To carp.State
	Reason   string
	At       time.Time // on the boot clock
	Term     uint64
	Adopted  bool   // To is what the dataplane had already: nothing changed for anybody else
	Demoted  string // our own demotion and whose it is, as "sync 1, track uplink 50"; empty for none

	Evidence Evidence // what was known when it was decided
	Pulses   Pulses
	Steps    Steps // when what followed was done
}

// Evidence is what a backup knew of its master when it decided.
type Evidence struct {
	Heard   time.Duration // since the last believed advert, or since it began to listen
	Never   bool          // no advert was believed in that time
	Limit   time.Duration // after how long a silent master counts as gone; 0: it was claimed from
	Late    time.Duration // how late we were ourselves
	Gap     time.Duration // the median of the gaps between the adverts before
	Longest time.Duration // the longest of them
	Gaps    int           // how many there were; 0: Gap and Longest say nothing
}

// Pulses is what they had told by then. The zero value is nothing.
type Pulses struct {
	Heard      time.Duration // since the last answer
	Limit      time.Duration // after how long unanswered asks count
	Missed     int           // how many there were
	Reflection time.Duration // what the slowest usual answer takes
	Claim      time.Duration // from the first claim to its acknowledgement
}

// Steps are the times since the decision at which its effects were done. Zero: there
// was no such effect.
type Steps struct{ Map, Advert, Announced time.Duration }

// Group is one vhid on one carpdev.
type Group struct {
	cfg       Config
	log       *zap.Logger
	now       func() time.Time
	has4      bool
	has6      bool
	vmac      carp.MAC
	announces [][]byte // whole frames, one per shared address
	box       mailbox
	otherBase uint8 // the advbase of a peer that was complained about; Run's

	// turn is held from a verb until its effects are carried out, so that they are
	// in the order of the verbs whoever calls them: Run, or Together.
	turn     sync.Mutex
	deaf     bool   // as OnDeaf was told
	split    bool   // as was complained about
	claiming bool   // as OnClaim was told
	demotion int    // as the dataplane was told
	out      []byte // the frame under construction

	// standing is read by a real-time thread, which must not wait for an ordinary one.
	standing atomic.Pointer[standing]

	// mu guards what Status reads. It is held for as long as a verb takes, and
	// never while effects are carried out.
	mu      sync.Mutex
	told    []Transition // that OnRole has yet to hear of
	machine *carp.Machine
	guard   *carp.Guard
	count   counts
	masters []MasterSeen
	alarmed [carp.Alarms]time.Time // when each was last complained about

	families families
	gaps     gaps
}

// New returns a Group. It does nothing until Run.
func New(c Config) *Group {
	c.Machine.Trailer = c.Guard.Send && len(c.Guard.Keys) > 0
	c.Guard.VHID, c.Guard.Node, c.Guard.Counter = c.Machine.VHID, c.Machine.Node, c.Machine.Counter
	c.Guard.Forget = 3 * carp.MasterDown(c.Machine.AdvBase, c.Machine.AdvSkew)
	g := &Group{
		cfg:     c,
		guard:   carp.NewGuard(c.Guard),
		log:     c.Log,
		now:     c.Now,
		vmac:    carp.VirtualMAC(c.Machine.VHID),
		box:     mailbox{news: make(chan struct{}, 1)},
		machine: carp.NewMachine(c.Machine),
	}
	g.stand()
	if g.log == nil {
		g.log = zap.NewNop()
	}
	if g.now == nil {
		g.now = BootClock
	}
	for _, p := range c.Addrs {
		a := p.Addr().Unmap().WithZone("")
		g.has4 = g.has4 || a.Is4()
		g.has6 = g.has6 || a.Is6()
		if c.Quiet {
			continue
		}
		g.announces = append(g.announces, carp.AppendAnnounce(nil, g.vmac, a, c.Router))
	}
	return g
}

// BootClock returns now on the clock of package carp: CLOCK_BOOTTIME.
func BootClock() time.Time {
	var ts unix.Timespec
	// It never waits, so the scheduler need not hear of it.
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		panic(fmt.Sprintf("read CLOCK_BOOTTIME: %v", errno)) // since Linux 2.6.39
	}
	return carp.BootTime(time.Duration(ts.Nano()))
}

// ErrReplaced as the cause of Run's context says that another Group takes this
// one's place: Run returns and leaves role and lease for that to adopt.
var ErrReplaced = errors.New("replaced by another group")

// Run takes part in the election until ctx ends. Then it leaves in an orderly
// way, which takes a master the time of the drain, and closes the Conn. It
// returns early, after a goodbye, if the Conn can no longer be read.
func (g *Group) Run(ctx context.Context) error {
	r := newReader(g.cfg.Conn)
	go r.run()

	g.step(func(m *carp.Machine, now time.Time) carp.Effects {
		return m.Adopt(now, g.cfg.Adopt, g.cfg.Term)
	})
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	ended, broken := ctx.Done(), r.done
	replaced := false
	for !replaced && !g.stopped() {
		g.arm(timer)
		select {
		case f := <-r.frames:
			g.receive(f.frame)
			r.free <- f
		case <-timer.C:
			g.catchUp(r)
			g.step((*carp.Machine).Tick)
		case <-g.box.news:
			for _, verb := range g.box.take() {
				g.step(verb)
			}
			g.tell() // of what others did, too
			if g.box.takeStamp() && g.cfg.OnStamp != nil {
				g.cfg.OnStamp(g.now())
			}
		case <-broken:
			broken = nil
			g.step((*carp.Machine).Stop)
		case <-ended:
			ended = nil
			if replaced = errors.Is(context.Cause(ctx), ErrReplaced); !replaced {
				g.step((*carp.Machine).Stop)
			}
		}
	}
	close(r.stop)
	err := g.cfg.Conn.Close()
	<-r.done
	if r.err != nil {
		return errors.Join(fmt.Errorf("read adverts on %q: %w", g.cfg.Carpdev, r.err), err)
	}
	return err
}

// catchUp takes the frames that came before the deadline passed: they may say
// that the master lives.
func (g *Group) catchUp(r *reader) {
	for range 64 { // a flood must not hold up a master's own adverts
		select {
		case f := <-r.frames:
			g.receive(f.frame)
			r.free <- f
		default:
			return
		}
	}
}

func (g *Group) stopped() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.machine.Stopped()
}

// arm sets the one timer to the one deadline.
func (g *Group) arm(timer *time.Timer) {
	g.mu.Lock()
	at, ok := g.machine.Deadline()
	g.mu.Unlock()
	if !ok {
		timer.Stop()
		return
	}
	timer.Reset(max(at.Sub(g.now()), 0))
}

// receive decides whether to believe a frame and gives it to the Machine.
func (g *Group) receive(b []byte) {
	r, why := carp.ParseFrame(b)
	if why == carp.DropVersion && g.reminded(&r) {
		return
	}
	if why == carp.Accepted && (r.From.Is4() && !g.has4 || r.From.Is6() && !g.has6) {
		why = carp.DropFamily // nobody sends them: carp6_input of FreeBSD has badvhid here
	}
	v := carp.Verdict{Heard: carp.Heard{Advert: r.Advert, From: r.From}, Why: why}
	if why == carp.Accepted {
		g.mu.Lock()
		v = g.guard.Judge(g.now(), &r)
		mark, epoch := g.guard.Mark(v.Node), g.guard.Wants()
		g.mu.Unlock()
		if v.Raised {
			g.raised(epoch)
		}
		if g.cfg.OnVerdict != nil {
			g.cfg.OnVerdict(&v, mark)
		}
	}
	switch {
	case why == carp.DropVersion && r.VRRP():
		v.Alarm = carp.AlarmVRRP
	case v.Why == carp.DropLoop && v.Alarm == carp.NoAlarm:
		v.Alarm = carp.AlarmLoop
	}
	g.received(&v)
	g.alarm(&v)
	if v.Seen != nil {
		g.remind(v.Seen, r.From.Is4())
	}
	if v.Why != carp.Accepted {
		return
	}
	if r.AdvBase != g.cfg.Machine.AdvBase && r.AdvBase != g.otherBase && !r.Goodbye() {
		g.otherBase = r.AdvBase // said once
		g.log.Warn("another advbase: a lease is safe only where all members have the same",
			zap.String("group", g.cfg.Name), zap.Stringer("from", r.From), zap.Uint8("advbase", r.AdvBase))
	}
	v.Own = g.source(r.From.Is4())
	g.step(func(m *carp.Machine, now time.Time) carp.Effects { return m.Receive(now, v.Heard) })
}
