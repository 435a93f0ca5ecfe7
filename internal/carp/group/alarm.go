package group

import (
	"net/netip"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
)

// alarmPause is between two complaints about the same thing: what happens per
// advert is a counter.
const alarmPause = time.Minute

var alarmTexts = [carp.Alarms]string{
	carp.NoAlarm:        "advert refused: another password, or another list of addresses",
	carp.AlarmDigest:    "our key, but another password or list of addresses: compare the configurations of the nodes",
	carp.AlarmPlain:     "advert without a trailer: with auth: enforce it would be refused",
	carp.AlarmRelabeled: "advert refused: somebody repeats one that was heard before, with other values in it",
	carp.AlarmReplay:    "advert refused: somebody repeats one that was heard before",
	carp.AlarmBetter:    "a peer without a trailer claims to be better than it was: not believed",
	carp.AlarmWorse:     "a peer without a trailer is worse than it was: believed, though the digest does not cover that",
	carp.AlarmTwin:      "a later advert of this very node: its state was lost or set back, or another node has a copy of it",
	carp.AlarmLoop:      "our own advert came back: a loop in the network, or somebody plays it back",
	carp.AlarmVRRP:      "a VRRP router has the number of our vhid: both use the same virtual MAC, give one another number",
}

// alarm tells an operator about an advert, once a minute for each kind.
func (g *Group) alarm(v *carp.Verdict) {
	if v.Alarm == carp.NoAlarm && v.Why != carp.DropAuth && v.Why != carp.DropTrailer {
		return
	}
	text := alarmTexts[v.Alarm]
	if v.Why == carp.DropTrailer {
		text = "advert refused: not signed with our key"
	}
	now := g.now()
	g.mu.Lock()
	g.count.alarms[v.Alarm]++
	say := now.Sub(g.alarmed[v.Alarm]) > alarmPause
	if say {
		g.alarmed[v.Alarm] = now
	}
	g.mu.Unlock()
	if say {
		g.log.Warn(text, zap.String("group", g.cfg.Name), zap.Uint8("vhid", g.cfg.Machine.VHID), zap.Stringer("from", v.From),
			zap.Uint8("advbase", v.AdvBase), zap.Uint8("advskew", v.AdvSkew), zap.Uint8("demotion", v.Demotion))
	}
}

// Suspect tells what an advert was that the dataplane has refused: its payload, and
// its source. It reports whether there is something to say.
func (g *Group) Suspect(payload []byte, from netip.Addr) bool {
	r := carp.Received{From: from, Payload: payload}
	if r.UnmarshalBinary(payload) != nil {
		return false
	}
	v := carp.Verdict{Heard: carp.Heard{Advert: r.Advert, From: from}, Why: carp.DropReplay}
	g.mu.Lock()
	v.Alarm = g.guard.Suspect(&r)
	g.mu.Unlock()
	if v.Alarm == carp.NoAlarm {
		return false
	}
	g.alarm(&v)
	return true
}

// partition tells that the master is silent on the carpdev alone, or no longer so.
func (g *Group) partition(t Transition) {
	log, text := g.log.Warn, "the master is silent here and lives by the sync link: it stays (split: hold)"
	if !g.split {
		log, text = g.log.Info, "the master is no longer silent on the carpdev alone"
	}
	log(text, zap.String("group", g.cfg.Name), zap.String("carpdev", g.cfg.Carpdev), zap.Uint8("vhid", t.VHID), zap.Stringer("state", t.To))
}

// remind tells a node how far we have seen it come. It leaves from our own MAC
// and our own address, for we may be a backup.
func (g *Group) remind(seen []byte, is4 bool) {
	from := g.source(is4)
	if !from.IsValid() || g.shares(from) {
		return // the sync channel tells it, too
	}
	e := g.envelope(carp.MAC(g.cfg.HardwareAddr), from, is4)
	if err := g.write(e.AppendFrame(nil, seen)); err != nil {
		g.log.Debug("remind", zap.String("group", g.cfg.Name), zap.Error(err))
	}
}

// reminded takes what somebody tells us of ourselves and reports whether that was
// meant for us.
func (g *Group) reminded(r *carp.Received) bool {
	g.mu.Lock()
	genuine, raised := g.guard.Reminder(r.Payload)
	epoch := g.guard.Wants()
	g.mu.Unlock()
	if raised {
		g.raised(epoch)
	}
	return genuine
}

// raised has a new epoch stored, or begins it where there is nothing to store it.
func (g *Group) raised(epoch uint64) {
	g.log.Warn("there are later adverts of this node than it knows of: its state was lost or set back, and a new epoch begins",
		zap.String("group", g.cfg.Name), zap.Uint64("epoch", epoch))
	if g.cfg.OnEpoch == nil {
		g.Begin(epoch)
		return
	}
	g.cfg.OnEpoch(epoch)
}

// Begin begins an epoch that is stored now.
func (g *Group) Begin(epoch uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.guard.Begin(epoch)
}

// Remind tells how far another node has seen this one come, and Meet how far
// another one has come by its own word. Both were said over a channel that cannot
// be forged nor replayed.
func (g *Group) Remind(m carp.Mark) {
	g.mu.Lock()
	raised := g.guard.Remind(m)
	epoch := g.guard.Wants()
	g.mu.Unlock()
	if raised {
		g.raised(epoch)
	}
}

// Meet is described at Remind.
func (g *Group) Meet(node uint64, m carp.Mark) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.guard.Meet(node, m)
}

// Marks returns how far this node has come and how far the others have, as far as
// it has heard.
func (g *Group) Marks() (self carp.Mark, others map[uint64]carp.Mark) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.guard.Self(), g.guard.Marks()
}

// Counter returns that of our last advert: who takes our place goes on from there.
func (g *Group) Counter() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.guard.Counter()
}

// SetKeys replaces the keys of the trailer, of which the first one signs, and that
// of the CARP digest, unless it is nil.
func (g *Group) SetKeys(trailer []*carp.TrailerKey, digest *carp.Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.guard.SetKeys(trailer, digest)
}

// shares reports whether an address is a shared one, which a backup must not use.
func (g *Group) shares(a netip.Addr) bool {
	for _, p := range g.cfg.Addrs {
		if p.Addr().Unmap().WithZone("") == a {
			return true
		}
	}
	return false
}
