package carp

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// rig is two nodes with trailers and what passes between them.
type rig struct {
	t    *testing.T
	now  time.Time
	a, b *Guard
	n    uint64
}

var guardSecret = [32]byte{1, 2, 3}

func guardConfig(node uint64, mode Auth, secrets ...[32]byte) GuardConfig {
	c := GuardConfig{
		VHID: 7, Node: node, Epoch: 5, Auth: mode, Forget: 10 * time.Second,
		Key: NewKey("secret", 7, []netip.Addr{netip.MustParseAddr("10.0.0.1")}, OpenBSD),
	}
	for _, s := range secrets {
		c.Keys = append(c.Keys, NewTrailerKey(s, "lan", 7))
	}
	c.Send = len(c.Keys) > 0
	return c
}

func newRig(t *testing.T, mode Auth) *rig {
	return &rig{
		t: t, now: BootTime(time.Hour), n: 1 << 40,
		a: NewGuard(guardConfig(1<<20|0xa0, mode, guardSecret)), b: NewGuard(guardConfig(1<<20|0xb0, mode, guardSecret)),
	}
}

// advert is one of the guard's node, with a fresh counter.
func (r *rig) advert(g *Guard, base, skew uint8) []byte {
	r.n += counterStep
	return g.Sign(nil, &Advert{VHID: 7, AdvBase: base, AdvSkew: skew, Counter: r.n | tag(g.cfg.Node)}, 9)
}

// plain is an advert of a peer that knows the password alone.
func (r *rig) plain(counter uint64, base, skew uint8) []byte {
	a := Advert{VHID: 7, AdvBase: base, AdvSkew: skew, Counter: counter}
	guardConfig(0, Compat).Key.Sign(&a)
	b, err := a.AppendBinary(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

func (r *rig) judge(g *Guard, payload []byte, from string) Verdict {
	r.t.Helper()
	got, why := ParseFrame(AppendFrame(nil, MAC{2}, netip.MustParseAddr(from), payload))
	if why != Accepted {
		return Verdict{Why: why}
	}
	return g.Judge(r.now, &got)
}

// want judges an advert and checks what comes out.
func (r *rig) want(what string, g *Guard, payload []byte, from string, why Drop, alarm Alarm) Verdict {
	r.t.Helper()
	v := r.judge(g, payload, from)
	if v.Why != why || v.Alarm != alarm {
		r.t.Errorf("%s: got %v with alarm %q, want %v with %q", what, v.Why, v.Alarm, why, alarm)
	}
	return v
}

// relabel changes what the digest does not cover and repairs the checksum.
func relabel(b []byte, base, skew, demotion uint8) []byte {
	b = append([]byte(nil), b...)
	b[2], b[4], b[5], b[6], b[7] = skew, demotion, base, 0, 0
	binary.BigEndian.PutUint16(b[6:], ^sum(0, b[:AdvertLen]))
	return b
}

func TestTrailerKeepsBothChecksums(t *testing.T) {
	r := newRig(t, Enforce)
	b := r.advert(r.a, 1, 100)
	if len(b) != AdvertLen+TrailerLen || sum(0, b[:AdvertLen]) != 0xffff || sum(0, b) != 0xffff {
		t.Errorf("%d bytes, sums %04x and %04x", len(b), sum(0, b[:AdvertLen]), sum(0, b))
	}
}

func TestASignedAdvertTellsWhoAndWhen(t *testing.T) {
	for _, mode := range []Auth{Compat, Permissive, Enforce} {
		r := newRig(t, mode)
		v := r.want("fresh", r.b, r.advert(r.a, 1, 0), "10.0.0.2", Accepted, NoAlarm)
		if v.Node != r.a.cfg.Node || v.Term != 9 {
			t.Errorf("%v: node %x, term %d", mode, v.Node, v.Term)
		}
	}
}

// TestOneCapturedAdvert is the attack that keeps a ucarp pair without a master.
func TestOneCapturedAdvert(t *testing.T) {
	for _, mode := range []Auth{Compat, Permissive, Enforce} {
		r := newRig(t, mode)
		b := r.advert(r.a, 1, 100)
		better := relabel(b, 0, 0, 0)
		r.want("relabeled before it was heard", r.b, better, "10.0.0.66", DropTrailer, NoAlarm)
		r.want("the advert itself", r.b, b, "10.0.0.2", Accepted, NoAlarm)
		r.want("again", r.b, b, "10.0.0.2", DropReplay, AlarmReplay)
		r.want("relabeled", r.b, better, "10.0.0.66", DropReplay, AlarmRelabeled)
		r.want("relabeled and stripped", r.b, better[:AdvertLen], "10.0.0.66", DropReplay, AlarmRelabeled)
		r.want("stripped", r.b, b[:AdvertLen], "10.0.0.2", DropReplay, AlarmRelabeled)
		r.want("to its sender", r.a, better, "10.0.0.66", DropLoop, NoAlarm)
		for range 2 * recentLen {
			r.advert(r.a, 1, 100)
		}
		r.want("to its sender, much later", r.a, better, "10.0.0.66", DropReplay, AlarmRelabeled)
		r.want("and stripped", r.a, better[:AdvertLen], "10.0.0.66", DropReplay, AlarmRelabeled)
		r.want("and whole", r.a, b, "10.0.0.2", DropLoop, NoAlarm)
	}
}

func TestAddressListsMayDifferUnderATrailer(t *testing.T) {
	r := newRig(t, Enforce)
	c := guardConfig(1<<20|0xc0, Enforce, guardSecret)
	c.Key = NewKey("secret", 7, []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.9")}, OpenBSD)
	g := NewGuard(c)
	r.want("one address more", r.b, r.advert(g, 1, 0), "10.0.0.3", Accepted, AlarmDigest)
}

func TestAnotherKeyOrGroupIsNotOurs(t *testing.T) {
	r := newRig(t, Enforce)
	for name, k := range map[string]*TrailerKey{
		"another secret": NewTrailerKey([32]byte{9}, "lan", 7), "another group": NewTrailerKey(guardSecret, "wan", 7),
		"another vhid": NewTrailerKey(guardSecret, "lan", 8),
	} {
		c := guardConfig(1<<20|0xc0, Enforce, guardSecret)
		c.Keys = []*TrailerKey{k}
		r.want(name, r.b, r.advert(NewGuard(c), 1, 0), "10.0.0.3", DropTrailer, NoAlarm)
	}
}

func TestEnforceRefusesPlain(t *testing.T) {
	r := newRig(t, Enforce)
	r.want("plain", r.b, r.plain(1, 1, 0), "10.0.0.3", DropTrailer, NoAlarm)
	r.b.cfg.Auth = Permissive
	r.want("plain, permissive", r.b, r.plain(1, 1, 0), "10.0.0.3", Accepted, AlarmPlain)
	r.b.cfg.Auth = Compat
	r.want("plain, compat", r.b, r.plain(2, 1, 0), "10.0.0.3", Accepted, NoAlarm)
}

// TestKeysChangeWithoutABreak rotates on one node after the other.
func TestKeysChangeWithoutABreak(t *testing.T) {
	old, next := [32]byte{1}, [32]byte{2}
	r := newRig(t, Enforce)
	keys := func(g *Guard, secrets ...[32]byte) { g.SetKeys(guardConfig(0, Enforce, secrets...).Keys, nil) }
	both := func(what string) {
		t.Helper()
		r.want(what+", a to b", r.b, r.advert(r.a, 1, 0), "10.0.0.2", Accepted, NoAlarm)
		r.want(what+", b to a", r.a, r.advert(r.b, 1, 0), "10.0.0.3", Accepted, NoAlarm)
	}
	keys(r.a, old)
	keys(r.b, old)
	both("old")
	keys(r.a, old, next)
	both("added on a")
	keys(r.b, old, next)
	keys(r.a, next, old)
	both("used on a")
	keys(r.b, next, old)
	keys(r.a, next)
	both("retired on a")
	keys(r.b, old) // one that slept
	r.want("a node that slept, its key retired", r.a, r.advert(r.b, 1, 0), "10.0.0.3", DropTrailer, NoAlarm)
}

func TestMarksSurviveARestart(t *testing.T) {
	r := newRig(t, Enforce)
	b := r.advert(r.a, 1, 0)
	r.want("heard", r.b, b, "10.0.0.2", Accepted, NoAlarm)
	c := guardConfig(1<<20|0xb0, Enforce, guardSecret)
	c.Seen, c.Epoch = r.b.Marks(), 6
	r.b = NewGuard(c)
	r.want("heard before the restart", r.b, b, "10.0.0.2", DropReplay, AlarmReplay)
	r.want("new", r.b, r.advert(r.a, 1, 0), "10.0.0.2", Accepted, NoAlarm)
}

// TestANodeThatWasSetBackByOneStart restores the disk as it was before the last
// start of a node: it begins the epoch once more that others have seen used.
func TestANodeThatWasSetBackByOneStart(t *testing.T) {
	r := newRig(t, Enforce)
	begin := r.n
	for range 5 {
		r.want("before", r.b, r.advert(r.a, 1, 0), "10.0.0.2", Accepted, NoAlarm)
	}
	last := r.n
	r.a, r.n = NewGuard(guardConfig(1<<20|0xa0, Enforce, guardSecret)), begin
	v := r.want("after", r.b, r.advert(r.a, 1, 0), "10.0.0.2", DropReplay, AlarmReplay)
	if v.Seen == nil {
		t.Fatal("nobody tells it")
	}
	if _, raised := r.a.Reminder(v.Seen); !raised {
		t.Fatal("it does not see that it was set back")
	}
	r.a.Begin(r.a.Wants())
	r.want("in the new epoch", r.b, r.advert(r.a, 1, 0), "10.0.0.2", Accepted, NoAlarm)
	if r.n > last {
		t.Error("the counter has passed what it was: the test shows less than it should")
	}
}

// TestANodeThatWasSetBackIsNotLockedOut restores a snapshot of a node, whose
// epoch and counters others have seen used.
func TestANodeThatWasSetBackIsNotLockedOut(t *testing.T) {
	r := newRig(t, Enforce)
	r.want("before", r.b, r.advert(r.a, 1, 0), "10.0.0.2", Accepted, NoAlarm)
	c := guardConfig(1<<20|0xa0, Enforce, guardSecret)
	c.Epoch = 3
	r.a = NewGuard(c)
	v := r.want("after", r.b, r.advert(r.a, 1, 0), "10.0.0.2", DropReplay, AlarmReplay)
	if v.Seen == nil {
		t.Fatal("nobody tells it")
	}
	if again := r.want("again", r.b, r.advert(r.a, 1, 0), "10.0.0.2", DropReplay, AlarmReplay); again.Seen != nil {
		t.Error("told twice within a second")
	}
	if _, why := ParseFrame(AppendFrame(nil, MAC{2}, netip.MustParseAddr("10.0.0.3"), v.Seen)); why != DropVersion {
		t.Errorf("others take it as %v, want %v", why, DropVersion)
	}
	if genuine, raised := r.b.Reminder(v.Seen); genuine || raised {
		t.Error("it is not meant for its sender")
	}
	for i := range v.Seen {
		bad := append([]byte(nil), v.Seen...)
		bad[i] ^= 4
		if genuine, raised := r.a.Reminder(bad); genuine || raised {
			t.Errorf("believed with byte %d changed", i)
		}
	}
	if genuine, raised := r.a.Reminder(v.Seen); !genuine || !raised {
		t.Error("want a new epoch")
	}
	if genuine, raised := r.a.Reminder(v.Seen); !genuine || raised {
		t.Error("want the same message to be known as one, and to change nothing more")
	}
	r.want("before it begins", r.b, r.advert(r.a, 1, 0), "10.0.0.2", DropReplay, AlarmReplay)
	r.a.Begin(r.a.Wants())
	r.want("in the new epoch", r.b, r.advert(r.a, 1, 0), "10.0.0.2", Accepted, NoAlarm)
}

// TestAnOldAdvertOfOurs is what a node hears that lost its epoch but not its id.
func TestAnOldAdvertOfOurs(t *testing.T) {
	r := newRig(t, Enforce)
	old := r.advert(r.a, 1, 0)
	c := guardConfig(1<<20|0xa0, Enforce, guardSecret)
	c.Epoch = 1
	r.a = NewGuard(c)
	if v := r.want("repeated", r.a, old, "10.0.0.2", DropLoop, AlarmTwin); !v.Raised {
		t.Error("want a new epoch")
	}
	if v := r.want("and again", r.a, old, "10.0.0.2", DropLoop, NoAlarm); v.Raised {
		t.Error("want one new epoch for one old advert")
	}
	if got := r.a.Self().Epoch; got != 1 {
		t.Errorf("epoch %d is in use before it is stored", got)
	}
	if r.a.Begin(r.a.Wants()); r.a.Self().Epoch != 6 {
		t.Errorf("epoch %d, want one above the 5 of the old advert", r.a.Self().Epoch)
	}
}

func TestAPlainPeerIsPinned(t *testing.T) {
	const peer, other = "10.0.0.3", "10.0.0.66"
	t.Run("whose counter moves", func(t *testing.T) { // FreeBSD, NetBSD, ucarp
		r := newRig(t, Compat)
		r.want("first", r.b, r.plain(100, 1, 100), peer, Accepted, NoAlarm)
		r.want("next", r.b, r.plain(101, 1, 100), peer, Accepted, NoAlarm)
		r.want("the last one again", r.b, r.plain(101, 1, 100), peer, DropReplay, AlarmReplay)
		r.want("an old one", r.b, r.plain(100, 1, 100), peer, DropReplay, AlarmReplay)
		r.want("the last one, relabeled", r.b, r.plain(101, 0, 1), peer, DropReplay, AlarmRelabeled)
		r.want("from elsewhere", r.b, r.plain(101, 0, 0), other, DropReplay, AlarmRelabeled)
		r.want("as a goodbye", r.b, r.plain(101, 255, 255), peer, DropReplay, AlarmRelabeled)
		v := r.want("really better", r.b, r.plain(102, 1, 0), peer, Accepted, AlarmBetter)
		if v.AdvSkew != 100 {
			t.Errorf("advskew %d, want the pinned 100", v.AdvSkew)
		}
		r.want("demoted", r.b, r.plain(103, 1, 240), peer, Accepted, AlarmWorse)
		r.want("goodbye", r.b, r.plain(104, 255, 255), peer, Accepted, AlarmWorse)
		r.now = r.now.Add(11 * time.Second)
		v = r.want("configured anew", r.b, r.plain(105, 1, 0), peer, Accepted, NoAlarm)
		if v.AdvSkew != 0 {
			t.Errorf("advskew %d, want its own", v.AdvSkew)
		}
	})
	t.Run("whose counter stands still", func(t *testing.T) { // OpenBSD
		r := newRig(t, Compat)
		for range 3 {
			r.want("as ever", r.b, r.plain(77, 1, 100), peer, Accepted, NoAlarm)
		}
		r.want("in the other family", r.b, r.plain(77, 1, 100), "fe80::3", Accepted, NoAlarm)
		r.want("better", r.b, r.plain(77, 1, 0), peer, DropPinned, AlarmBetter)
		r.want("from elsewhere", r.b, r.plain(77, 1, 0), other, DropReplay, AlarmRelabeled)
		r.want("worse", r.b, r.plain(77, 1, 200), peer, Accepted, AlarmWorse)
		r.want("goodbye", r.b, r.plain(77, 255, 255), peer, Accepted, AlarmWorse)
		r.want("rebooted", r.b, r.plain(1234, 1, 100), peer, Accepted, NoAlarm)
	})
}

// TestAPeerThatCountsOnFromUs is ucarp: it takes the last counter it heard and
// adds one for each advert, and may be late.
func TestAPeerThatCountsOnFromUs(t *testing.T) {
	r := newRig(t, Compat)
	r.advert(r.a, 1, 0)
	heard := r.n | tag(r.a.cfg.Node)
	r.advert(r.a, 1, 0)
	r.advert(r.a, 1, 0)
	for range 2 * recentLen {
		r.advert(r.a, 1, 0)
	}
	for i := range uint64(3) {
		r.want("counted on", r.a, r.plain(heard+1+i, 1, 50), "10.0.0.3", Accepted, NoAlarm)
	}
	r.want("ours, stripped", r.a, r.plain(heard, 1, 50), "10.0.0.3", DropReplay, AlarmRelabeled)
}

func TestStrangersDoNotFillTheMemory(t *testing.T) {
	r := newRig(t, Compat)
	for i := range 1000 {
		from := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		r.judge(r.b, r.plain(uint64(i)<<33|1, 1, 0), from.String())
	}
	if n := len(r.b.plain); n > maxPlain {
		t.Errorf("%d peers remembered", n)
	}
}

func FuzzGuard(f *testing.F) {
	r := newRig(&testing.T{}, Compat)
	r.a.SetKeys([]*TrailerKey{NewTrailerKey([32]byte{9}, "lan", 7)}, nil)
	f.Add(r.advert(r.a, 1, 0), uint8(0))
	f.Add(r.plain(5, 1, 0), uint8(1))
	f.Add(r.a.seen(1, Mark{2, 3}), uint8(2))
	f.Fuzz(func(t *testing.T, payload []byte, mode uint8) {
		r := newRig(t, Auth(mode%3))
		genuine := r.advert(r.a, 1, 100)
		v := r.judge(r.b, payload, "10.0.0.2")
		if v.Why == Accepted && v.Node != 0 {
			t.Fatalf("signed without the key: %x", payload)
		}
		if genuine, raised := r.b.Reminder(payload); genuine || raised {
			t.Fatalf("reminded without the key: %x", payload)
		}
		r.want("genuine after it", r.b, genuine, "10.0.0.2", Accepted, NoAlarm)
	})
}

// What the sync channel tells of a node may overtake the node's own adverts: its
// first ones are still believed, older ones are not.
func TestToldOfANodeBeforeItIsHeard(t *testing.T) {
	key := NewTrailerKey([32]byte{1}, "lan", 1)
	config := func(node uint64) GuardConfig {
		return GuardConfig{VHID: 1, Key: NewKey("secret", 1, nil, OpenBSD), Keys: []*TrailerKey{key}, Send: true, Auth: Enforce, Node: node, Epoch: 1}
	}
	sender, receiver := NewGuard(config(7)), NewGuard(config(8))
	m := NewMachine(Config{VHID: 1, AdvBase: 1, Node: 7, Trailer: true, Counter: CounterBlock})
	var frames [][]byte
	for range 4 {
		frames = append(frames, AppendFrame(nil, MAC{}, netip.MustParseAddr("10.0.0.2"), sender.Sign(nil, m.advert(), 1)))
	}
	receiver.Meet(7, sender.Self())
	for i, want := range []Drop{DropReplay, DropReplay, Accepted, Accepted} {
		r, why := ParseFrame(frames[i])
		if why != Accepted {
			t.Fatal(why)
		}
		if v := receiver.Judge(BootTime(0), &r); v.Why != want {
			t.Errorf("advert %d of 4: got %v, want %v", i+1, v.Why, want)
		}
	}
}
