package loader

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/xcarp/xcarp/internal/carp"
)

// Paths is how many there are.
const Paths = 1024 // as PULSE_PATHS of carp.h

// readTries is how often a reader looks again at what is being written just now.
const readTries = 1000

// Path is one way on which a group of one peer is asked. Its number goes out with
// every ask and comes back with the answer.
type Path struct {
	pulses *Pulses
	number int
}

// Heard is what came back on a path and was genuine.
type Heard struct {
	Kind      carp.PulseKind
	At        time.Time // when the programs saw it; boot clock
	Nonce     uint64    // of what it answers
	Role      carp.State
	Term      uint64
	Age       time.Duration // of the daemon's last sign of life
	Lease     time.Duration // what was left of the role
	Demotion  uint8
	Challenge uint32
}

// Path returns the one with that number, below Paths.
func (p *Pulses) Path(number int) Path {
	if number < 0 || number >= Paths {
		panic(fmt.Sprintf("path %d of %d", number, Paths))
	}
	return Path{p, number}
}

func (p Path) raw() *xdpPulsePath {
	return (*xdpPulsePath)(unsafe.Pointer(&p.pulses.memory[p.number*pathSize]))
}

// Set makes this the path of the group under the session, whose key it is: answers
// to it are noted from now on. What was noted before was about another group, or in
// another session, and is not told any more.
func (p Path) Set(key carp.PulseKey, session, group uint32) error {
	return p.pulses.use("set a path", func(*maps) error {
		raw := p.raw()
		atomic.StoreUint32(&raw.Session, 0) // else half of a key would be believed
		atomic.StoreUint64(&raw.Key[0], key[0])
		atomic.StoreUint64(&raw.Key[1], key[1])
		atomic.StoreUint32(&raw.Group, group)
		p.pulses.since[p.number].Store(int64(bootNow()))
		atomic.StoreUint32(&raw.Session, session)
		return nil
	})
}

// Clear ends it.
func (p Path) Clear() error { return p.Set(carp.PulseKey{}, 0, 0) }

// Last is the answer to the newest ask that was answered. It is false if there was
// none since Set. It costs no system call and no allocation.
func (p Path) Last() (Heard, bool) { return p.read(false) }

// Claimed is, likewise, what became of the newest claim: PulseAck or PulseRefusal.
func (p Path) Claimed() (Heard, bool) { return p.read(true) }

func (p Path) read(claim bool) (Heard, bool) {
	p.pulses.alive.RLock()
	defer p.pulses.alive.RUnlock()
	if p.pulses.maps == nil {
		return Heard{}, false
	}
	raw := p.raw()
	h := &raw.Answer
	if claim {
		h = &raw.Claim
	}
	out, ok := h.read(atomic.LoadUint32(&raw.Session))
	return out, ok && carp.SinceBoot(out.At) >= time.Duration(p.pulses.since[p.number].Load())
}

// read takes what a program is not just writing: its seq is odd meanwhile.
func (h *xdpPulseHeard) read(session uint32) (Heard, bool) {
	for range readTries {
		seq := atomic.LoadUint64(&h.Seq)
		if seq&1 != 0 {
			continue
		}
		out := Heard{
			Kind:      carp.PulseKind(atomic.LoadUint32((*uint32)(&h.Kind))),
			At:        carp.BootTime(time.Duration(atomic.LoadUint64(&h.At))),
			Nonce:     atomic.LoadUint64(&h.Nonce),
			Role:      carp.State(atomic.LoadUint32(&h.Role)),
			Term:      atomic.LoadUint64(&h.Term),
			Age:       time.Duration(atomic.LoadUint64(&h.Age)),
			Lease:     time.Duration(atomic.LoadUint64(&h.Lease)),
			Demotion:  uint8(atomic.LoadUint32(&h.Demotion)),
			Challenge: atomic.LoadUint32(&h.Challenge),
		}
		of := atomic.LoadUint32(&h.Session)
		if atomic.LoadUint64(&h.Seq) == seq {
			return out, session != 0 && of == session
		}
	}
	return Heard{}, false
}
