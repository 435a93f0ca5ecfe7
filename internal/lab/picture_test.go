package lab

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// survivor and victim are results as a run gives them; the figures are made up.
var (
	survivor = Result{
		System: "xcarp", Fault: Crash, Mode: "nat", Sync: true, XDPMode: "native",
		BlackoutMS: 3402.1, BlackoutFromMS: -0.3, ProbesSent: 12000, ProbesLost: 6804, PathRecovered: true,
		TCP:          TCP{Survived: true, Resumed: true, Intact: true, StallMS: 3621.4, StallFromMS: -1, Bytes: 301_000_000},
		MastersAfter: 1, Masters: Masters{Requests: 20, Answers: 20, MACs: []string{"00:00:5e:00:01:02"}, Repliers: []string{"fw-b"}},
		RigStallMS: 0.4, MovedMS: 3450,
		Failback: Failback{Done: true, TookMS: 4210, ProbesSent: 9000, TCPAlive: true, BytesBefore: 50_100_000, FlowsTried: 10, FlowsOpened: 10, FlowsAlive: 10},
		Transitions: []Transition{
			{Node: "fw-b", VHID: 1, From: "BACKUP", To: "MASTER", Reason: "master down", AtMS: 3391.2},
			{Node: "fw-b", VHID: 2, From: "BACKUP", To: "MASTER", Reason: "bundle", AtMS: 3391.3},
		},
	}
	victim = Result{
		System: "xcarp", Fault: Crash, Mode: "nat",
		BlackoutMS: 3402.1, BlackoutFromMS: -0.3, ProbesSent: 22000, ProbesLost: 6804, PathRecovered: true,
		TCP:          TCP{Intact: true, StallMS: 10490, StallFromMS: -1, Bytes: 90_000_000, Resets: 2, LostBytes: 4096},
		MastersAfter: 2, Masters: Masters{Requests: 20, Repliers: []string{"fw-a", "fw-b"}},
		Failback: Failback{TookMS: 12000, FlowsTried: 10},
	}
	quick = Result{
		System: "xcarp", Fault: Kill9, Mode: "nat", Sync: true, BlackoutFromMS: 1, BlackoutMS: 1.5, PathRecovered: true,
		TCP:          TCP{Survived: true, Resumed: true, Intact: true, StallMS: 6.2, StallFromMS: -2},
		MastersAfter: 1, Masters: Masters{Requests: 20, Repliers: []string{"fw-a"}},
		Failback: Failback{Done: true, TCPAlive: true},
	}
	dark = Result{System: "xcarp", Fault: LANCut, BlackoutMS: 9750, TCP: TCP{StallMS: 9750}, Failback: Failback{Done: true}}
)

func TestPicture(t *testing.T) {
	for name, c := range map[string]struct {
		style   Style
		results []Result
	}{
		"survived":       {Style{Unicode: true}, []Result{survivor}},
		"survived-ascii": {Style{}, []Result{survivor}},
		"dead-color":     {Style{Unicode: true, Color: true}, []Result{victim}},
		"quick":          {Style{Unicode: true}, []Result{quick}},
		"never-back":     {Style{Unicode: true}, []Result{dark}},
		"one-axis":       {Style{Unicode: true}, []Result{survivor, victim}},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.style.Picture(c.results...)
			file := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestPlainPictureIsASCII(t *testing.T) {
	if got := (Style{}).Picture(survivor, victim, quick, dark); strings.ContainsFunc(got, func(r rune) bool { return r > 126 || r == '\x1b' }) {
		t.Errorf("got something else in\n%s", got)
	}
}

func TestBarsHaveOneLength(t *testing.T) {
	s := Style{Unicode: true, Columns: 48}
	a := axis{columns: 48, from: -25, to: 100}
	for from := -30.0; from < 110; from += 0.7 {
		for length := 0.0; length < 140; length += 0.9 {
			for _, open := range []bool{false, true} {
				if n := utf8.RuneCountInString(s.bar(a, from, length, open)); n != 48 {
					t.Fatalf("bar(%.1f, %.1f, %v): got %d columns, want 48", from, length, open, n)
				}
			}
		}
	}
}
