package carp

import "testing"

// TestAStrippedAdvertThatWasMissed captures an advert on its way to a node that
// does not hear it, and gives it to that node without the trailer.
func TestAStrippedAdvertThatWasMissed(t *testing.T) {
	r := newRig(t, Compat)
	r.want("heard", r.b, r.advert(r.a, 1, 0), "10.0.0.2", Accepted, NoAlarm)
	missed := r.advert(r.a, 1, 0)
	r.want("missed and stripped", r.b, relabel(missed[:AdvertLen], 0, 0, 0), "10.0.0.2", DropReplay, AlarmRelabeled)
	r.want("missed", r.b, missed, "10.0.0.2", Accepted, NoAlarm)
}

// TestANodeTellsWhereItsCountersBegin lets a peer know a node that has sent
// nothing since it started.
func TestANodeTellsWhereItsCountersBegin(t *testing.T) {
	r := newRig(t, Compat)
	before := r.advert(r.a, 1, 0)
	c := r.a.cfg
	c.Epoch, c.Counter = c.Epoch+1, CounterBlock
	r.a = NewGuard(c)
	r.b.Meet(c.Node, r.a.Self())
	r.want("stripped, of its life before", r.b, before[:AdvertLen], "10.0.0.2", DropReplay, AlarmRelabeled)
}

// TestNoMarkWithoutATrailer is a group with `trailer: off` on all nodes that
// have a sync channel.
func TestNoMarkWithoutATrailer(t *testing.T) {
	r := newRig(t, Compat)
	r.a.cfg.Send = false
	b := r.advert(r.a, 1, 0)
	r.b.Meet(r.a.cfg.Node, r.a.Self())
	r.want("plain", r.b, b, "10.0.0.2", Accepted, NoAlarm)
}
