package sim

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mutant is package carp without one of the things that the rules are there
// for.
type mutant struct {
	name     string
	file     string // of package carp
	old, new string // old stands there once
	rules    []string
}

var mutants = []mutant{
	{"no replay check", "guard.go", "if met && !m.After(last) {", "if met && !m.After(last) && false {", []string{RuleReplay}},
	{"no tag in counters", "guard.go", "tag(counter) == tag(node)", "tag(counter) != tag(node)", []string{RuleForged}},
	{"no look ahead for stripped adverts", "guard.go", "case g.ours(r.Counter, counterWindow):", "case false:", []string{RuleForged}},
	{"no MAC", "guard.go", "signed || k.verify(b, r.Trailer)", "k.verify(b, r.Trailer) || true", []string{RuleForged, RuleReplay}},
	{"no tie key", "receive.go", "m.cfg.Node < h.Node", "m.cfg.Node == h.Node", []string{RuleWorse, RuleMasters, RuleFlap}},
	{"both win a tie", "receive.go", "m.cfg.Node < h.Node", "m.cfg.Node != h.Node", []string{RuleBetter, RuleMasters}},
	{"no tie key without trailer", "receive.go", "lower := h.Own.IsValid() && h.Own.Less(h.From)", "lower := h.Own != h.From", []string{RuleMasters}},
	{"no lease", "machine.go", "if m.state != Master || now.Before(m.lease) {", "if m.state != Master || true {", []string{RuleLease}},
	{"a lease from after the send", "advertise.go", "if until := at.Add(m.leaseTime());", "if until := now.Add(m.leaseTime());", []string{RuleLease}},
	{"a lease from a send that failed", "advertise.go", "if err != nil {\n\t\tm.sendErrs++", "if err != nil && false {\n\t\tm.sendErrs++", []string{RuleLease}},
	{"no term in adverts", "receive.go", "case ordered && h.Term > m.term:", "case false:", []string{RuleBetter}},
	{"no term of peers", "witness.go", "s.State == Master && s.Term > m.term {", "s.State == Master && s.Term > m.term && false {", []string{RuleBetter}},
	{"no demotion", "advert.go", "return int(a.Demotion)<<16 | int(a.AdvBase)<<8", "return int(a.AdvBase)<<8", []string{RuleBetter, RuleWorse, RuleBest, RuleFlap}},
	{"no demotion without preempt", "receive.go", "case me.Demotion < h.Demotion:", "case false:", []string{RuleBest}},
	{"no preemption", "receive.go", "case m.cfg.Preempt && me.rank() < h.rank() && !m.stay:", "case false:", []string{RuleBest}},
}

// mutantSeeds is how many seeds have to find a mutant. Most need a handful.
const mutantSeeds = 1000

// TestMutants takes one thing out of package carp after the other. With each of
// them out some seed must break the rule that it is there for.
func TestMutants(t *testing.T) {
	broken := regexp.MustCompile(`rule "([a-z]+)" broken`)
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			out := m.run(t)
			var got []string
			for _, found := range broken.FindAllStringSubmatch(out, -1) {
				if !slices.Contains(got, found[1]) {
					got = append(got, found[1])
				}
			}
			if !slices.ContainsFunc(got, func(rule string) bool { return slices.Contains(m.rules, rule) }) {
				t.Errorf("broken rules %v, want one of %v\n%s", got, m.rules, out)
			}
			t.Log(strings.TrimSpace(firstLine(out, `rule "`)))
		})
	}
}

func firstLine(text, with string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, with) {
			return line
		}
	}
	return "nothing"
}

// run builds this package's tests on the mutant, beside the tree that it leaves
// alone, and returns what TestSeeds says there.
func (m *mutant) run(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", m.file))
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(src), m.old); n != 1 {
		t.Fatalf("the mutation no longer applies: %q stands %d times in %s", m.old, n, m.file)
	}
	dir := t.TempDir()
	mutated, overlay, binary := filepath.Join(dir, m.file), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "sim.test")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutated}})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{mutated: []byte(strings.Replace(string(src), m.old, m.new, 1)), overlay: replace} {
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "test", "-c", "-vet=off", "-buildvcs=false", "-ldflags=-s -w", "-overlay", overlay, "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the mutant: %v\n%s", err, out)
	}
	out, err := exec.Command(binary, "-test.run", "^TestSeeds$", "-sim.seeds", fmt.Sprint(mutantSeeds), "-sim.enough", "1").CombinedOutput()
	if err == nil {
		t.Errorf("%d seeds hold on the mutant", mutantSeeds)
	}
	return string(out)
}
