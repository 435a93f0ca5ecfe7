package bench

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/probe"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		name string
		v    []float64
		want Spread
	}{
		{"one", []float64{3}, Spread{3, 3, 3}},
		{"the mean of the middle two", []float64{4, 1, 2, 9}, Spread{3, 9, 9}},
		{"an odd number", []float64{9, 1, 5}, Spread{5, 9, 9}},
		{"the 95th of a hundred", upTo(100), Spread{50.5, 95, 100}},
		{"of twenty the nineteenth", upTo(20), Spread{10.5, 19, 20}},
		{"of ten the last", upTo(10), Spread{5.5, 10, 10}},
	} {
		v := slices.Clone(c.v)
		if got := NewSpread(c.v); *got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, *got, c.want)
		}
		if !slices.Equal(v, c.v) {
			t.Errorf("%s: the values were put in order where they are", c.name)
		}
	}
	if got := NewSpread(nil); got != nil {
		t.Errorf("of nothing: got %+v", got)
	}
}

// upTo returns the numbers from 1 to n in no order.
func upTo(n int) []float64 {
	var v []float64
	for i := range n {
		v = append(v, float64(i+1))
	}
	rand.Shuffle(n, func(i, j int) { v[i], v[j] = v[j], v[i] })
	return v
}

// sends makes shots at the milliseconds given.
func sends(ms ...float64) []probe.Shot {
	var s []probe.Shot
	for _, at := range ms {
		s = append(s, probe.Shot{Sent: time.Duration(at * 1e6)})
	}
	return s
}

func TestOneRuleRejects(t *testing.T) {
	const m = time.Millisecond
	for _, c := range []struct {
		name     string
		shots    []probe.Shot
		longest  time.Duration
		rejected bool
	}{
		{"steady", sends(99, 99.5, 100, 100.5, 101), m / 2, false},
		{"a gap of exactly 2 ms", sends(99, 100, 102, 102.5), 2 * m, false},
		{"a longer one at the fault", sends(99, 100, 102.1, 103), 2100 * time.Microsecond, true},
		{"one that ends within the window", sends(40, 50.1, 50.6), 10100 * time.Microsecond, true},
		{"one that ends where the window begins", sends(40, 50, 50.5), m / 2, false},
		{"one within 50 ms of when the fault was in place", sends(169.4, 169.9, 178.9), 9 * m, true},
		{"one after that", sends(169.5, 170, 179), m / 2, false},
		{"lost probes are no gap", sends(100, 100.5, 101), m / 2, false},
	} {
		longest, rejected := Reject(c.shots, 100*m, 120*m)
		if longest != c.longest || rejected != c.rejected {
			t.Errorf("%s: got %v, %v, want %v, %v", c.name, longest, rejected, c.longest, c.rejected)
		}
	}
}

// crash makes one run.
func crash(system, profile string, blackout float64) Run {
	return Run{System: system, Profile: profile, Fault: "crash", Mode: "nat", BlackoutMS: blackout, Blackout6MS: blackout + 1,
		Sent: 1000, Lost: int(2 * blackout), Lost6: int(2 * blackout), Queries: 10,
		TCP: RunTCP{Survived: true, EchoMS: blackout, PushMS: 2 * blackout, PauseMS: 12}, Spans: []Span{}}
}

func TestRowsCountWhatCounts(t *testing.T) {
	spoilt, broken, dead, twice := crash("xcarp", "fast", 900), crash("xcarp", "fast", 900), crash("xcarp", "fast", 9), crash("xcarp", "fast", 5)
	spoilt.Rejected, broken.Error = true, "the pair is not ready"
	dead.TCP.Survived, dead.TCP.Resets, dead.Dark = false, 2, true
	twice.DoubleAnswers, twice.DoubleForwards = 3, 4
	rows := Rows([]Run{crash("xcarp", "fast", 3), crash("frr", "10ms", 26), spoilt, crash("frr", "10ms", 30), broken, dead, twice})
	if len(rows) != 2 || rows[0].System != "xcarp" || rows[1].System != "frr" {
		t.Fatalf("got %+v, want a row each, in order of appearance", rows)
	}
	r := rows[0]
	if r.Runs != 5 || r.Rejected != 1 || r.Failed != 1 || r.Void || r.Dark != 1 || len(r.Raw) != 5 || len(r.Counted()) != 3 {
		t.Errorf("runs %d, rejected %d, failed %d, void %v, dark %d", r.Runs, r.Rejected, r.Failed, r.Void, r.Dark)
	}
	if *r.BlackoutMS != (Spread{5, 9, 9}) || *r.Blackout6MS != (Spread{6, 10, 10}) || *r.Lost != (Spread{10, 18, 18}) {
		t.Errorf("blackout %+v, IPv6 %+v, lost %+v", *r.BlackoutMS, *r.Blackout6MS, *r.Lost)
	}
	if r.TCP.Survived != 2 || r.TCP.Resets != 2 || *r.TCP.StallMS != (Spread{10, 18, 18}) || *r.TCP.PauseMS != 12 {
		t.Errorf("tcp %+v", r.TCP)
	}
	if r.Queries != 30 || r.DoubleAnswers != 3 || r.DoubleForwards != 4 {
		t.Errorf("%d queries, %d double answers, %d double forwards", r.Queries, r.DoubleAnswers, r.DoubleForwards)
	}
	if p := BestPeer(rows, r); p == nil || p.System != "frr" || Ratio(rows, r) != "0.18 × frr 10ms" {
		t.Errorf("best peer %+v, ratio %q", p, Ratio(rows, r))
	}
	if BestPeer(rows[:1], r) != nil {
		t.Error("a system is its own peer")
	}
}

func TestOverAThirdRejectedVoidsARow(t *testing.T) {
	for _, c := range []struct {
		rejected int
		void     bool
	}{{3, false}, {4, true}} {
		var runs []Run
		for i := range 9 {
			run := crash("xcarp", "fast", 3)
			run.Rejected = i < c.rejected
			runs = append(runs, run)
		}
		r := Rows(runs)[0]
		if r.Void != c.void || (r.BlackoutMS == nil) != c.void || r.Rejected != c.rejected || len(r.Raw) != 9 {
			t.Errorf("%d of 9 rejected: void %v, blackout %+v", c.rejected, r.Void, r.BlackoutMS)
		}
	}
}

// TestJSONHasTheNamesThatArePromised is for the scripts of others.
func TestJSONHasTheNamesThatArePromised(t *testing.T) {
	b, err := json.Marshal(Report{Rows: Rows([]Run{crash("xcarp", "fast", 3)})})
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Rows []map[string]any }
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]any{
		"system": "xcarp", "profile": "fast", "fault": "crash", "mode": "nat", "runs": 1.0, "rejected": 0.0,
		"blackout_ms.p50": 3.0, "blackout_ms.p95": 3.0, "blackout_ms.max": 3.0, "lost.p50": 6.0, "lost.max": 6.0,
		"tcp.survived": 1.0, "tcp.stall_ms.p50": 6.0, "tcp.stall_ms.max": 6.0, "tcp.pause_no_fault_ms": 12.0, "tcp.resets": 0.0,
		"double_answers": 0.0, "double_forwards": 0.0,
	} {
		var v any = got.Rows[0]
		for key := range strings.SplitSeq(path, ".") {
			m, ok := v.(map[string]any)
			if !ok {
				t.Fatalf("%s: nothing has a %s", path, key)
			}
			v = m[key]
		}
		if v != want {
			t.Errorf("%s: got %v, want %v", path, v, want)
		}
	}
	if raw, ok := got.Rows[0]["raw"].([]any); !ok || len(raw) != 1 {
		t.Errorf("raw: got %v", got.Rows[0]["raw"])
	}
}

func TestTableSaysWhyThereIsNoFigure(t *testing.T) {
	spoilt, broken := crash("frr", "10ms", 3), crash("ucarp", "1s", 3)
	spoilt.Rejected, broken.Error = true, "the pair is not ready"
	got := Table(Rows([]Run{crash("xcarp", "fast", 3), spoilt, broken}))
	for _, want := range []string{"crash, nat\n", "3.0/3.0/3.0", "void: the rig stalled", "no run: the pair is not ready", "1/1"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

func TestNoise(t *testing.T) {
	var g Gaps
	if g.Noise() != (Noise{}) {
		t.Error("no gaps make noise")
	}
	for range 989 {
		g.Add(500 * time.Microsecond)
	}
	for range 10 {
		g.Add(3 * time.Millisecond)
	}
	g.Add(time.Second)
	n := g.Noise()
	if n.Sends != 1000 || n.P50MS != 0.51 || n.P99MS != 3.01 || n.MaxMS != 1000 || n.Over != 11 {
		t.Errorf("got %+v", n)
	}
}
