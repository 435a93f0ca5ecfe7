package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/probe"
)

func TestSight(t *testing.T) {
	const m = time.Millisecond
	var shots []probe.Shot
	for i := range 2000 { // a second, dark from 500 to 700 ms and at the end
		at := time.Duration(i) * m / 2
		s := probe.Shot{Sent: at, Answered: at + 1, Answers: 1}
		if i > 1000 && i < 1400 || i == 1999 {
			s = probe.Shot{Sent: at}
		}
		shots = append(shots, s)
	}
	shots[3].Answers = 2
	s := NewSight("203.0.113.1", shots, time.Second)
	if s.Sent != 2000 || s.Lost != 400 || s.Doubled != 1 || s.BlackoutMS != 200 || len(s.Gaps) != 2 || len(s.Stalls) != 0 || s.SenderGapMS != 0.5 {
		t.Errorf("got %+v", s)
	}
	got := SightsText([]Sight{s}, false)
	want := "203.0.113.1  ##############################.............################.\n"
	if !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant it to begin with\n%s", got, want)
	}
	for _, line := range []string{"400 of 2000 probes lost in 1.0 s, 1 answered twice", "at 0.500 s: nothing for 200.0 ms", "nothing for at least 1.0 ms"} {
		if !strings.Contains(got, line) {
			t.Errorf("%q is not in\n%s", line, got)
		}
	}
	var b strings.Builder
	if err := SightsHTML(&b, time.Now(), []Sight{s}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), `class="gap probe"`); n != 2 {
		t.Errorf("%d gaps drawn, want 2", n)
	}
	if strings.Contains(b.String(), "TCP alive") || strings.Contains(b.String(), "Configurations") {
		t.Error("the page speaks of what a probe does not see")
	}
}

func TestFlapText(t *testing.T) {
	got := FlapText([]Flap{
		{System: "xcarp", Profile: "fast", Case: "flood", Seconds: 10, Transitions: 2, Sent: 100, Lost: 3, Frames: 5_000_000},
		{System: "frr", Profile: "10ms", Case: "hogs2", Error: "the pair is not ready"},
	})
	for _, want := range []string{"3 of 100", "500 k/s", "no run: the pair is not ready"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}
