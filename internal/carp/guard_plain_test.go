package carp

import "testing"

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
