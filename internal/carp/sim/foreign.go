package sim

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// Foreign is another implementation that can be plugged into a segment: a model
// of what matters when equals meet, made from its sources and from what was
// measured of it.
type Foreign uint8

// The models.
const (
	// UCARP decides between equals by address as we do, says so once more when
	// it makes way, and looks at what it has received once in a while only.
	UCARP Foreign = iota
	// FreeBSD and NetBSD make way to an equal advert, whoever sent it.
	FreeBSD
	// OpenBSD does that, too. It counts nothing: one number for all adverts.
	OpenBSD
)

// String returns the name of the system.
func (f Foreign) String() string { return [...]string{"ucarp", "FreeBSD", "OpenBSD"}[f] }

// foreign is a host that runs one of them.
type foreign struct {
	w       *world
	i       int
	kind    Foreign
	skew    uint8
	addr    netip.Addr
	key     *carp.Key
	up      bool
	master  bool
	timer   time.Duration // when it does something by itself
	counter uint64
	heard   bool     // somebody, whose counter it goes on with
	queue   [][]byte // received and not yet looked at
	batch   time.Duration
}

func (f *foreign) name() string { return fmt.Sprintf("%v-%d", f.kind, f.i) }

func (f *foreign) connected() bool { return f.up }
func (f *foreign) acting() bool    { return f.master }

// start starts it as BACKUP, as all of them.
func (f *foreign) start() {
	f.up = true
	f.counter = f.w.rng.Uint64()
	f.key = carp.NewKey(password, vhid, shared(f.w.sc), carp.OpenBSD)
	f.arm(f.down())
	f.w.line(f.name(), "starts")
}

func (f *foreign) interval() time.Duration { return carp.Interval(f.w.sc.AdvBase, f.skew) }

// down is 3·advbase + skew/256; OpenBSD counts the skew three times.
func (f *foreign) down() time.Duration {
	if f.kind == OpenBSD {
		return 3 * f.interval()
	}
	return carp.MasterDown(f.w.sc.AdvBase, f.skew)
}

func (f *foreign) arm(d time.Duration) {
	f.timer = f.w.now + d
	f.w.push(event{at: f.timer, kind: evTick, to: f.i})
}

func (f *foreign) tick() {
	if f.timer != f.w.now {
		return
	}
	if !f.master {
		f.master = true
		f.w.line(f.name(), "MASTER")
	}
	f.advertise()
	f.arm(f.interval())
}

func (f *foreign) advertise() {
	switch {
	case f.kind == OpenBSD:
	case f.heard:
		f.counter++
	default:
		f.counter = f.w.rng.Uint64()
	}
	a := carp.Advert{VHID: vhid, AdvBase: f.w.sc.AdvBase, AdvSkew: f.skew, Counter: f.counter}
	f.key.Sign(&a)
	b, err := a.AppendBinary(nil)
	if err != nil {
		panic(err) // there is none
	}
	f.w.line(f.name(), "advert %d/%d counter=%d", a.AdvBase, a.AdvSkew, a.Counter)
	f.w.send(f.i, carp.AppendFrame(nil, carp.VirtualMAC(vhid), f.addr, b), true)
}

// hear is what libpcap and the kernels do: ucarp gets its packets in batches.
func (f *foreign) hear(b []byte) {
	if f.batch == 0 {
		f.judge(b)
		return
	}
	if f.queue = append(f.queue, b); len(f.queue) == 1 {
		f.w.later(f.w.between(0, f.batch), func() {
			for _, b := range f.queue {
				f.judge(b)
			}
			f.queue = nil
		})
	}
}

func (f *foreign) judge(b []byte) {
	r, why := carp.ParseFrame(b)
	if why != carp.Accepted || !f.key.Verify(&r.Advert) || f.kind == OpenBSD && r.Counter == f.counter {
		return
	}
	f.heard = true
	if f.kind != OpenBSD {
		f.counter = r.Counter
	}
	his, mine := carp.Interval(r.AdvBase, r.AdvSkew), f.interval()
	switch {
	case !f.master && f.down() < his:
		f.timer = f.w.now
		f.tick()
	case !f.master:
		f.arm(f.down())
	case his > mine:
	case his < mine, f.kind != UCARP, r.From.Less(f.addr):
		if f.kind == UCARP {
			f.advertise()
		}
		f.master = false
		f.w.line(f.name(), "BACKUP")
		f.arm(f.down())
	}
}
