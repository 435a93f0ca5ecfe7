package loader

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// together runs all of them at once and waits.
func together(f ...func()) {
	var begin, end sync.WaitGroup
	begin.Add(1)
	for _, one := range f {
		end.Go(func() {
			begin.Wait()
			one()
		})
	}
	begin.Done()
	end.Wait()
}

// kindOf is what the program sends back, 0 for nothing.
func (r *pulseRig) kindOf(t *testing.T, prog string, in []byte) carp.PulseKind {
	_, out := r.run(t, prog, nil, in)
	var p carp.Pulse
	if err := p.UnmarshalBinary(out[14:]); err != nil {
		t.Error(err)
	}
	return p.Kind
}

// Two nodes claim one term at the same instant, each by two devices: one gets it.
func TestTwoClaimantsOneWinner(t *testing.T) {
	r := newPulseRig(t)
	sessions := []uint32{testSession, testSession + 1}
	if err := r.pulses.Answer(sessions[1], testPulseKey); err != nil {
		t.Fatal(err)
	}
	progs := []string{xdpProgCarpXdp, pulseProgCarpSyncXdp}
	for _, prog := range progs {
		r.prog(t, prog)
	}
	for term := uint64(testTerm + 1); term < testTerm+300; term++ {
		r.word(carp.Master, time.Minute)
		var got [2][2]carp.PulseKind
		var f []func()
		for i, session := range sessions {
			for j, prog := range progs {
				in := frame(r.claim(term, func(p *carp.Pulse) { p.Session = session }))
				f = append(f, func() { got[i][j] = r.kindOf(t, prog, in) })
			}
		}
		together(f...)
		acked := func(i int) bool { return got[i][0] == carp.PulseAck || got[i][1] == carp.PulseAck }
		if acked(0) == acked(1) {
			t.Fatalf("term %d: answers %v, want one winner", term, got)
		}
		if s := r.port.Role(testVHID).State; s != carp.Drain {
			t.Fatalf("term %d: role %v, want DRAIN", term, s)
		}
	}
}

// A daemon renews its lease, or takes over, while a claim is acknowledged: whichever
// comes first, it is not master afterwards.
func TestAcknowledgedClaimBeatsTheDaemon(t *testing.T) {
	r := newPulseRig(t, xdpProgCarpXdp)
	lost := 0
	for term := uint64(testTerm + 1); term < testTerm+300; term++ {
		from := carp.Backup
		if term%2 == 0 {
			from = carp.Master
		}
		r.word(from, time.Minute)
		r.port.Accept(testVHID)
		in := frame(r.claim(term))
		var kind carp.PulseKind
		together(
			func() { kind = r.kindOf(t, xdpProgCarpXdp, in) },
			func() {
				for range 20 {
					if errors.Is(r.port.SetRole(testVHID, master(time.Minute)), ErrChanged) {
						lost++
						break
					}
				}
			},
		)
		if s := r.port.Role(testVHID).State; kind == carp.PulseAck && s == carp.Master {
			t.Fatalf("term %d: %v, and the role is %v", term, kind, s)
		}
	}
	t.Logf("%d of 299 daemons found out within 20 renewals", lost)
}

// A reader never sees half of one answer and half of another.
func TestAnswersAreReadWhole(t *testing.T) {
	r := newPulseRig(t, xdpProgCarpXdp)
	path := r.pulses.Path(int(testPath))
	done := make(chan struct{})
	seen := 0
	together(
		func() {
			defer close(done)
			for range 3000 {
				in := r.ask(func(p *carp.Pulse) {
					p.Kind, p.Role, p.Term, p.Challenge = carp.PulseAnswer, carp.Master, p.Nonce, uint32(p.Nonce)
					p.Demotion = uint8(p.Nonce)
				})
				r.run(t, xdpProgCarpXdp, nil, frame(in))
			}
		},
		func() {
			var last uint64
			for {
				select {
				case <-done:
					return
				default:
				}
				h, ok := path.Last()
				if !ok {
					continue
				}
				if h.Term != h.Nonce || h.Challenge != uint32(h.Nonce) || h.Demotion != uint8(h.Nonce) || h.Nonce < last {
					t.Errorf("after %d: %+v", last, h)
					return
				}
				if h.Nonce != last {
					seen++
				}
				last = h.Nonce
			}
		},
	)
	if seen == 0 {
		t.Error("nothing was read")
	}
}
