package sim

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
)

// Replay reads a script and tells it, fact by fact, to a real Machine. It writes
// every line to w with what the Machine wanted after the =>, and returns how
// many lines had other effects after theirs. name is for messages.
func Replay(name string, script io.Reader, w io.Writer) (differ int, err error) {
	var m *carp.Machine
	var last time.Time
	lines := bufio.NewScanner(script)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		text, want, expects := strings.Cut(lines.Text(), "=>")
		list := strings.Fields(text)
		switch {
		case len(list) == 0 || strings.HasPrefix(list[0], "#"):
			fmt.Fprintln(w, lines.Text())
			continue
		case list[0] == "config":
			c, err := parseConfig(list[1:])
			if err != nil {
				return differ, fmt.Errorf("%s:%d: config: %w", name, n, err)
			}
			m = carp.NewMachine(c)
			last = time.Time{}
			fmt.Fprintln(w, lines.Text())
			continue
		case m == nil:
			return differ, fmt.Errorf("%s:%d: a fact before the first config line", name, n)
		case len(list) == 1:
			return differ, fmt.Errorf("%s:%d: %s: want a time and a fact", name, n, list[0])
		}
		now, err := parseSeconds(list[0])
		if err != nil {
			return differ, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		if now.Before(last) {
			return differ, fmt.Errorf("%s:%d: time %s is before that of the fact before, %s", name, n, list[0], seconds(last))
		}
		last = now
		f, err := parseFact(list[1:], now)
		if err != nil {
			return differ, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		got := ""
		if f.verb == verbStatus {
			got = status(m)
		} else {
			got = effects(f.apply(m, now))
		}
		fmt.Fprintf(w, "%-44s => %s\n", strings.TrimRight(text, " "), got)
		if want = strings.TrimSpace(want); expects && got != want {
			differ++
			fmt.Fprintf(w, "# line %d has another effect: %s\n", n, want)
		}
	}
	if err := lines.Err(); err != nil {
		return differ, fmt.Errorf("%s: %w", name, err)
	}
	if m == nil {
		return differ, fmt.Errorf("%s: no config line: want, for example, config vhid=1 advbase=1 advskew=100 preempt", name)
	}
	return differ, nil
}

func parseConfig(list []string) (carp.Config, error) {
	w := parseWords(list)
	c := carp.Config{VHID: 1}
	if slices.ContainsFunc(list, func(s string) bool { return strings.HasPrefix(s, "vhid=") }) {
		c.VHID = uint8(w.num("vhid", 8))
	}
	c.AdvBase, c.AdvSkew = uint8(w.num("advbase", 8)), uint8(w.num("advskew", 8))
	c.Preempt, c.Term, c.Counter = w.has("preempt"), w.num("term", 64), w.num("counter", 64)
	c.Trailer, c.Node = w.has("trailer"), w.num("node", 64)
	c.SendErrDemotion = int(w.num("senderr", 8))
	switch split := w.text("split", "hold"); split {
	case "hold":
	case "takeover":
		c.Split = carp.SplitTakeover
	default:
		return c, fmt.Errorf("split=%s: want hold or takeover", split)
	}
	if err := w.end(); err != nil {
		return c, err
	}
	return c, c.Validate()
}

func configLine(c carp.Config) string {
	s := fmt.Sprintf("config vhid=%d advbase=%d advskew=%d", c.VHID, c.AdvBase, c.AdvSkew)
	if c.Preempt {
		s += " preempt"
	}
	if c.Term != 0 {
		s += fmt.Sprintf(" term=%d", c.Term)
	}
	if c.Trailer {
		s += " trailer"
	}
	if c.Split == carp.SplitTakeover {
		s += " split=takeover"
	}
	return s + fmt.Sprintf(" node=%d counter=%d", c.Node, c.Counter)
}

// seconds3 formats an instant as the effects of a script have it.
func seconds3(at time.Time) string { return fmt.Sprintf("%.3f", carp.SinceBoot(at).Seconds()) }

// status says where a Machine stands.
func status(m *carp.Machine) string {
	s := fmt.Sprintf("%v term %d demotion %d", m.State(), m.Term(), m.Demotion())
	if at, ok := m.Deadline(); ok {
		s += " deadline " + seconds3(at)
	}
	if m.State() == carp.Master {
		s += " lease " + seconds3(m.Lease())
	}
	if m.Stopped() {
		s += " stopped"
	}
	if m.Deaf() {
		s += " deaf"
	}
	if m.Split() {
		s += " split"
	}
	return s
}

// effects writes what a Machine wants in the words of a script.
func effects(e carp.Effects) string {
	var parts []string
	if e.Role != nil {
		s := "role " + e.Role.State.String()
		if !e.Role.Until.IsZero() {
			s += " until " + seconds3(e.Role.Until)
		}
		parts = append(parts, s)
	}
	if a := e.Advert; a != nil && a.Goodbye() {
		parts = append(parts, "goodbye")
	} else if a != nil {
		parts = append(parts, fmt.Sprintf("advert advbase=%d advskew=%d demote=%d", a.AdvBase, a.AdvSkew, a.Demotion))
	}
	if e.Announce {
		parts = append(parts, "announce")
	}
	s := strings.Join(parts, ", ")
	if s == "" {
		s = "-"
	}
	if e.Reason != "" {
		s += " (" + e.Reason + ")"
	}
	return s
}
