package sim

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

const (
	beatEvery   = 100 * time.Millisecond // of the daemon's sync channel
	marksEvery  = 10                     // beats: how often it looks how far all have come
	earsDeaf    = 1500 * time.Millisecond
	socketQueue = 256 // frames that wait for a stopped process
	catchUp     = 64  // frames looked at before a late tick, as group.Run
	diskTime    = 5 * time.Millisecond
)

// says is what a node tells of itself over the sync channel.
type says struct {
	state carp.State
	term  uint64
	ears  carp.Ears
	id    uint64
	mark  carp.Mark            // of itself
	marks map[uint64]carp.Mark // of the others
	seen  uint64               // number of the message
}

// storage is what outlives a reboot.
type storage struct {
	id      uint64
	epoch   uint64
	counter uint64 // of the first advert
	term    uint64
	marks   map[uint64]carp.Mark
}

func (s storage) clone() storage {
	s.marks = maps.Clone(s.marks)
	return s
}

// pending is a fact on its way through the process: a process may be stopped
// between any two of its steps.
type pending struct {
	fact fact
	now  time.Time // as the process read it
	from carp.State
	e    carp.Effects
	at   time.Time
	fail bool
	step int // 0: none is pending
}

// node is a machine that runs xcarp: a process that can be stopped and killed,
// a dataplane that outlives it, a clock, storage and a carpdev.
type node struct {
	w    *world
	i    int
	name string
	cfg  NodeConfig

	offset  time.Duration // boot clock minus the world's
	powered bool
	link    bool
	role    carp.Role // in the dataplane
	disk    storage
	old     storage // as it was once: what a snapshot gives back

	// The process, if m is not nil.
	m       *carp.Machine
	guard   *carp.Guard
	process int // number of it
	frozen  bool
	thawed  uint64 // number of the stall that holds
	stop    bool   // it has been told to
	leaving bool   // and will be gone soon
	pend    pending
	tickAt  time.Duration
	deaf    bool // sends fail
	own     map[string]int

	frames [][]byte
	links  []bool
	demote []fact
	peers  []*says // newest of each node, nil: none
	number uint64
	mark   carp.Mark            // as it tells it
	marks  map[uint64]carp.Mark // as it tells them
	last   []uint64             // number of the newest message of each
	script func(string)

	muffled int           // reasons why nobody at all is heard
	noise   time.Duration // when somebody was
	ears    carp.Ears     // what the daemon makes of that
	told    []carp.Ears   // and has told the group
}

func (n *node) clock() time.Time { return carp.BootTime(n.w.now + n.offset) }

func (n *node) connected() bool { return n.powered && n.link }

// acting reports whether the dataplane answers for the addresses, and somebody
// can hear it.
func (n *node) acting() bool {
	return n.connected() && n.role.State == carp.Master && n.clock().Before(n.role.Until)
}

// boot starts the machine and the process.
func (n *node) boot() {
	n.powered = true
	n.offset = n.w.between(10*time.Second, 20*time.Second) - n.w.now // it counts from the boot
	n.role = carp.Role{}
	n.start()
}

// start starts a process.
func (n *node) start() {
	sc := n.w.sc
	n.disk.epoch++
	n.disk.counter += carp.CounterBlock
	n.w.check.started(n)
	n.w.line(n.name, "starts, epoch %d", n.disk.epoch)
	c := carp.Config{
		VHID: vhid, AdvBase: sc.AdvBase, AdvSkew: n.cfg.Skew, Preempt: n.cfg.Preempt,
		Counter: n.disk.counter, Term: n.disk.term, Node: n.disk.id, Trailer: sc.Trailer, Split: sc.Split,
	}
	n.m = carp.NewMachine(c)
	n.guard = carp.NewGuard(carp.GuardConfig{
		VHID: vhid, Key: carp.NewKey(password, vhid, shared(sc), carp.OpenBSD), Auth: sc.Auth,
		Keys: trailerKeys(sc), Send: sc.Trailer, Node: n.disk.id, Epoch: n.disk.epoch,
		Counter: n.disk.counter,
		Seen:    n.disk.marks, Forget: 3 * carp.MasterDown(sc.AdvBase, n.cfg.Skew),
	})
	n.frames, n.links, n.demote, n.own = nil, nil, nil, map[string]int{}
	n.peers = make([]*says, len(n.w.nodes))
	n.pend = pending{}
	n.marks = nil
	n.ears, n.told, n.noise = carp.EarsUnknown, nil, n.w.now
	n.frozen, n.stop, n.leaving = false, false, false
	n.thawed++
	n.process++
	n.record(configLine(c))
	if n.link {
		n.links = append(n.links, true)
	}
	n.take(fact{verb: verbAdopt, state: n.role.State, until: n.role.Until, term: n.disk.term})
	n.loop()
}

func (n *node) record(line string) {
	if n.script != nil {
		n.script(line)
	}
}

// kill ends the process. What it has stored stays.
func (n *node) kill() {
	if n.m == nil {
		return
	}
	n.save()
	n.m, n.guard = nil, nil
	n.frozen = false
	n.thawed++
}

// poweroff ends the machine.
func (n *node) poweroff() {
	n.kill()
	n.powered = false
	n.role = carp.Role{}
}

// save is what the daemon keeps on disk. Marks that it did not get to keep would
// only matter to a node without a sync channel.
func (n *node) save() {
	n.disk.term = max(n.disk.term, n.m.Term())
	n.disk.marks = n.guard.Marks()
	n.disk.epoch = max(n.disk.epoch, n.guard.Self().Epoch)
}

// freeze stops the process for d, as SIGSTOP or a starved CPU does.
func (n *node) freeze(d time.Duration) {
	if n.m == nil || n.frozen {
		return
	}
	n.frozen = true
	n.thawed++
	stall := n.thawed
	n.w.line(n.name, "stalls for %v", d)
	n.w.later(d, func() {
		if n.frozen && n.thawed == stall {
			n.thaw()
		}
	})
}

func (n *node) thaw() {
	n.frozen = false
	n.w.line(n.name, "goes on")
	n.w.check.woken(n)
	n.loop()
}

func (n *node) hear(b []byte) {
	if n.m == nil {
		return
	}
	if len(n.frames) < socketQueue {
		n.frames = append(n.frames, b)
	}
	n.loop()
}

func (n *node) hearSync(from int, s *says) {
	if n.m == nil || s.seen <= n.last[from] {
		return // the channel numbers its messages
	}
	n.last[from] = s.seen
	n.peers[from] = s
	n.loop()
}

// setLink changes the carrier.
func (n *node) setLink(up bool) {
	if n.link == up {
		return
	}
	n.link = up
	if !n.powered {
		return
	}
	n.w.line(n.name, "carrier %v", up)
	n.w.later(n.w.between(0, 2*time.Millisecond), func() {
		if n.m == nil {
			return
		}
		n.links = append(n.links, n.link)
		n.loop()
	})
}

// setDemotion changes what an owner says.
func (n *node) setDemotion(owner string, by int) {
	if n.m == nil {
		return
	}
	n.demote = append(n.demote, fact{verb: verbDemote, owner: owner, by: by})
	n.loop()
}

func (n *node) tick() {
	if n.m != nil && n.tickAt == n.w.now {
		n.loop()
	}
}

// beat tells the peers where the node stands.
func (n *node) beat() {
	n.w.push(event{at: n.w.now + beatEvery, kind: evBeat, to: n.i})
	if n.m == nil || n.frozen {
		return
	}
	n.number++
	n.listen()
	if n.marks == nil || n.number%marksEvery == 0 {
		n.mark, n.marks = n.guard.Self(), n.guard.Marks()
	}
	s := &says{state: n.m.State(), term: n.m.Term(), ears: n.ears, id: n.disk.id,
		mark: n.mark, marks: n.marks, seen: n.number}
	for to := range n.w.nodes {
		if to == n.i || n.w.cutSync[n.i][to] > 0 || n.w.chance(n.w.loss) {
			continue
		}
		n.w.push(event{at: n.w.now + n.w.between(50*time.Microsecond, n.w.delay), kind: evSync, from: n.i, to: to, says: s})
	}
}

// listen is what the daemon does to know whether it hears anybody at all.
func (n *node) listen() {
	quiet := !n.link || n.muffled > 0
	if !quiet {
		n.noise = n.w.now
	}
	e := n.ears
	switch {
	case !quiet:
		e = carp.EarsHear
	case n.w.now-n.noise >= earsDeaf:
		e = carp.EarsDeaf
	}
	if e != n.ears {
		n.ears = e
		n.told = append(n.told, e)
		n.loop()
	}
}

// due reports whether the Machine waits to be ticked.
func (n *node) due() bool {
	at, ok := n.m.Deadline()
	return ok && !n.clock().Before(at)
}

// loop is Group.Run: what is ready is taken in any order, save that a tick comes
// after the frames that came before it.
func (n *node) loop() {
	n.resume()
	for turns := 0; n.m != nil && !n.frozen; turns++ {
		if turns > 10*socketQueue {
			n.w.check.fail("no progress", "%s: deadline passed, and the machine does nothing", n.name)
			return
		}
		mail := n.stop || len(n.links) > 0 || len(n.told) > 0 || len(n.demote) > 0
		for i := range n.peers {
			mail = mail || n.peers[i] != nil
		}
		var ready [3]func()
		k := 0
		if len(n.frames) > 0 {
			ready[k], k = n.receiveOne, k+1
		}
		if mail {
			ready[k], k = n.readMail, k+1
		}
		if n.due() {
			ready[k], k = n.lateTick, k+1
		}
		if k == 0 {
			break
		}
		ready[n.w.rng.IntN(k)]()
	}
	n.arm()
}

// arm sets the timer. Even a process that is not stopped is a little late.
func (n *node) arm() {
	if n.m == nil || n.frozen {
		return
	}
	at, ok := n.m.Deadline()
	if !ok {
		n.tickAt = -1
		return
	}
	wait := at.Sub(n.clock()) + n.w.between(0, lateness)
	if n.tickAt = n.w.now + wait; wait >= 0 {
		n.w.push(event{at: n.tickAt, kind: evTick, to: n.i})
	}
}

func (n *node) receiveOne() {
	b := n.frames[0]
	n.frames = n.frames[1:]
	n.receive(b)
}

func (n *node) lateTick() {
	for i := 0; i < catchUp && len(n.frames) > 0 && !n.frozen; i++ {
		n.receiveOne()
	}
	if n.m != nil && !n.frozen {
		n.take(fact{verb: verbTick})
	}
}

// readMail takes one thing that other parts of the daemon have told the group.
func (n *node) readMail() {
	switch {
	case n.stop:
		n.stop = false
		n.take(fact{verb: verbStop})
	case len(n.demote) > 0:
		f := n.demote[0]
		n.demote = n.demote[1:]
		n.own[f.owner] = f.by
		n.take(f)
	case len(n.told) > 0:
		f := fact{verb: verbEars, ears: n.told[0]}
		n.told = n.told[1:]
		n.take(f)
	case len(n.links) > 0:
		f := fact{verb: verbDown}
		if n.links[0] {
			f.verb = verbUp
		}
		n.links = n.links[1:]
		n.take(f)
	default:
		for i := range n.peers {
			if s := n.peers[i]; s != nil {
				n.peers[i] = nil
				n.meet(s.id, s.mark)
				for id, m := range s.marks {
					n.meet(id, m)
				}
				n.take(fact{verb: verbPeer, node: n.w.nodes[i].name, state: s.state, term: s.term, ears: s.ears})
				return
			}
		}
	}
}

// meet takes what a peer knows of a node, as the daemon does.
func (n *node) meet(id uint64, m carp.Mark) {
	if id != n.disk.id {
		n.guard.Meet(id, m)
	} else if n.guard.Remind(m) {
		n.raised()
	}
}

// raised stores the epoch that the Guard wants, which takes the disk a moment, and
// lets it begin.
func (n *node) raised() {
	process, epoch := n.process, n.guard.Wants()
	n.w.line(n.name, "reminded: epoch %d next", epoch)
	n.w.later(n.w.between(0, diskTime), func() {
		if n.m == nil || n.process != process {
			return
		}
		n.disk.epoch = max(n.disk.epoch, epoch)
		n.guard.Begin(epoch)
		n.w.line(n.name, "epoch %d begins", epoch)
	})
}

// receive decides whether to believe a frame, as Group.receive does.
func (n *node) receive(b []byte) {
	r, why := carp.ParseFrame(b)
	if why == carp.DropVersion {
		if _, raised := n.guard.Reminder(payload(b)); raised {
			n.raised()
		}
	}
	if why != carp.Accepted {
		return
	}
	v := n.guard.Judge(n.clock(), &r)
	if v.Raised {
		n.raised()
	}
	if v.Seen != nil {
		from := n.source(r.From.Is4())
		n.w.send(n.i, carp.AppendFrame(nil, carp.MAC{2, 0, 0, 0, 0, byte(n.i)}, from, v.Seen), false)
	}
	n.w.attack.judged(v.Why)
	if v.Why != carp.Accepted {
		if n.w.trace != nil {
			n.w.line(n.name, "refuses %d/%d demote=%d counter=%d from %v: %v", r.AdvBase, r.AdvSkew, r.Demotion, r.Counter, r.From, v.Why)
		}
		return
	}
	f := fact{verb: verbRecv, heard: v.Heard}
	f.heard.Own = n.source(r.From.Is4())
	if f.heard.Goodbye() {
		f.verb = verbGoodbye
	}
	n.w.check.accepted(n, &f.heard, b)
	n.take(f)
}

// source returns where adverts of a family come from.
func (n *node) source(is4 bool) netip.Addr {
	if is4 && n.w.sc.Shared {
		return shared(n.w.sc)[0]
	}
	if is4 {
		return n.cfg.Addr
	}
	v := netip.MustParseAddr("fe80::").As16()
	v[15] = byte(n.i + 1)
	return netip.AddrFrom16(v)
}

// take gives the Machine a fact and carries out what it wants, as Group.step.
func (n *node) take(f fact) {
	n.pend = pending{fact: f, now: n.clock(), step: 1}
	n.resume()
}

// resume carries a pending fact on. Between any two steps the process may stall.
func (n *node) resume() {
	p := &n.pend
	for p.step > 0 && n.m != nil && !n.frozen {
		switch p.step {
		case 1: // the clock has been read
			p.from = n.m.State()
			n.w.check.before(n, p)
			p.e = p.fact.apply(n.m, p.now)
			if n.w.trace != nil || n.script != nil {
				n.note(p)
			}
			n.w.check.after(n, p)
		case 2:
			if p.e.Role != nil {
				n.setRole(*p.e.Role)
			}
		case 3:
			p.at = n.clock()
		case 4:
			if p.e.Advert != nil {
				p.fail = !n.advertise(p)
			}
		case 5:
			if p.e.Announce && !p.fail && n.acting() {
				n.w.mac = n.i
			}
			if p.e.Reason != "" {
				n.disk.term = max(n.disk.term, n.m.Term())
			}
		default:
			if a := p.e.Advert; a == nil || a.Goodbye() {
				p.step = 0
				return
			}
			sent := fact{verb: verbSent, at: p.at, fail: p.fail}
			*p = pending{fact: sent, now: n.clock(), step: 1}
			continue
		}
		p.step++
		if !n.w.calm && (p.e.Advert != nil || p.e.Role != nil || p.step == 2) && n.w.chance(n.w.sc.Stall) {
			n.freeze(n.w.between(0, 5*n.w.sc.unit()))
		}
	}
}

func (n *node) note(p *pending) {
	got := effects(p.e)
	n.record(fmt.Sprintf("%s %s => %s", seconds(p.now), p.fact.String(), got))
	if p.fact.verb != verbPeer && p.fact.verb != verbSent || got != "-" {
		n.w.line(n.name, "%s => %s", p.fact.String(), got)
	}
}

// setRole is the dataplane's: a role that is over has no effect.
func (n *node) setRole(r carp.Role) {
	if (r.State == carp.Master || r.State == carp.Drain) && !n.clock().Before(r.Until) {
		return
	}
	n.role = r
	n.w.check.role(n)
}

// advertise sends an advert in every family and reports whether one got out. The
// fence of the dataplane lets nothing from the virtual MAC pass but a master's.
func (n *node) advertise(p *pending) bool {
	a := *p.e.Advert
	virtual := !a.Goodbye()
	if n.deaf || virtual && !(n.role.State == carp.Master && n.clock().Before(n.role.Until)) {
		return false
	}
	mac := carp.VirtualMAC(vhid)
	if !virtual {
		mac = carp.MAC{2, 0, 0, 0, 0, byte(n.i)}
	}
	for family := range 2 {
		if family == 1 && !n.w.sc.Dual {
			break
		}
		f := a
		f.Counter += uint64(family) * carp.FamilyStep
		b := n.guard.Sign(make([]byte, 0, 128), &f, n.m.Term())
		frame := carp.AppendFrame(make([]byte, 0, 192), mac, n.source(family == 0), b)
		n.w.check.signed(n, &f, b)
		n.w.send(n.i, frame, virtual)
	}
	n.w.check.sent(n, p.at)
	return true
}

// payload returns what follows the IP header of a frame without a VLAN tag.
func payload(b []byte) []byte {
	switch {
	case len(b) < 34:
		return nil
	case binary.BigEndian.Uint16(b[12:]) == 0x0800:
		total := int(binary.BigEndian.Uint16(b[16:]))
		return b[34:min(len(b), 14+total)]
	case len(b) < 54:
		return nil
	}
	return b[54:]
}
