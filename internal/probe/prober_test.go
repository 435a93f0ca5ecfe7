package probe

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// loopback returns a wire of both families over lo, and the far end's port.
func loopback(t *testing.T, paths ...string) *UDP {
	t.Helper()
	far := &UDP{far: -1}
	if err := far.Listen(0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(far.far)
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(sa.(*unix.SockaddrInet6).Port)
	var to []netip.AddrPort
	for _, p := range paths {
		to = append(to, netip.AddrPortFrom(netip.MustParseAddr(p), port))
	}
	w, err := NewUDP(to...)
	if err != nil {
		t.Fatal(err)
	}
	w.far = far.far
	return w
}

func TestEveryProbeIsStampedAtBothEnds(t *testing.T) {
	w := loopback(t, "127.0.0.1", "::1")
	begun := time.Now()
	now := func() time.Duration { return time.Since(begun) }
	p := Start(w, 2, time.Minute, now)
	const want = 100
	deadline := time.Now().Add(10 * time.Second)
	complete := func(i int) bool {
		s := p.Shots(i, 0, time.Hour)
		return len(s) >= want && s[want-1].Answered != 0
	}
	for !(complete(0) && complete(1)) && time.Now().Before(deadline) {
		time.Sleep(Interval)
	}
	defer func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	}()
	for i := range 2 {
		s := p.Shots(i, 0, time.Hour)
		if len(s) < want {
			t.Fatalf("path %d: %d probes sent", i, len(s))
		}
		for k, s := range s[:want] {
			if s.Sent == 0 || s.Arrived < s.Sent || s.Answered < s.Arrived || s.Arrivals != 1 || s.Answers != 1 {
				t.Fatalf("path %d, probe %d: %+v, want it sent, arrived and answered, in that order and once", i, k, s)
			}
		}
	}
	if !p.AnsweredSince(0) || p.AnsweredSince(now()+time.Hour) {
		t.Error("AnsweredSince does not look at when a probe was sent")
	}
}

// An end that stands still for a second, as a thread of a busy machine can, finds
// everything that came meanwhile: nothing of it was the network's loss.
func TestALateEndLosesNoProbe(t *testing.T) {
	nstest.RequireRoot(t) // others have what the system allows
	w := loopback(t, "127.0.0.1", "::1")
	defer w.Close()
	const each = uint64(time.Second / Interval)
	for seq := range each {
		w.Send(0, seq)
		w.Send(1, seq)
	}
	arrived := uint64(0)
	for arrived < 2*each {
		if _, _, ok := w.Request(); !ok {
			break
		}
		arrived++
		w.Reply()
	}
	answered := uint64(0)
	for answered < arrived {
		if _, _, ok := w.Receive(); !ok {
			break
		}
		answered++
	}
	if arrived != 2*each || answered != arrived {
		t.Errorf("of %d probes %d arrived, %d were answered", 2*each, arrived, answered)
	}
}

func TestProbesThatArriveTwiceAreCounted(t *testing.T) {
	w := loopback(t, "127.0.0.1")
	p := Start(&twice{UDP: w}, 1, 20*time.Millisecond, func() time.Duration { return time.Duration(time.Now().UnixNano()) })
	deadline := time.Now().Add(10 * time.Second)
	doubled := func() int { return Measure(p.Shots(0, 0, 1<<62), 0).Doubled }
	for doubled() < 40 && time.Now().Before(deadline) {
		time.Sleep(Interval)
	}
	if got := doubled(); got != 40 {
		t.Errorf("%d of 40 probes are doubled", got)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

// twice is a network that duplicates.
type twice struct{ *UDP }

func (w *twice) Send(path int, seq uint64) {
	w.UDP.Send(path, seq)
	w.UDP.Send(path, seq)
}

func TestOtherPacketsAreNoProbes(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, 8), make([]byte, 17), {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if path, seq, ok := payload(b); ok {
			t.Errorf("%v is probe %d of path %d", b, seq, path)
		}
	}
	var b [payloadLen]byte
	putPayload(b[:], 1, 1<<40)
	if path, seq, ok := payload(b[:]); path != 1 || seq != 1<<40 || !ok {
		t.Errorf("got %d, %d, %v, want 1, 1<<40", path, seq, ok)
	}
}

func TestEchoesAreAnswers(t *testing.T) {
	for _, to := range []string{"127.0.0.1", "::1"} {
		w, err := NewICMP(netip.MustParseAddr(to))
		if err != nil {
			nstest.Skip(t, err.Error())
		}
		begun := time.Now()
		p := Start(w, 1, time.Minute, func() time.Duration { return time.Since(begun) })
		deadline := time.Now().Add(10 * time.Second)
		for !p.AnsweredSince(0) && time.Now().Before(deadline) {
			time.Sleep(Interval)
		}
		for _, s := range p.Shots(0, 0, time.Hour)[:1] {
			if s.Answered < s.Sent || s.Answers != 1 || s.Arrived != 0 {
				t.Errorf("%s: %+v, want one answer", to, s)
			}
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	}
}
