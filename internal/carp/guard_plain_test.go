package carp

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestATrailerIsTurnedOff restarts a node whose peer has heard it sign without its
// trailer: it is a plain peer from then on, and what it signed before is still no
// plain advert.
func TestATrailerIsTurnedOff(t *testing.T) {
	r := newRig(t, Compat)
	signed := r.advert(r.a, 1, 0)
	r.want("signed", r.b, signed, "10.0.0.2", Accepted, NoAlarm)
	c := r.a.cfg
	c.Send, c.Epoch, c.Counter = false, c.Epoch+1, r.n+CounterBlock
	r.a = NewGuard(c)
	m := NewMachine(Config{VHID: 7, AdvBase: 1, Node: c.Node, Counter: c.Counter})
	for range 3 {
		b := r.a.Sign(nil, m.advert(), 9)
		r.want("plain", r.b, b, "10.0.0.2", Accepted, NoAlarm)
		r.want("to its sender", r.a, b, "10.0.0.2", DropLoop, NoAlarm)
	}
	r.want("signed, again", r.b, signed, "10.0.0.2", DropReplay, AlarmReplay)
	r.want("stripped", r.b, signed[:AdvertLen], "10.0.0.2", DropReplay, AlarmRelabeled)
	if r.a.Remind(r.b.Mark(c.Node)) {
		t.Error("what a peer knows of our last life makes a new epoch, and so each time that it says it")
	}
}

const plainA, plainB = "10.0.0.3", "10.0.0.4"

// TestOpenBSDReboots changes the one counter that it has, in all modes that believe
// a plain peer, and goes on with the new one. It may say with the old one nothing
// better than it did.
func TestOpenBSDReboots(t *testing.T) {
	for _, mode := range []Auth{Compat, Permissive} {
		alarm := map[Auth]Alarm{Permissive: AlarmPlain}[mode]
		r := newRig(t, mode)
		for life := range uint64(5) {
			counter := 77 ^ life<<40
			for range 4 {
				r.want("as ever", r.b, r.plain(counter, 1, 100), plainA, Accepted, alarm)
				r.now = r.now.Add(time.Second)
			}
			r.want("better", r.b, r.plain(counter, 1, 0), plainA, DropPinned, AlarmBetter)
			if life > 0 {
				r.want("of its life before, better", r.b, r.plain(77^(life-1)<<40, 1, 0), plainA, DropPinned, AlarmBetter)
			}
		}
	}
}

// TestCapturesOfAPlainPeer plays back what was heard long ago, from everywhere.
func TestCapturesOfAPlainPeer(t *testing.T) {
	const last = 3 * recentPlain
	r := newRig(t, Compat)
	for n := uint64(1); n <= last; n++ {
		r.want("genuine", r.b, r.plain(n, 1, 100), plainA, Accepted, NoAlarm)
		r.now = r.now.Add(time.Second)
	}
	for _, from := range []string{plainA, plainB, "fe80::3", "fe80::66"} {
		for _, n := range []uint64{5, last - 5, last} {
			want := AlarmRelabeled
			if from == plainA {
				want = AlarmReplay
			}
			r.want("as it was, from "+from, r.b, r.plain(n, 1, 100), from, DropReplay, want)
			r.want("better, from "+from, r.b, r.plain(n, 0, 0), from, DropReplay, AlarmRelabeled)
			r.want("as a goodbye, from "+from, r.b, r.plain(n, 255, 255), from, DropReplay, AlarmRelabeled)
		}
	}
	r.now = r.now.Add(time.Hour)
	r.want("when it has been gone, from elsewhere", r.b, r.plain(5, 0, 0), plainB, DropReplay, AlarmRelabeled)
	r.want("by the other family", r.b, r.plain(6, 0, 0), "fe80::66", DropReplay, AlarmRelabeled)
	r.want("the last one", r.b, r.plain(last, 0, 0), plainA, DropReplay, AlarmRelabeled)
	r.want("itself", r.b, r.plain(last+1, 1, 100), plainA, Accepted, NoAlarm)
}

// TestOneSpeakerInBothFamilies hears FreeBSD, whose counter goes on from one family
// to the other, and OpenBSD, whose does not.
func TestOneSpeakerInBothFamilies(t *testing.T) {
	r := newRig(t, Compat)
	for n := uint64(100); n < 110; n += 2 {
		r.want("FreeBSD, IPv4", r.b, r.plain(n, 1, 100), plainA, Accepted, NoAlarm)
		r.want("FreeBSD, IPv6", r.b, r.plain(n+1, 1, 100), "fe80::3", Accepted, NoAlarm)
		r.want("OpenBSD, IPv4", r.b, r.plain(1<<50, 1, 50), plainB, Accepted, NoAlarm)
		r.want("OpenBSD, IPv6", r.b, r.plain(1<<50, 1, 50), "fe80::4", Accepted, NoAlarm)
		r.want("FreeBSD's by IPv6", r.b, r.plain(n, 1, 0), "fe80::3", DropReplay, AlarmRelabeled)
		r.want("OpenBSD's by IPv6", r.b, r.plain(1<<50, 1, 0), "fe80::66", DropReplay, AlarmRelabeled)
		r.want("OpenBSD's, better", r.b, r.plain(1<<50, 1, 0), "fe80::4", DropPinned, AlarmBetter)
	}
	if n := len(r.b.plain); n != 2 {
		t.Errorf("%d peers, want 2", n)
	}
}

// TestFamiliesOvertakeEachOther sends the two frames of an advert by two queues of
// a NIC.
func TestFamiliesOvertakeEachOther(t *testing.T) {
	r := newRig(t, Compat)
	for n := uint64(98); n < 102; n += 2 {
		r.want("IPv6", r.b, r.plain(n+1, 1, 100), "fe80::3", Accepted, NoAlarm)
	}
	r.want("the first IPv4, late", r.b, r.plain(100, 1, 100), plainA, Accepted, NoAlarm)
	for n := uint64(102); n < 120; n += 2 {
		r.want("IPv6", r.b, r.plain(n+1, 1, 100), "fe80::3", Accepted, NoAlarm)
		r.want("IPv4, late", r.b, r.plain(n, 1, 100), plainA, Accepted, NoAlarm)
		r.want("IPv4, again", r.b, r.plain(n, 1, 100), plainA, DropReplay, AlarmReplay)
		r.want("IPv6, again", r.b, r.plain(n+1, 1, 100), "fe80::3", DropReplay, AlarmReplay)
		r.want("IPv6 by IPv4", r.b, r.plain(n+1, 1, 100), plainA, DropReplay, AlarmReplay)
	}
	r.want("IPv6", r.b, r.plain(130, 1, 100), "fe80::3", Accepted, NoAlarm)
	r.want("an IPv6 one that got lost", r.b, r.plain(129, 1, 100), "fe80::3", DropReplay, AlarmReplay)
}

// TestTwoPeersInOnePlace have no addresses of their own: both speak from the shared
// one, at the same time while they agree who stays.
func TestTwoPeersInOnePlace(t *testing.T) {
	for name, next := range map[string]func(n uint64) uint64{
		"whose counters stand still": func(n uint64) uint64 { return n },
		"whose counters move":        func(n uint64) uint64 { return n + 1 },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Compat)
			a, b := uint64(1<<40), uint64(1<<50)
			for range 20 {
				r.want("the one", r.b, r.plain(a, 1, 100), plainA, Accepted, NoAlarm)
				r.want("the other", r.b, r.plain(b, 1, 100), plainA, Accepted, NoAlarm)
				a, b = next(a), next(b)
			}
			if next(0) == 1 {
				r.want("of the one, again", r.b, r.plain(a-1, 1, 100), plainA, DropReplay, AlarmReplay)
				r.want("of the other, again", r.b, r.plain(b-9, 1, 100), plainA, DropReplay, AlarmReplay)
			}
		})
	}
}

// TestCountersThatAreDrawn are those of FreeBSD and ucarp that have never heard
// anybody. One odd counter between others makes no such peer.
func TestCountersThatAreDrawn(t *testing.T) {
	r := newRig(t, Compat)
	rng := rand.New(rand.NewPCG(1, 2))
	var n uint64
	for range 100 {
		n = rng.Uint64()
		r.want("drawn", r.b, r.plain(n, 1, 100), plainA, Accepted, NoAlarm)
		r.now = r.now.Add(time.Second)
	}
	for _, from := range []string{plainA, plainB, "fe80::3"} {
		r.want("the last one, better", r.b, r.plain(n, 0, 0), from, DropReplay, AlarmRelabeled)
		r.want("the last one, as a goodbye", r.b, r.plain(n, 255, 255), from, DropReplay, AlarmRelabeled)
	}
	for i := range uint64(3) { // it has heard somebody, and counts on from there
		r.want("counted", r.b, r.plain(1<<33+i, 1, 100), plainA, Accepted, NoAlarm)
	}
	r.want("counted, again", r.b, r.plain(1<<33+2, 1, 100), plainA, DropReplay, AlarmReplay)
	if n := len(r.b.plain); n > 4 {
		t.Errorf("%d peers remembered of one", n)
	}
}

// TestTwoThatCountOnFromEachOther are two masters for a while, which the node hears
// both: FreeBSD goes on from whatever it heard last.
func TestTwoThatCountOnFromEachOther(t *testing.T) {
	r := newRig(t, Compat)
	for n := uint64(100); n < 400; n++ {
		r.want("the one", r.b, r.plain(n, 1, 0), plainA, Accepted, NoAlarm)
	}
	for n := range uint64(50) {
		r.want("the other, from there", r.b, r.plain(400+n, 1, 100), plainB, Accepted, NoAlarm)
		r.want("the one, faster", r.b, r.plain(1000+2*n, 1, 0), plainA, Accepted, NoAlarm)
		r.now = r.now.Add(time.Second)
	}
	r.want("the one's, from the other's place", r.b, r.plain(1040, 1, 0), plainB, DropReplay, AlarmRelabeled)
	r.now = r.now.Add(time.Minute)
	r.want("the one goes on from the other", r.b, r.plain(450, 1, 0), plainA, Accepted, NoAlarm)
}

// TestAPeerThatIsFirstHeardDemoted boots, demoted until it is ready, and says then
// how good it is.
func TestAPeerThatIsFirstHeardDemoted(t *testing.T) {
	better := func(r *rig, what string, b []byte) {
		t.Helper()
		if v := r.want(what, r.b, b, plainA, Accepted, NoAlarm); v.AdvSkew != 0 {
			t.Errorf("%s: advskew %d, want its own", what, v.AdvSkew)
		}
	}
	for name, demotion := range map[string]uint8{"that says so": 240, "that folds it into its advskew": 0} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Compat)
			r.want("demoted", r.b, relabel(r.plain(100, 1, 0), 1, 240, demotion), plainA, Accepted, NoAlarm)
			better(r, "ready", r.plain(101, 1, 0))
			r.want("as it was, relabeled", r.b, r.plain(100, 0, 0), plainA, DropReplay, AlarmRelabeled)
			if v := r.want("better still", r.b, r.plain(102, 0, 50), plainA, Accepted, AlarmBetter); v.AdvBase != 1 {
				t.Errorf("advbase %d, want the pinned 1", v.AdvBase)
			}
		})
	}
	t.Run("whose counter stands still", func(t *testing.T) {
		r := newRig(t, Compat)
		down := r.b.cfg.Forget / 3
		demoted := relabel(r.plain(77, 1, 0), 1, 240, 240)
		for range 5 { // it lives: what says other things is not from it
			r.want("demoted", r.b, demoted, plainA, Accepted, NoAlarm)
			r.want("relabeled", r.b, r.plain(77, 1, 0), plainA, DropPinned, AlarmBetter)
			r.now = r.now.Add(down - time.Second)
		}
		r.now = r.now.Add(time.Second + 1)
		better(r, "ready", r.plain(77, 1, 0))
		better(r, "and so on", r.plain(77, 1, 0))
	})
}
