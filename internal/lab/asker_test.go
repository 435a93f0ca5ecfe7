package lab

import (
	"net"
	"net/netip"
	"testing"
)

func TestAskerTellsOneAnswerFromTwo(t *testing.T) {
	n := newLab(t)
	for _, step := range []struct {
		name    string
		nodes   []*Node
		double  bool
		answers bool
	}{
		{"nobody", nil, false, false},
		{"one router", []*Node{n.A}, false, true},
		{"two routers with the same MAC", []*Node{n.A, n.B}, true, true},
	} {
		for _, r := range step.nodes {
			if err := take(r); err != nil {
				t.Fatal(err)
			}
		}
		from := n.now()
		a, err := n.StartAsker()
		if err != nil {
			t.Fatal(err)
		}
		if err := wait(t.Context(), 10*askInterval); err != nil { // how long it asks
			t.Fatal(err)
		}
		to := n.now() - answerGrace
		sum, err := a.Stop()
		if err != nil {
			t.Fatal(err)
		}
		got := sum(from, to)
		if got.Queries < 2 || (got.Answered == got.Queries) != step.answers || (got.Double == got.Queries) != step.double || !step.double && got.Double != 0 {
			t.Errorf("%s: got %+v, want all answered %v, all of them twice %v", step.name, got, step.answers, step.double)
		}
		if sum(to, to) != (Answers{}) {
			t.Errorf("%s: queries of no time", step.name)
		}
	}
}

func TestAnswersTellTheirRequest(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	shared := netip.MustParseAddr(SharedLAN)
	own4, own6 := askerAddrs(42)
	reply := arpRequest(mac, shared, own4)
	reply[21] = 2
	if k, kind, ok := answerTo(reply); k != 42 || kind != 0 || !ok {
		t.Errorf("ARP: got %d, %d, %v", k, kind, ok)
	}
	// The advertisement is the solicitation with its addresses the other way round.
	nd := neighbourRequest(mac, own6, netip.MustParseAddr(SharedLAN6))
	if _, _, ok := answerTo(nd); ok {
		t.Error("a solicitation is an answer")
	}
	to := own6.As16()
	copy(nd[14+24:], to[:])
	nd[14+40] = neighbourAdvert
	if k, kind, ok := answerTo(nd); k != 42 || kind != 1 || !ok {
		t.Errorf("ND: got %d, %d, %v", k, kind, ok)
	}
	for name, frame := range map[string][]byte{
		"an announcement":         arpReplyTo(shared, shared),
		"of another address":      arpReplyTo(netip.MustParseAddr("10.0.0.2"), own4),
		"for the client":          arpReplyTo(shared, netip.MustParseAddr(clientAddr)),
		"a frame that is cut off": reply[:41],
	} {
		if k, kind, ok := answerTo(frame); ok {
			t.Errorf("%s: got %d, %d", name, k, kind)
		}
	}
}

func arpReplyTo(from, to netip.Addr) []byte {
	b := arpRequest(net.HardwareAddr{2, 0, 0, 0, 0, 1}, from, to)
	b[21] = 2
	return b
}

func TestPlanTakesTurns(t *testing.T) {
	a, b := System{Name: "a"}, System{Name: "b", Restart: stopAndStart(nil)}
	var got string
	for i, tr := range (FailoverOptions{Systems: []System{a, b}, Faults: []Fault{Crash, Restart}, Modes: []Mode{NAT}, Runs: 2}).Plan() {
		if tr.Order != i+1 {
			t.Errorf("trial %d says that it is number %d", i+1, tr.Order)
		}
		got += tr.System.Name + ":" + string(tr.Fault) + " "
	}
	if want := "a:crash b:crash b:restart a:crash b:crash b:restart "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
