package loader

import (
	"errors"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

const drains = 100 * time.Millisecond

// events are what waits for user space.
func (r *pulseRig) events(t *testing.T) []PulseEvent {
	t.Helper()
	e, err := r.pulses.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	e.reader.SetDeadline(time.Unix(1, 0)) // what is there, and no waiting
	var all []PulseEvent
	for {
		one, err := e.Read()
		if err != nil {
			return all
		}
		if at := carp.SinceBoot(one.At); at <= 0 || at > bootNow() {
			t.Errorf("event at %v, now is %v", at, bootNow())
		}
		one.At = time.Time{}
		all = append(all, one)
	}
}

func same(got, want []PulseEvent) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if got[i] != want[i] {
			return false
		}
	}
	return true
}

func TestClaimTakesTheRole(t *testing.T) {
	for _, m := range pulseProgs {
		for _, c := range []struct {
			name      string
			set       carp.State
			left      time.Duration
			was, want carp.State
		}{
			{"from a master", carp.Master, time.Minute, carp.Master, carp.Drain},
			{"from a master whose lease is over", carp.Master, -time.Millisecond, carp.Backup, carp.Backup},
			{"from one that drains", carp.Drain, time.Millisecond, carp.Drain, carp.Drain},
			{"from a backup", carp.Backup, 0, carp.Backup, carp.Backup},
			{"from one that takes no part", carp.Init, 0, carp.Init, carp.Init},
		} {
			t.Run(m.name+"/"+c.name, func(t *testing.T) {
				r := newPulseRig(t, m.prog)
				if c.set == carp.Drain {
					c.left = time.Minute
				}
				was := r.word(c.set, c.left)
				r.port.Accept(testVHID)
				in := r.claim(testTerm + 1)
				want := in
				want.Kind, want.Role, want.Demotion, want.Challenge = carp.PulseAck, c.want, 7, 0
				before := bootNow()
				if got := r.exchange(t, m.prog, m.back, in); got != want {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
				after := bootNow()
				w := r.port.maps.word(testVHID).Load()
				if got := carp.State(w & stateBits); got != c.want {
					t.Errorf("role: got %v, want %v", got, c.want)
				}
				if until := time.Duration(w &^ stateBits); c.want == carp.Drain && (until < before+drains-4 || until > after+drains) {
					t.Errorf("drains until %v, want %v to %v", until, before+drains, after+drains)
				}
				if w == was {
					t.Error("the role word is what it was: the daemon cannot know")
				}
				if got := r.port.Term(testVHID); got != testTerm+1 {
					t.Errorf("term: got %d, want %d", got, testTerm+1)
				}
				// A renewal or a takeover that was under way fails.
				if err := r.port.SetRole(testVHID, master(time.Minute)); !errors.Is(err, ErrChanged) {
					t.Errorf("SetRole: got %v, want ErrChanged", err)
				}
				if got := r.events(t); !same(got, []PulseEvent{{Group: testGroup, Session: testSession, Term: testTerm + 1, Had: testTerm, Acked: true, Role: c.was}}) {
					t.Errorf("events: %+v", got)
				}
				// By the other device, or again since the answer was lost.
				if c.want == carp.Drain { // see TestClaimThatIsRefused
					w = r.word(carp.Drain, time.Minute)
				}
				in = r.claim(testTerm + 1)
				want.Nonce = in.Nonce
				if got := r.exchange(t, m.prog, m.back, in); got != want {
					t.Errorf("again:\ngot  %+v\nwant %+v", got, want)
				}
				if got := r.port.maps.word(testVHID).Load(); got != w {
					t.Errorf("the claim that came again changed the role word to %#x", got)
				}
				if got := r.events(t); len(got) != 0 {
					t.Errorf("events of the claim that came again: %+v", got)
				}
				// After Accept the group may be elected.
				r.port.Accept(testVHID)
				if err := r.port.SetRole(testVHID, master(time.Minute)); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A daemon that has renewed its lease while the claim was on its way, and whose
// own term says that it has not heard of the claim, loses the role all the same.
func TestClaimThatComesAgainFinishesTheWork(t *testing.T) {
	r := newPulseRig(t, xdpProgCarpXdp, pulseProgCarpSyncXdp)
	r.word(carp.Master, time.Minute)
	r.exchange(t, xdpProgCarpXdp, 3, r.claim(testTerm+1))
	r.word(carp.Master, time.Minute)
	r.exchange(t, pulseProgCarpSyncXdp, 3, r.claim(testTerm+1))
	if got := carp.State(r.port.maps.word(testVHID).Load() & stateBits); got != carp.Drain {
		t.Errorf("got %v, want DRAIN", got)
	}
}

func TestClaimThatIsRefused(t *testing.T) {
	const other = testSession + 1
	stranger := func(p *carp.Pulse) { p.Session = other }
	for _, m := range pulseProgs {
		for _, c := range []struct {
			name   string
			before []func(*pulseRig) carp.Pulse // claims that are acknowledged
			in     func(*pulseRig) carp.Pulse
			term   uint64
			role   carp.State
		}{
			{name: "of the term that is", in: func(r *pulseRig) carp.Pulse { return r.claim(testTerm) }, term: testTerm, role: carp.Master},
			{name: "of a term before", in: func(r *pulseRig) carp.Pulse { return r.claim(testTerm - 1) }, term: testTerm, role: carp.Master},
			{name: "of a term too far ahead", in: func(r *pulseRig) carp.Pulse { return r.claim(testTerm + 1<<31) }, term: testTerm, role: carp.Master},
			{name: "with a challenge that is old", in: func(r *pulseRig) carp.Pulse {
				return r.claim(testTerm+1, func(p *carp.Pulse) { p.Challenge = challenge(bootNow() - 1100*time.Millisecond) })
			}, term: testTerm, role: carp.Master},
			{name: "with a challenge of the future", in: func(r *pulseRig) carp.Pulse {
				return r.claim(testTerm+1, func(p *carp.Pulse) { p.Challenge = challenge(bootNow() + time.Minute) })
			}, term: testTerm, role: carp.Master},
			{name: "second of its term", before: []func(*pulseRig) carp.Pulse{func(r *pulseRig) carp.Pulse { return r.claim(testTerm+1, stranger) }},
				in: func(r *pulseRig) carp.Pulse { return r.claim(testTerm + 1) }, term: testTerm + 1, role: carp.Drain},
			{name: "acknowledged once, and outdone since", before: []func(*pulseRig) carp.Pulse{
				func(r *pulseRig) carp.Pulse { return r.claim(testTerm + 1) },
				func(r *pulseRig) carp.Pulse { return r.claim(testTerm+2, stranger) }},
				in: func(r *pulseRig) carp.Pulse { return r.claim(testTerm + 1) }, term: testTerm + 2, role: carp.Drain},
		} {
			t.Run(m.name+"/"+c.name, func(t *testing.T) {
				r := newPulseRig(t, m.prog)
				if err := r.pulses.Answer(other, testPulseKey); err != nil {
					t.Fatal(err)
				}
				r.word(carp.Master, time.Minute)
				for _, before := range c.before {
					if got := r.exchange(t, m.prog, m.back, before(r)); got.Kind != carp.PulseAck {
						t.Fatalf("got %+v, want it acknowledged", got)
					}
				}
				r.events(t)
				if c.role == carp.Drain { // the drain of a claim is over in 100 ms, which an emulator may need for a frame
					r.word(carp.Drain, time.Minute)
				}
				w, in := r.port.maps.word(testVHID).Load(), c.in(r)
				want := in
				want.Kind, want.Role, want.Demotion, want.Term, want.Challenge = carp.PulseRefusal, c.role, 7, c.term, 0
				if got := r.exchange(t, m.prog, m.back, in); got != want {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
				if got := r.port.maps.word(testVHID).Load(); got != w {
					t.Errorf("role word: got %#x, want %#x", got, w)
				}
				if got := r.events(t); !same(got, []PulseEvent{{Group: testGroup, Session: testSession, Term: in.Term, Had: c.term, Role: c.role}}) {
					t.Errorf("events: %+v", got)
				}
				// Who repeats it is refused as well, and wakes nobody.
				r.exchange(t, m.prog, m.back, in)
				if got := r.events(t); len(got) != 0 {
					t.Errorf("events of the repetition: %+v", got)
				}
			})
		}
	}
}

// The daemon's own takeover raises the term: what was acknowledged before is over.
func TestTermOfTheDaemonCountsToo(t *testing.T) {
	r := newPulseRig(t, xdpProgCarpXdp)
	r.word(carp.Master, time.Minute)
	r.exchange(t, xdpProgCarpXdp, 3, r.claim(testTerm+1))
	r.port.SetTerm(testVHID, testTerm+2)
	r.word(carp.Master, time.Minute)
	if got := r.exchange(t, xdpProgCarpXdp, 3, r.claim(testTerm+1)); got.Kind != carp.PulseRefusal || got.Term != testTerm+2 {
		t.Errorf("got %+v, want a refusal of term %d", got, testTerm+2)
	}
	if got := r.port.Role(testVHID).State; got != carp.Master {
		t.Errorf("role: got %v, want MASTER", got)
	}
}

// Terms of 64 bits, where the half that is noted wraps.
func TestClaimWhereTheHalfTermWraps(t *testing.T) {
	r := newPulseRig(t, xdpProgCarpXdp)
	const term = 7<<32 | 0xffffffff
	r.port.SetTerm(testVHID, term)
	r.word(carp.Master, time.Minute)
	if got := r.exchange(t, xdpProgCarpXdp, 3, r.claim(term+1)); got.Kind != carp.PulseAck {
		t.Errorf("got %+v, want it acknowledged", got)
	}
	if got := r.exchange(t, xdpProgCarpXdp, 3, r.ask()); got.Term != term+1 {
		t.Errorf("term: got %#x, want %#x", got.Term, uint64(term+1))
	}
	if got := r.port.Term(testVHID); got != term+1 {
		t.Errorf("term: got %#x, want %#x", got, uint64(term+1))
	}
}

// A claim that has a wrong MAC, or is of nobody we know, changes nothing.
func TestForgedClaim(t *testing.T) {
	r := newPulseRig(t)
	w := r.word(carp.Master, time.Minute)
	in := frame(r.claim(testTerm + 1))
	for _, b := range [][]byte{edit(in, 61, in[61]^1), frame(r.claim(testTerm+1, func(p *carp.Pulse) { p.Session++ }))} {
		for _, m := range pulseProgs {
			if got, _ := r.run(t, m.prog, nil, b); got == m.back {
				t.Errorf("%s: answered", m.name)
			}
		}
	}
	if got := r.port.maps.word(testVHID).Load(); got != w {
		t.Errorf("role word: got %#x, want %#x", got, w)
	}
	if got := r.events(t); len(got) != 0 {
		t.Errorf("events: %+v", got)
	}
}

// The numbers of kinds are written down twice.
func TestKindsAreThoseOfTheCodec(t *testing.T) {
	for got, want := range map[xdpPulseKind]carp.PulseKind{
		xdpPulseKindPULSE_ASK: carp.PulseAsk, xdpPulseKindPULSE_ANSWER: carp.PulseAnswer, xdpPulseKindPULSE_CLAIM: carp.PulseClaim,
		xdpPulseKindPULSE_ACK: carp.PulseAck, xdpPulseKindPULSE_REFUSAL: carp.PulseRefusal,
	} {
		if uint32(got) != uint32(want) {
			t.Errorf("%v: got %d, want %d", want, got, want)
		}
	}
}
