package lab

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Style says how a picture is drawn.
type Style struct {
	Unicode bool // else ASCII
	Color   bool // ANSI colours
	Columns int  // of a bar; 0: 48
}

// glyphs are the characters of a style.
type glyphs struct{ full, gapLeft, gapRight, gap, sliver, dash, tee, corner, cornerR, arrow string }

func (s Style) glyphs() glyphs {
	if s.Unicode {
		return glyphs{"█", "▏", "▕", " ", "┊", "─", "┬", "└", "┘", "→"}
	}
	return glyphs{"#", "|", "|", " ", ":", "-", "+", "+", "+", "->"}
}

// paint colours a text: 31 red, 32 green, 33 yellow, 1 bold.
func (s Style) paint(code int, text string) string {
	if !s.Color {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", code, text)
}

// faultText is what a fault does, for people.
var faultText = map[Fault]string{
	Crash:    "LAN, WAN and sync of fw-a blocked in one batch, carrier kept",
	Isolated: "LAN and WAN of fw-a blocked, carrier kept",
	Poweroff: "daemon of fw-a killed, carrier lost everywhere",
	Kill9:    "SIGKILL to the daemon of fw-a",
	Sigstop:  "SIGSTOP to the daemon of fw-a",
	Stop:     "SIGTERM to the daemon of fw-a",
	LANDown:  "LAN carrier of fw-a lost",
	LANCut:   "LAN of fw-a blocked, carrier kept",
	Handover: "fw-a asked to give the role away",
	Restart:  "restart of fw-a's daemon by its operator",
}

// Picture draws results of the same fault, one block each, on one time axis.
func (s Style) Picture(results ...Result) string {
	if s.Columns == 0 {
		s.Columns = 48
	}
	var b strings.Builder
	axis := newAxis(s.Columns, results)
	for i, r := range results {
		if i > 0 {
			b.WriteByte('\n')
		}
		s.block(&b, axis, r)
	}
	return b.String()
}

func (s Style) block(b *strings.Builder, axis axis, r Result) {
	g := s.glyphs()
	state := "state not mirrored"
	if r.Sync {
		state = "state in sync"
	}
	if r.XDPMode != "" {
		state += ", XDP " + r.XDPMode
	}
	fmt.Fprintf(b, "%s (%s)  %s: %s\n\n", s.paint(1, r.System), state, r.Fault, faultText[r.Fault])

	after := "" // what was seen of the roles, nothing else
	if r.MovedMS > 0 {
		after = fmt.Sprintf(" %s MASTER, seen after %.0f ms", g.arrow, r.MovedMS)
	}
	d := strings.Repeat(g.dash, 2)
	left := fmt.Sprintf("  client %slan%s%s%s fw-a %s%s%swan%s server", d, d, g.tee, d, d, g.tee, d, d)
	fmt.Fprintf(b, "%s    fw-a  MASTER\n", left)
	indent := utf8.RuneCountInString("  client " + d + "lan" + d)
	right := fmt.Sprintf("%s%s%s fw-b %s%s", strings.Repeat(" ", indent), g.corner, d, d, g.cornerR)
	pad := utf8.RuneCountInString(left) - utf8.RuneCountInString(right)
	fmt.Fprintf(b, "%s%s    fw-b  BACKUP%s\n\n", right, strings.Repeat(" ", pad), after)

	bound := ""
	if !r.PathRecovered {
		bound = "at least "
	}
	fmt.Fprintf(b, "  path  %s  blackout %s%s, %d of %d probes lost\n",
		s.bar(axis, r.BlackoutFromMS, r.BlackoutMS, !r.PathRecovered),
		bound, s.paint(1, fmt.Sprintf("%.1f ms", r.BlackoutMS)), r.ProbesLost, r.ProbesSent)
	bound = ""
	if !r.TCP.Resumed {
		bound = "at least "
	}
	fmt.Fprintf(b, "  tcp   %s  stall %s%s, %s\n",
		s.bar(axis, r.TCP.StallFromMS, r.TCP.StallMS, !r.TCP.Resumed),
		bound, s.paint(1, fmt.Sprintf("%.1f ms", r.TCP.StallMS)), s.verdict(r.TCP))
	fmt.Fprintf(b, "        %s\n\n", axis.labels())

	fmt.Fprintf(b, "  tcp       %.1f MB received, bytes lost %d, resets %d\n", float64(r.TCP.Bytes)/1e6, r.TCP.LostBytes, r.TCP.Resets)
	who := strings.Join(r.Masters.Repliers, ", ")
	if who == "" {
		who = "nobody"
	}
	masters := fmt.Sprintf("%d (%s)", r.MastersAfter, who)
	if r.MastersAfter != 1 {
		masters = s.paint(31, masters)
	}
	fmt.Fprintf(b, "  masters   %s answered %d ARP requests before healing\n", masters, r.Masters.Requests)
	fmt.Fprintf(b, "  rig       its own longest stall around the fault %.1f ms\n", r.RigStallMS)
	for i, t := range r.Transitions {
		head := ""
		if i == 0 {
			head = "log"
		}
		line := fmt.Sprintf("  %-9s %+10.1f ms  %s  vhid %d  %s %s %s  %s", head, t.AtMS, t.Node, t.VHID, t.From, g.arrow, t.To, t.Reason)
		fmt.Fprintln(b, strings.TrimRight(line, " "))
	}
	fmt.Fprintf(b, "  failback  %s\n", s.failback(r))
}

// verdict is what became of the connection, in a few words.
func (s Style) verdict(t TCP) string {
	switch {
	case t.Survived:
		return s.paint(32, "survived, SHA-256 right")
	case !t.Resumed:
		return s.paint(31, "dead: no new payload within 10 s")
	default:
		return s.paint(31, "went on, but the transfer is not whole")
	}
}

func (s Style) failback(r Result) string {
	f := r.Failback
	if !f.Done {
		return s.paint(31, fmt.Sprintf("fw-a not MASTER again within %.0f s of healing", f.TookMS/1000))
	}
	text := fmt.Sprintf("fw-a MASTER again %.1f s after healing, blackout %.1f ms, %d of %d probes lost",
		f.TookMS/1000, f.BlackoutMS, f.ProbesLost, f.ProbesSent)
	if r.TCP.Resumed {
		word := s.paint(31, "the download dead")
		if f.TCPAlive {
			word = "the download alive"
		}
		text += fmt.Sprintf("\n            %s after %.0f MB since the fault", word, float64(f.BytesBefore)/1e6)
	}
	if f.FlowsTried > 0 {
		word := fmt.Sprintf("%d of %d", f.FlowsAlive, f.FlowsTried)
		if f.FlowsAlive < f.FlowsTried {
			word = s.paint(31, word)
		}
		text += fmt.Sprintf("\n            %s flows opened during the cut alive", word)
	}
	return text
}

// axis maps milliseconds relative to the fault to columns.
type axis struct {
	columns  int
	from, to float64
}

// newAxis shows every gap of the results with room on both sides.
func newAxis(columns int, results []Result) axis {
	end := 16.0 // ms; shorter gaps would look longer than they are
	for _, r := range results {
		end = max(end, r.BlackoutFromMS+r.BlackoutMS, r.TCP.StallFromMS+r.TCP.StallMS)
	}
	end *= 1.25
	return axis{columns: columns, from: -end / 4, to: end}
}

// column is where an instant is drawn.
func (a axis) column(ms float64) int {
	c := int((ms - a.from) / (a.to - a.from) * float64(a.columns))
	return max(0, min(a.columns, c))
}

// labels marks the ends of the axis and the fault.
func (a axis) labels() string {
	format := func(ms float64) string {
		if a.to >= 1000 {
			return fmt.Sprintf("%.1f s", ms/1000)
		}
		return fmt.Sprintf("%.0f ms", ms)
	}
	line := []byte(strings.Repeat(" ", a.columns))
	put := func(at int, text string) { copy(line[max(0, min(at, len(line)-len(text))):], text) }
	put(0, format(a.from))
	put(a.column(0), "fault")
	put(a.columns, format(a.to))
	return string(line)
}

// bar draws what flowed over the axis, with one gap. An open gap reaches to the
// end: nobody saw it close.
func (s Style) bar(a axis, from, length float64, open bool) string {
	g := s.glyphs()
	first, last := a.column(from), a.column(from+length)
	if open {
		last = a.columns
	}
	full := func(n int) string { return s.paint(32, strings.Repeat(g.full, n)) }
	switch {
	case length <= 0:
		return full(a.columns)
	case last-first < 2: // a gap narrower than its own edges
		first = min(first, a.columns-1)
		return full(first) + g.sliver + full(a.columns-first-1)
	case open:
		return full(first) + g.gapLeft + strings.Repeat(g.gap, last-first-1)
	}
	return full(first) + g.gapLeft + strings.Repeat(g.gap, last-first-2) + g.gapRight + full(a.columns-last)
}
