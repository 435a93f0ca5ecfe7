package bench

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// Table prints rows for a terminal, fault by fault. A ratio compares medians of
// the same benchmark.
func Table(rows []Row) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	last := ""
	for _, r := range rows {
		if head := Title(r); head != last {
			if last != "" {
				fmt.Fprintln(w)
			}
			fmt.Fprintf(w, "%s\n", head)
			fmt.Fprintln(w, "  system\truns\tblackout ms\tIPv6\tlost\ttcp\tstall ms\tpause\trst\tdouble\tbest peer")
			fmt.Fprintln(w, "  \t\tp50/p95/max\tp50/max\tp50/max\talive\tp50/max\t\t\tans/fwd\t")
			last = head
		}
		fmt.Fprintf(w, "  %s\n", strings.Join(cells(rows, r), "\t"))
	}
	if err := w.Flush(); err != nil {
		panic(err) // a Builder takes everything
	}
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// Text is the report for a terminal.
func (r Report) Text() string {
	var b strings.Builder
	b.WriteString(Table(r.Rows))
	for _, row := range r.Rows {
		if n := row.New; n != nil {
			fmt.Fprintf(&b, "new connections, %s, %s: %d opened, %d broke", Title(row), Name(row.System, row.Profile), n.Opened, n.Broken)
			if n.Broken > 0 {
				fmt.Fprintf(&b, ", opened %.0f to %.0f ms after the fault", n.FirstMS, n.LastMS)
			}
			b.WriteString("\n")
		}
	}
	fmt.Fprintf(&b, "\n%s, %d × %s, Linux %s; prober's own gaps: p50 %.2f, p99 %.2f, max %.1f ms; load %.1f\n",
		r.Began.Format("2006-01-02"), r.Host.CPUs, r.Host.CPU, r.Host.Kernel, r.Noise.P50MS, r.Noise.P99MS, r.Noise.MaxMS, r.Noise.Load)
	for _, a := range r.Absent {
		fmt.Fprintf(&b, "not measured: %s\n", a)
	}
	return b.String()
}

// Title says what happened in a row.
func Title(r Row) string {
	t := r.Fault
	if r.Mode != "" {
		t += ", " + r.Mode
	}
	if r.Flows > 0 {
		t += fmt.Sprintf(", %d other flows", r.Flows)
	}
	return t
}

// Name is the system with its profile.
func Name(system, profile string) string { return strings.TrimSpace(system + " " + profile) }

func cells(rows []Row, r Row) []string {
	c := []string{Name(r.System, r.Profile), RunsText(r)}
	if r.BlackoutMS == nil {
		if r.Void {
			return append(c, "void: the rig stalled in over a third of the runs")
		}
		return append(c, "no run: "+r.Raw[0].Error)
	}
	bound := ""
	if r.Dark > 0 {
		bound = ">"
	}
	counted := r.Runs - r.Rejected - r.Failed
	c = append(c,
		fmt.Sprintf("%.1f/%.1f/%s%.1f", r.BlackoutMS.P50, r.BlackoutMS.P95, bound, r.BlackoutMS.Max),
		fmt.Sprintf("%.1f/%.1f", r.Blackout6MS.P50, r.Blackout6MS.Max),
		fmt.Sprintf("%.0f/%.0f", r.Lost.P50, r.Lost.Max),
		fmt.Sprintf("%d/%d", r.TCP.Survived, counted),
		fmt.Sprintf("%.1f/%.1f", r.TCP.StallMS.P50, r.TCP.StallMS.Max),
		fmt.Sprintf("%.1f", *r.TCP.PauseMS),
		fmt.Sprint(r.TCP.Resets),
		fmt.Sprintf("%d/%d", r.DoubleAnswers, r.DoubleForwards),
	)
	return append(c, Ratio(rows, r))
}

// RunsText is how many runs count, and what became of the others.
func RunsText(r Row) string {
	t := fmt.Sprint(r.Runs - r.Rejected - r.Failed)
	if r.Rejected > 0 {
		t += fmt.Sprintf(" (%d rejected)", r.Rejected)
	}
	if r.Failed > 0 {
		t += fmt.Sprintf(" (%d failed)", r.Failed)
	}
	return t
}

// Ratio compares a row of xcarp with the best peer under the same fault.
func Ratio(rows []Row, r Row) string {
	if r.System != "xcarp" || r.BlackoutMS == nil {
		return ""
	}
	p := BestPeer(rows, r)
	if p == nil || p.BlackoutMS.P50 == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f × %s", r.BlackoutMS.P50/p.BlackoutMS.P50, Name(p.System, p.Profile))
}
