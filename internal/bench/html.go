package bench

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
)

// page is the report's layout. It loads nothing from anywhere.
//
//go:embed report.html
var page string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"name":  Name,
	"runs":  RunsText,
	"ms":    func(v float64) string { return fmt.Sprintf("%.1f", v) },
	"count": func(v float64) string { return fmt.Sprintf("%.0f", v) },
	"sub": func(a int, b ...int) int {
		for _, v := range b {
			a -= v
		}
		return a
	},
}).Parse(page))

// section is one fault in one mode, with all systems.
type section struct {
	ID, Title string
	Text      string // what the fault is
	Rows      []Row
	ECDF      template.HTML
	Lines     []line
}

// line is a row as the page shows it.
type line struct {
	Row
	Color  string
	Ratio  string
	Why    string // there is no figure
	Strips template.HTML
	Open   bool
}

// HTML writes the report: one file that a browser shows without asking anybody
// for anything.
func (r Report) HTML(w io.Writer) error {
	data := struct {
		Report
		Sections   []section
		GapMS      float64
		WindowMS   float64
		VersionsOf []string
	}{Report: r, GapMS: millis(RejectGap), WindowMS: millis(RejectWindow)}
	colors := palette(r.Rows)
	for _, row := range r.Rows {
		title := Title(row)
		if n := len(data.Sections); n == 0 || data.Sections[n-1].Title != title {
			data.Sections = append(data.Sections, section{ID: fmt.Sprintf("s%d", n), Title: title, Text: about(row.Fault)})
		}
		s := &data.Sections[len(data.Sections)-1]
		s.Rows = append(s.Rows, row)
		l := line{Row: row, Color: colors[Name(row.System, row.Profile)], Ratio: Ratio(r.Rows, row), Open: row.System == "xcarp"}
		switch {
		case row.Void:
			l.Why = "void: the rig stalled in over a third of the runs"
		case row.BlackoutMS == nil:
			l.Why = "no run: " + row.Raw[0].Error
		}
		l.Strips = strips(row)
		s.Lines = append(s.Lines, l)
	}
	for i := range data.Sections {
		data.Sections[i].ECDF = ecdf(data.Sections[i].Rows, colors)
	}
	for s := range r.Versions {
		data.VersionsOf = append(data.VersionsOf, s)
	}
	slices.Sort(data.VersionsOf)
	if err := pageTemplate.Execute(w, data); err != nil {
		return fmt.Errorf("fill in the report: %w", err)
	}
	return nil
}

// about says what a fault is, for who does not know the words.
func about(fault string) string {
	if of, ok := strings.CutPrefix(fault, "failback:"); ok {
		return "The fault " + of + " is healed, and the first router takes its role back."
	}
	return map[string]string{
		"probe":    "Time runs from the first probe.",
		"crash":    "LAN, WAN and sync ports of the master are blocked in one batch; its carrier stays.",
		"isolated": "LAN and WAN ports of the master are blocked; carrier and sync stay.",
		"poweroff": "The master's daemons are killed and it loses carrier everywhere.",
		"kill9":    "The master's daemon is killed, and nobody restarts it.",
		"sigstop":  "The master's daemon is stopped, and goes on when that is healed.",
		"stop":     "The master's daemon is told to end.",
		"handover": "The master is asked to give its role away.",
		"landown":  "The master's LAN port loses carrier.",
		"lancut":   "The master's LAN port is blocked; carrier stays.",
		"restart":  "The master's daemon is restarted as its operator would.",
	}[fault]
}

// palette gives every system and setting one colour in all pictures: those of
// xcarp of one hue, those of its peers of others.
func palette(rows []Row) map[string]string {
	ours := []string{"#0b5fff", "#00a3c4", "#00857a"}
	peers := []string{"#d6336c", "#e8590c", "#b08900", "#7048e8", "#2b8a3e", "#862e9c", "#868e96", "#5c3d2e"}
	colors := map[string]string{}
	var own, other int
	for _, r := range rows {
		name := Name(r.System, r.Profile)
		if _, ok := colors[name]; ok {
			continue
		}
		if r.System == "xcarp" {
			colors[name] = ours[own%len(ours)]
			own++
			continue
		}
		colors[name] = peers[other%len(peers)]
		other++
	}
	return colors
}
