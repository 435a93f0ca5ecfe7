package bench

import (
	"regexp"
	"strings"
	"testing"
)

// page of a report with everything that a report can have.
func examplePage(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	if err := Example().HTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReportStandsAlone(t *testing.T) {
	page := examplePage(t)
	if m := regexp.MustCompile(`(?i)<script|<link|<img|@import|url\(|src=|href="[^#]`).FindString(page); m != "" {
		t.Errorf("the page loads something: %q", m)
	}
	if strings.Contains(page, "<b>bold</b>") || !strings.Contains(page, "&lt;b&gt;bold&lt;/b&gt;") {
		t.Error("what a system says of itself is not escaped")
	}
	for _, want := range []string{
		"crash, nat", "failback:crash, nat", "0.12 × frr 10ms", "void: the rig stalled", "no run: the pair is not ready",
		"chromium 1.2.3", "7.3.0-test", "needs ucarp", "vrrp_instance wan", "99 sends of the prober",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in the report", want)
		}
	}
}

func TestPicturesDrawWhatCounts(t *testing.T) {
	page := examplePage(t)
	// Per section: curves of xcarp and frr, none of a void row or of one without runs.
	if n := strings.Count(page, `class="curve"`); n != 4 {
		t.Errorf("%d curves, want 4", n)
	}
	if n := strings.Count(page, `<g class="run rejected">`); n != 2*4 {
		t.Errorf("%d rejected runs drawn, want 8", n)
	}
	if n := strings.Count(page, `class="gap ipv6"`); n == 0 {
		t.Error("no gap of IPv6 is drawn")
	}
}

func TestStepsEndAtTheTop(t *testing.T) {
	got := steps([]Run{{BlackoutMS: 100}, {BlackoutMS: 10}})
	if want := "M46.0 232.0H195.0V122.0H344.0V12.0H642.0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if column(0) != plotX || column(0.2) != plotX || column(1e9) != plotX+plotW {
		t.Error("what is beyond the axis is not drawn at its ends")
	}
}
