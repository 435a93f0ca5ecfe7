package daemon

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/carp/group"
	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/loader"
)

// setShield gives the dataplane the keys by which it refuses what the guard would.
func (d *Daemon) setShield(m *member, digest *carp.Key, trailer []*carp.TrailerKey) error {
	s := loader.Shield{
		Digests:  digest.DigestStates(),
		Enforce:  m.cfg.Auth == config.AuthEnforce,
		Interval: carp.Interval(m.cfg.AdvBase, 0),
	}
	for _, k := range trailer {
		s.Trailers = append(s.Trailers, loader.TrailerKey{ID: k.ID(), TrailerState: k.State()})
	}
	if len(s.Trailers) > loader.TrailerKeysMax {
		// An advert of one that found no room would be taken for a forged one.
		d.log.Warn("more keys than the dataplane has room for: it checks no digests",
			zap.String("group", m.cfg.Name), zap.Int("keys", len(s.Trailers)), zap.Int("room", loader.TrailerKeysMax))
		s.Trailers, s.Digests, s.Enforce = nil, nil, false
	}
	return m.dev.port.SetShield(m.cfg.VHID, s)
}

// shield has the dataplane refuse what the guard would, and told what that
// believes.
func (d *Daemon) shield(m *member, c *group.Config) error {
	port, vhid := m.dev.port, m.cfg.VHID
	if err := d.setShield(m, c.Guard.Key, c.Guard.Keys); err != nil {
		return err
	}
	mark := func(node uint64, at carp.Mark, own bool) {
		if err := port.Mark(vhid, node, at, own); err != nil {
			d.log.Debug("mark", zap.String("group", m.cfg.Name), zap.Error(err))
		}
	}
	for node, at := range c.Guard.Seen {
		mark(node, at, false)
	}
	c.OnSign = func(self carp.Mark) { mark(c.Machine.Node, self, true) }
	c.OnVerdict = func(v *carp.Verdict, at carp.Mark) {
		if why, ok := doubtful(v); ok {
			d.suspect(m, v, why)
		}
		if v.Why != carp.Accepted {
			return
		}
		if v.Node != 0 {
			mark(v.Node, at, false)
		}
		if err := port.Peer(vhid, v.From); err != nil {
			d.log.Debug("peer", zap.String("group", m.cfg.Name), zap.Error(err))
		}
		m.clues.believe(v.From, group.BootClock())
	}
	return nil
}

// suspicious is an advert that is worth a thought.
type suspicious struct {
	m *member
	s loader.Sample
}

// doubtful returns why an advert is worth a thought. Of those that were accepted only one
// with another digest is: what else the guard says of them, as that a plain peer is
// worse than it was, is no sign of a forged one.
func doubtful(v *carp.Verdict) (why string, ok bool) {
	switch {
	case v.Why != carp.Accepted:
		return v.Why.String(), true
	case v.Alarm == carp.AlarmDigest:
		return v.Alarm.String(), true
	}
	return "", false
}

// suspect has somebody think about an advert that the guard did not like. In a
// flood most of them are not looked at.
func (d *Daemon) suspect(m *member, v *carp.Verdict, why string) {
	a := v.Advert
	a.Trailer = nil
	b, err := a.MarshalBinary()
	if err != nil {
		return
	}
	select {
	case d.suspects <- suspicious{m, loader.Sample{At: group.BootClock(), Why: why, From: v.From, TTL: 255, Len: len(b), Data: b}}:
	default:
	}
}

// floodRate is how many adverts a second a dataplane refuses in a flood of them.
const floodRate = 10_000

// refusals is how many adverts of a vhid a dataplane had refused when.
type refusals struct {
	n  uint64
	at time.Time
}

// flood reports whether there was one between then and now.
func (r refusals) flood(now refusals) bool {
	return now.n > r.n && float64(now.n-r.n) > floodRate*now.at.Sub(r.at).Seconds()
}

// flooded looks whether there is a flood of adverts for a vhid. It is given what this
// has returned before.
func (d *Daemon) flooded(dev *carpdev, vhid uint8, before refusals) refusals {
	now := refusals{at: group.BootClock()}
	if d.pulses == nil || now.at.Sub(before.at) < sayPause/2 {
		return before
	}
	all, err := dev.port.Counters(vhid)
	if err != nil {
		return before
	}
	for _, why := range droppedEarly {
		now.n += all[vhid][why]
	}
	if before.flood(now) {
		d.pulses.thread.cost.Flooded(now.at)
	}
	return now
}

// sample passes on what the dataplane of a carpdev shows, until ctx ends or the
// carpdev is let go. Of a flood, of which it shows an advert a second, it tells the
// sender of pulses.
func (d *Daemon) sample(ctx context.Context, dev *carpdev) error {
	defer close(dev.sampled)
	samples, err := dev.port.Samples()
	if err != nil { // hints are no reason not to route
		d.log.Error("no hints about adverts that the dataplane refuses", zap.String("carpdev", dev.name), zap.Error(err))
		return nil
	}
	stop := context.AfterFunc(ctx, func() { samples.Close() })
	defer stop()
	stopHere := context.AfterFunc(dev.open, func() { samples.Close() })
	defer stopHere()
	before := map[uint8]refusals{}
	for {
		s, err := samples.Read()
		if errors.Is(err, loader.ErrClosed) {
			return nil
		}
		if err != nil {
			d.log.Error("no more hints about adverts that the dataplane refuses", zap.String("carpdev", dev.name), zap.Error(err))
			return nil
		}
		if len(s.Data) < 2 {
			continue
		}
		before[s.Data[1]] = d.flooded(dev, s.Data[1], before[s.Data[1]])
		for _, m := range d.members() {
			if m.dev == dev && m.cfg.VHID == s.Data[1] {
				select {
				case d.suspects <- suspicious{m, s}:
				default:
				}
			}
		}
	}
}

// sayEvery is between two lines about the same reason in a group, sayPause between
// two about the same reason in any.
const (
	sayEvery = time.Minute
	sayPause = time.Second
)

// authentic are the reasons for which the dataplane refuses what is or was somebody's
// own: the Guard's alarms say more of it than a hint.
var authentic = []string{"replay", "loop", "badtrailer"}

// investigate names the likely cause of what was refused, until ctx ends: a line
// in the log, and the hint of the group.
func (d *Daemon) investigate(ctx context.Context) error {
	type saying struct{ group, why string }
	said, saidAny := map[saying]time.Time{}, map[string]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case one := <-d.suspects:
			name, now := one.m.cfg.Name, one.s.At
			text := one.m.clues.look(&one.s)
			if one.s.Why == carp.AlarmDigest.String() {
				continue // it was believed, and the guard has said the rest
			}
			key := saying{name, one.s.Why}
			if slices.Contains(authentic, one.s.Why) && one.m.group.Suspect(one.s.Data, one.s.From) || text == "" || now.Sub(said[key]) < sayEvery || now.Sub(saidAny[one.s.Why]) < sayPause {
				continue
			}
			said[key], saidAny[one.s.Why] = now, now
			d.log.Warn("adverts refused", zap.String("group", name), zap.Uint8("vhid", one.m.cfg.VHID),
				zap.String("reason", one.s.Why), zap.Stringer("from", one.s.From), zap.String("hint", text))
		}
	}
}
