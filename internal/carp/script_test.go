package carp

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what the machine does into testdata/*.txt")

// TestScripts tells the stories of testdata/*.txt, and of testdata/claims, which the
// simulator does not know. A line is
//
//	seconds  fact [args]  => effects
//
// and every fact is one verb of the Machine. "sent" without ok or fail is not
// implied: a master that is never told so loses its lease.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	claims, _ := filepath.Glob("testdata/claims/*.txt")
	files = append(files, claims...)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) { runScript(t, f) })
	}
}

func runScript(t *testing.T, file string) {
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var m *Machine
	var out []string
	for i, line := range strings.Split(strings.TrimSuffix(string(src), "\n"), "\n") {
		fact, want, isFact := strings.Cut(line, "=>")
		words := strings.Fields(fact)
		switch {
		case len(words) > 0 && words[0] == "config":
			m = NewMachine(scriptConfig(t, words[1:]))
		case isFact:
			got := scriptFact(t, m, words)
			if want = strings.TrimSpace(want); got != want && !*update {
				t.Errorf("%s:%d: %s\n got %s\nwant %s", file, i+1, strings.TrimSpace(fact), got, want)
			}
			line = fmt.Sprintf("%-44s => %s", strings.TrimRight(fact, " "), got)
		}
		out = append(out, line)
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.Join(out, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// args are the key=value words of a line.
type args map[string]string

func scriptArgs(words []string) args {
	a := make(args)
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		a[k] = v
	}
	return a
}

func (a args) num(t *testing.T, key string) uint64 {
	t.Helper()
	if a[key] == "" {
		return 0
	}
	n, err := strconv.ParseUint(a[key], 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return n
}

func (a args) addr(t *testing.T, key, otherwise string) netip.Addr {
	t.Helper()
	s := a[key]
	if s == "" {
		s = otherwise
	}
	ip, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return ip
}

func scriptConfig(t *testing.T, words []string) Config {
	a := scriptArgs(words)
	_, preempt := a["preempt"]
	_, trailer := a["trailer"]
	split := SplitHold
	if a["split"] == "takeover" {
		split = SplitTakeover
	}
	return Config{
		Split: split, Trailer: trailer, Node: a.num(t, "node"),
		VHID: 1, AdvBase: uint8(a.num(t, "advbase")), AdvSkew: uint8(a.num(t, "advskew")),
		Preempt: preempt, Term: a.num(t, "term"), SendErrDemotion: int(a.num(t, "senderr")),
	}
}

var scriptEars = map[string]Ears{"hear": EarsHear, "deaf": EarsDeaf}

var scriptStates = map[string]State{"INIT": Init, "BACKUP": Backup, "MASTER": Master, "DRAIN": Drain}

func scriptTime(t *testing.T, s string) time.Time {
	t.Helper()
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatalf("time: %v", err)
	}
	return BootTime(time.Duration(math.Round(f*1e6)) * time.Microsecond)
}

func seconds3(at time.Time) string { return fmt.Sprintf("%.3f", SinceBoot(at).Seconds()) }

func scriptFact(t *testing.T, m *Machine, words []string) string {
	t.Helper()
	now := scriptTime(t, words[0])
	a := scriptArgs(words[2:])
	switch words[1] {
	case "up":
		return show(m.Link(now, true))
	case "down":
		return show(m.Link(now, false))
	case "tick":
		return show(m.Tick(now))
	case "stop":
		return show(m.Stop(now))
	case "follow":
		return show(m.Follow(now))
	case "recv", "goodbye":
		h := Heard{From: a.addr(t, "from", "10.0.0.2"), Own: a.addr(t, "own", "10.0.0.1")}
		h.AdvBase, h.AdvSkew = uint8(a.num(t, "advbase")), uint8(a.num(t, "advskew"))
		h.Demotion, h.Counter = uint8(a.num(t, "demote")), a.num(t, "counter")
		h.Node, h.Term = a.num(t, "node"), a.num(t, "term")
		if words[1] == "goodbye" {
			h.AdvBase, h.AdvSkew = 255, 255
		}
		return show(m.Receive(now, h))
	case "sent":
		at := now
		if a["at"] != "" {
			at = scriptTime(t, a["at"])
		}
		var err error
		if _, failed := a["fail"]; failed {
			err = errors.New("no buffer space available")
		}
		return show(m.Sent(now, at, err))
	case "demote":
		return show(m.Demote(now, words[2], int(scriptArgs(words[3:]).num(t, "by"))))
	case "adopt":
		return show(m.Adopt(now, Role{scriptStates[words[2]], scriptTime(t, a["until"])}, a.num(t, "term")))
	case "peer":
		return show(m.Peer(now, a["node"], Said{scriptStates[words[2]], a.num(t, "term"), scriptEars[a["ears"]]}))
	case "pulses":
		m.Pulses(words[2] == "on")
		return "-"
	case "silent":
		return show(m.Silent(now, a.num(t, "term"), "master is silent"))
	case "cutoff":
		return show(m.CutOff(now))
	case "claim":
		return show(m.Claim(now, "asked to"))
	case "acked":
		return show(m.Acked(now, a.num(t, "term")))
	case "refused":
		return show(m.Refused(now, a.num(t, "term"), a.num(t, "theirs")))
	case "doubt":
		m.Doubt(true)
		return "-"
	case "bid":
		return show(m.Bid(now, a.num(t, "term")))
	case "reassert":
		return show(m.Reassert(now))
	case "vouched":
		return show(m.Vouched(now, a.num(t, "term")))
	case "postpone":
		return show(m.Postpone(now, a.num(t, "term")))
	case "claimed":
		return show(m.Claimed(now, a.num(t, "term")))
	case "handover":
		_, asked := a["asked"]
		return show(m.Handover(now, asked))
	case "ears":
		return show(m.Ears(now, scriptEars[words[2]]))
	case "status": // no fact: where the machine stands
		s := fmt.Sprintf("%v term %d demotion %d", m.State(), m.Term(), m.Demotion())
		if at, ok := m.Deadline(); ok {
			s += " deadline " + seconds3(at)
		}
		if m.State() == Master {
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
	t.Fatalf("unknown fact %q", words[1])
	return ""
}

func show(e Effects) string {
	var parts []string
	if e.Claim != nil {
		what := "claim"
		if e.Claim.Planned {
			what = "plan"
		}
		parts = append(parts, fmt.Sprintf("%s term %d", what, e.Claim.Term))
	}
	if e.Accept {
		parts = append(parts, "accept")
	}
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
