package loader

import (
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

const (
	testSession = 0xdeadbeef
	testTerm    = 40
)

var (
	testGroup    = carp.PulseGroup("lan")
	testPulseKey = carp.NewPulseKey([16]byte{0: 1, 15: 0xff})
	testPath     = uint16(513)
)

// pulseProgs are the programs that pulses come to, and what they do about them.
var pulseProgs = []struct {
	name, prog       string
	sync             bool
	back, drop, pass int32
}{
	{"carpdev/xdp", xdpProgCarpXdp, false, 3, 1, 2},
	{"carpdev/tc", ingressProgCarpIngress, false, 7, 2, -1},
	{"syncdev/xdp", pulseProgCarpSyncXdp, true, 3, 1, 2},
	{"syncdev/tc", pulseProgCarpSyncIngress, true, 7, 2, -1},
}

// pulseRig is a node that serves the test's group and knows the test's session.
type pulseRig struct {
	*rig
	nonce uint64
}

// It loads the programs at once, where what they get is to be a second old at most: under
// emulation that takes seconds.
func newPulseRig(tb testing.TB, progs ...string) *pulseRig {
	tb.Helper()
	r := &pulseRig{rig: newRig(tb)}
	for _, name := range progs {
		r.prog(tb, name)
	}
	r.nonce = uint64(bootNow())
	if err := errors.Join(
		r.pulses.Answer(testSession, testPulseKey),
		r.pulses.Serve(testGroup, r.port, testVHID),
		r.pulses.Path(int(testPath)).Set(testPulseKey, testSession, testGroup),
	); err != nil {
		tb.Fatal(err)
	}
	r.port.SetTerm(testVHID, testTerm)
	r.port.SetDemotion(testVHID, 7)
	r.port.Stamp(testVHID, carp.BootTime(bootNow()-20*time.Millisecond))
	return r
}

// word sets the role word.
func (r *pulseRig) word(s carp.State, d time.Duration) uint64 {
	w := word(carp.Role{State: s, Until: carp.BootTime(bootNow() + d)})
	r.port.maps.word(testVHID).Store(w)
	return w
}

// ask is a pulse with a nonce of its own.
func (r *pulseRig) ask(change ...func(*carp.Pulse)) carp.Pulse {
	r.nonce = max(r.nonce+1, uint64(bootNow()))
	p := carp.Pulse{Kind: carp.PulseAsk, Path: testPath, Session: testSession, Group: testGroup, Nonce: r.nonce}
	for _, c := range change {
		c(&p)
	}
	return p
}

func (r *pulseRig) claim(term uint64, change ...func(*carp.Pulse)) carp.Pulse {
	return r.ask(append([]func(*carp.Pulse){func(p *carp.Pulse) {
		p.Kind, p.Term, p.Challenge = carp.PulseClaim, term, challenge(bootNow())
	}}, change...)...)
}

func challenge(now time.Duration) uint32 { return uint32(now >> 16) }

// frame is the pulse as it comes from the peer.
func frame(p carp.Pulse) []byte {
	return testPulseKey.AppendFrame(nil, carp.MAC(ownMAC), carp.MAC(clientMAC), &p)
}

// exchange gives the program a pulse and returns what it sends back, whose times it
// has checked. What depends on no clock is in the result; the whole frame is compared
// with it.
func (r *pulseRig) exchange(t *testing.T, prog string, back int32, in carp.Pulse) carp.Pulse {
	t.Helper()
	before := bootNow()
	verdict, out := r.run(t, prog, nil, frame(in))
	after := bootNow()
	if verdict != back || len(out) < 14 {
		t.Fatalf("verdict: got %d, want %d", verdict, back)
	}
	var got carp.Pulse
	if err := got.UnmarshalBinary(out[14:]); err != nil {
		t.Fatalf("%v in %x", err, out)
	}
	if want := testPulseKey.AppendFrame(nil, carp.MAC(clientMAC), carp.MAC(ownMAC), &got); hex.EncodeToString(out) != hex.EncodeToString(want) {
		t.Errorf("frame:\ngot  %x\nwant %x", out, want)
	}
	if c := got.Challenge; c < challenge(before) || c > challenge(after) {
		t.Errorf("challenge: got %d, want one of %d to %d", c, challenge(before), challenge(after))
	}
	stamp := time.Duration(r.port.maps.stamp(testVHID).Load())
	if got.Age < (before-stamp).Truncate(time.Millisecond) || got.Age > after-stamp {
		t.Errorf("age: got %v, want %v to %v", got.Age, before-stamp, after-stamp)
	}
	lease := time.Duration(r.port.maps.word(testVHID).Load() &^ stateBits)
	if got.Role <= carp.Backup {
		lease = 0
	}
	if low, high := max(lease-after, 0).Truncate(time.Microsecond), max(lease-before, 0); got.Lease < low || got.Lease > high {
		t.Errorf("lease: got %v, want %v to %v", got.Lease, low, high)
	}
	got.Challenge, got.Age, got.Lease = 0, 0, 0
	return got
}

func TestAskIsAnsweredWithWhatHolds(t *testing.T) {
	r := newPulseRig(t)
	for _, m := range pulseProgs {
		for _, c := range []struct {
			name string
			set  carp.State
			left time.Duration
			want carp.State
		}{
			{"a master", carp.Master, time.Minute, carp.Master},
			{"a master for longer than can be said", carp.Master, 2 * time.Hour, carp.Master},
			{"a master whose lease is over", carp.Master, -time.Millisecond, carp.Backup},
			{"one that drains", carp.Drain, time.Minute, carp.Drain},
			{"one that has drained", carp.Drain, -time.Millisecond, carp.Backup},
			{"a backup", carp.Backup, 0, carp.Backup},
			{"one that takes no part", carp.Init, 0, carp.Init},
		} {
			t.Run(m.name+"/"+c.name, func(t *testing.T) {
				w := r.word(c.set, c.left)
				in := r.ask()
				want := in
				want.Kind, want.Role, want.Demotion, want.Term = carp.PulseAnswer, c.want, 7, testTerm
				if c.left > time.Hour {
					_, out := r.run(t, m.prog, nil, frame(in))
					var got carp.Pulse
					if err := got.UnmarshalBinary(out[14:]); err != nil || got.Lease != 4294967295*time.Microsecond {
						t.Errorf("got %+v, %v", got, err)
					}
					return
				}
				if got := r.exchange(t, m.prog, m.back, in); got != want {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
				if got := r.port.maps.word(testVHID).Load(); got != w {
					t.Errorf("role word: got %#x, want %#x", got, w)
				}
			})
		}
	}
}

// pulseCount is a counter of whichever device the program is for.
func (r *pulseRig) pulseCount(t *testing.T, sync bool, name string) (n uint64) {
	t.Helper()
	p := r.port
	if sync {
		p = r.sync
	}
	all, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range all {
		n += of[name]
	}
	return n
}

func TestAskThatIsNotAnswered(t *testing.T) {
	r := newPulseRig(t)
	r.word(carp.Master, time.Minute)
	if err := r.pulses.Serve(carp.PulseGroup("no vhid"), r.port, noVHID); err != nil {
		t.Fatal(err)
	}
	ask := r.ask()
	for _, c := range []struct {
		name    string
		in      []byte
		counter string
		drop    bool
	}{
		{"of a session that is not known", frame(r.ask(func(p *carp.Pulse) { p.Session++ })), "pulse_stranger", false},
		{"of session 0", frame(r.ask(func(p *carp.Pulse) { p.Session = 0 })), "pulse_stranger", false},
		{"of a group that is not known", frame(r.ask(func(p *carp.Pulse) { p.Group++ })), "pulse_stranger", true},
		{"of a group that is not configured", frame(r.ask(func(p *carp.Pulse) { p.Group = carp.PulseGroup("no vhid") })), "pulse_stranger", true},
		{"with a wrong MAC", edit(frame(ask), 61, frame(ask)[61]^1), "pulse_bad", true},
		{"with another nonce", edit(frame(ask), 31, frame(ask)[31]^1), "pulse_bad", true},
		{"that is cut off", frame(ask)[:61], "pulse_bad", false},
		{"with something after it", append(frame(ask), 0), "pulse_bad", false},
		{"of another version", edit(frame(ask), 14, 2), "pulse_bad", false},
		{"of no kind", edit(frame(ask), 15, 9), "pulse_bad", false},
		{"to somebody else", cat(otherMAC, frame(ask)[6:]), "", false},
		{"to all", cat(broadcast, frame(ask)[6:]), "", false},
		{"from many", edit(frame(ask), 6, 1), "", false},
	} {
		for _, m := range pulseProgs {
			t.Run(m.name+"/"+c.name, func(t *testing.T) {
				before := uint64(0)
				if c.counter != "" {
					before = r.pulseCount(t, m.sync, c.counter)
				}
				want := m.pass
				if c.drop {
					want = m.drop
				}
				got, out := r.run(t, m.prog, nil, c.in)
				if got != want || string(out) != string(c.in) {
					t.Errorf("verdict: got %d, want %d; frame:\ngot  %x\nwant %x", got, want, out, c.in)
				}
				if c.counter != "" {
					if n := r.pulseCount(t, m.sync, c.counter) - before; n != 1 {
						t.Errorf("counter %s: got %d, want 1", c.counter, n)
					}
				}
			})
		}
	}
}

// The node that asks does not answer itself, and takes its ask for no answer.
func TestOwnAskThatComesBackIsNobodys(t *testing.T) {
	r := newPulseRig(t)
	if err := r.pulses.Forget(testSession); err != nil {
		t.Fatal(err)
	}
	for _, m := range pulseProgs {
		if got, _ := r.run(t, m.prog, nil, frame(r.ask())); got != m.pass {
			t.Errorf("%s: got %d, want %d", m.name, got, m.pass)
		}
	}
	if got, ok := r.pulses.Path(int(testPath)).Last(); ok {
		t.Errorf("noted %+v", got)
	}
}

// Who repeats what he has heard uses up the bucket, and not the share of who asks.
func TestRepeatedAsksAreBounded(t *testing.T) {
	for _, m := range pulseProgs {
		t.Run(m.name, func(t *testing.T) {
			r := newPulseRig(t)
			r.word(carp.Master, time.Minute)
			old := frame(r.ask())
			answered, refused := 0, 0
			const floods = 1000
			start := bootNow()
			for range floods {
				switch got, _ := r.run(t, m.prog, nil, old); got {
				case m.back:
					answered++
				case m.drop:
					refused++
				default:
					t.Fatalf("verdict %d", got)
				}
			}
			// One that is new, 65 at once, and one a millisecond.
			if most := 66 + int((bootNow()-start)/time.Millisecond) + 1; answered > most || answered < 65 || answered+refused != floods {
				t.Errorf("answered %d, refused %d; want at most %d answered", answered, refused, most)
			}
			if n := r.pulseCount(t, m.sync, "pulse_limit"); n != uint64(refused) {
				t.Errorf("pulse_limit: got %d, want %d", n, refused)
			}
			for range 200 {
				if got, _ := r.run(t, m.prog, nil, frame(r.ask())); got != m.back {
					t.Fatalf("a new ask: got %d, want %d", got, m.back)
				}
			}
		})
	}
}

// Two devices have a newest ask each: one may be slower than the other.
func TestSlowerDeviceIsNotTakenForARepetition(t *testing.T) {
	r := newPulseRig(t)
	for range 200 {
		late := frame(r.ask())
		r.run(t, xdpProgCarpXdp, nil, frame(r.ask()))
		if got, _ := r.run(t, pulseProgCarpSyncXdp, nil, late); got != 3 {
			t.Fatalf("got %d, want 3", got)
		}
	}
	if n := r.pulseCount(t, true, "pulse_limit"); n != 0 {
		t.Errorf("pulse_limit: got %d, want 0", n)
	}
}

// Behind XDP that leaves the answers to tc, and behind XDP that does not.
func TestAsksAreHandedUp(t *testing.T) {
	r := newPulseRig(t)
	r.word(carp.Master, time.Minute)
	for _, c := range []struct {
		flags    xdpPortFlag
		xdp, tcs int32
	}{
		{xdpPortFlagPORT_XDP, 3, -1},
		{xdpPortFlagPORT_XDP | xdpPortFlagPORT_ANSWER_TC, 2, 7},
		{0, 3, 7},
	} {
		r.setPort(t, c.flags)
		for _, p := range []struct {
			prog string
			want int32
		}{{xdpProgCarpXdp, c.xdp}, {ingressProgCarpIngress, c.tcs}, {pulseProgCarpSyncXdp, c.xdp}, {pulseProgCarpSyncIngress, c.tcs}} {
			if got, _ := r.run(t, p.prog, nil, frame(r.ask())); got != p.want {
				t.Errorf("flags %d, %s: got %d, want %d", c.flags, p.prog, got, p.want)
			}
		}
	}
	// Answers are noted by XDP alone.
	r.setPort(t, xdpPortFlagPORT_XDP|xdpPortFlagPORT_ANSWER_TC)
	answer := r.ask()
	answer.Kind = carp.PulseAnswer
	if got, _ := r.run(t, ingressProgCarpIngress, nil, frame(answer)); got != -1 {
		t.Errorf("an answer behind XDP: got %d, want -1", got)
	}
	if got, _ := r.run(t, xdpProgCarpXdp, nil, frame(answer)); got != 1 {
		t.Errorf("an answer: got %d, want 1", got)
	}
}

func TestAnswersAreNoted(t *testing.T) {
	r := newPulseRig(t, xdpProgCarpXdp, ingressProgCarpIngress, pulseProgCarpSyncXdp, pulseProgCarpSyncIngress)
	path := r.pulses.Path(int(testPath))
	for _, m := range pulseProgs {
		for _, kind := range []carp.PulseKind{carp.PulseAnswer, carp.PulseAck, carp.PulseRefusal} {
			t.Run(m.name+"/"+kind.String(), func(t *testing.T) {
				in := r.ask(func(p *carp.Pulse) {
					p.Kind, p.Role, p.Demotion, p.Age, p.Term = kind, carp.Master, 3, 12*time.Millisecond, 99
					p.Lease, p.Challenge = 345678*time.Microsecond, 0x89abcdef
				})
				before := bootNow()
				if got, _ := r.run(t, m.prog, nil, frame(in)); got != m.drop {
					t.Errorf("verdict: got %d, want %d", got, m.drop)
				}
				after := bootNow()
				got, ok := path.Last()
				if kind != carp.PulseAnswer {
					got, ok = path.Claimed()
				}
				if at := carp.SinceBoot(got.At); !ok || at < before || at > after {
					t.Errorf("noted at %v (%v), want %v to %v", at, ok, before, after)
				}
				got.At = time.Time{}
				want := Heard{
					Kind: kind, Nonce: in.Nonce, Role: in.Role, Term: in.Term, Age: in.Age, Lease: in.Lease,
					Demotion: in.Demotion, Challenge: in.Challenge,
				}
				if got != want {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
			})
		}
	}
}

// A path that becomes that of another group, in the same session, knows nothing yet.
func TestAPathForgetsTheGroupBefore(t *testing.T) {
	r := newPulseRig(t, xdpProgCarpXdp)
	path := r.pulses.Path(int(testPath))
	in := r.ask(func(p *carp.Pulse) { p.Kind, p.Role = carp.PulseAnswer, carp.Master })
	r.run(t, xdpProgCarpXdp, nil, frame(in))
	if _, ok := path.Last(); !ok {
		t.Fatal("a genuine answer is not noted")
	}
	if err := path.Set(testPulseKey, in.Session, in.Group+1); err != nil {
		t.Fatal(err)
	}
	if h, ok := path.Last(); ok {
		t.Errorf("it tells of the other group: %+v", h)
	}
}

func TestAnswersThatAreNotNoted(t *testing.T) {
	r := newPulseRig(t, xdpProgCarpXdp, ingressProgCarpIngress, pulseProgCarpSyncXdp, pulseProgCarpSyncIngress)
	path := r.pulses.Path(int(testPath))
	answer := func(change func(*carp.Pulse)) carp.Pulse {
		return r.ask(func(p *carp.Pulse) { p.Kind, p.Role = carp.PulseAnswer, carp.Backup }, change)
	}
	same := func(*carp.Pulse) {}
	r.run(t, xdpProgCarpXdp, nil, frame(answer(same)))
	want, ok := path.Last()
	if !ok {
		t.Fatal("a genuine answer is not noted")
	}
	good := frame(answer(same))
	for _, c := range []struct {
		name    string
		in      []byte
		counter string
	}{
		{"the same one again", frame(answer(func(p *carp.Pulse) { p.Nonce = want.Nonce })), "pulse_old"},
		{"one before", frame(answer(func(p *carp.Pulse) { p.Nonce = want.Nonce - 1 })), "pulse_old"},
		{"one to what has not been asked yet", frame(answer(func(p *carp.Pulse) { p.Nonce = uint64(bootNow() + time.Minute) })), "pulse_old"},
		{"of another session", frame(answer(func(p *carp.Pulse) { p.Session++ })), "pulse_stranger"},
		{"of another group", frame(answer(func(p *carp.Pulse) { p.Group++ })), "pulse_stranger"},
		{"of another path", frame(answer(func(p *carp.Pulse) { p.Path++ })), "pulse_stranger"},
		{"of a path that cannot be", frame(answer(func(p *carp.Pulse) { p.Path = 0xffff })), "pulse_stranger"},
		{"of session 0", frame(answer(func(p *carp.Pulse) { p.Session, p.Path = 0, 0 })), "pulse_stranger"},
		{"with a wrong MAC", edit(good, 61, good[61]^1), "pulse_bad"},
		{"that says another role", edit(good, 16, 2), "pulse_bad"},
	} {
		for _, m := range pulseProgs {
			before := r.pulseCount(t, m.sync, c.counter)
			if got, _ := r.run(t, m.prog, nil, c.in); got != m.drop {
				t.Errorf("%s/%s: verdict %d, want %d", m.name, c.name, got, m.drop)
			}
			if n := r.pulseCount(t, m.sync, c.counter) - before; n != 1 {
				t.Errorf("%s/%s: counter %s: got %d, want 1", m.name, c.name, c.counter, n)
			}
			if got, _ := path.Last(); got != want {
				t.Errorf("%s/%s: noted %+v", m.name, c.name, got)
			}
		}
	}
	// After a change of the session what was heard in the one before is not shown.
	if err := path.Set(testPulseKey, testSession+1, testGroup); err != nil {
		t.Fatal(err)
	}
	if got, ok := path.Last(); ok {
		t.Errorf("of the session before: %+v", got)
	}
	r.run(t, xdpProgCarpXdp, nil, good)
	if got, ok := path.Last(); ok {
		t.Errorf("noted of the session before: %+v", got)
	}
}

func TestFrameForTheVirtualMACIsAHint(t *testing.T) {
	for _, prog := range []string{xdpProgCarpXdp, ingressProgCarpIngress} {
		r := newPulseRig(t)
		in := ethernet(vmac(testVHID), clientMAC, 0x0800, ipv4(client4, own4, 17, 64, make([]byte, 26)))
		r.word(carp.Master, time.Minute)
		r.run(t, prog, nil, in)
		if got := r.port.Hint(testVHID); !got.IsZero() {
			t.Errorf("%s: a master was given the hint %v", prog, got)
		}
		r.word(carp.Backup, 0)
		r.port.AwaitFirst(testVHID)
		before := bootNow()
		r.run(t, prog, nil, in)
		if got := r.port.First(testVHID); !got.IsZero() {
			t.Errorf("%s: a backup took the first frame at %v", prog, got)
		}
		if got := carp.SinceBoot(r.port.Hint(testVHID)); got < before || got > bootNow() {
			t.Errorf("%s: hint at %v, want after %v", prog, got, before)
		}
		r.word(carp.Master, time.Minute)
		before = bootNow()
		r.run(t, prog, nil, in)
		first := carp.SinceBoot(r.port.First(testVHID))
		r.run(t, prog, nil, in)
		if got := carp.SinceBoot(r.port.First(testVHID)); first < before || got != first {
			t.Errorf("%s: first frames at %v and %v, want one after %v", prog, first, got, before)
		}
	}
}
