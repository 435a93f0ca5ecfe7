package sim

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/xcarp/xcarp/internal/carp"
)

var (
	seeds  = flag.Uint64("sim.seeds", 500, "how many seeds TestSeeds simulates")
	enough = flag.Int("sim.enough", 10, "after how many broken ones it stops")
)

// TestSeeds is a small `make sim`.
func TestSeeds(t *testing.T) {
	s := Seeds(1, *seeds, runtime.NumCPU(), *enough, nil, nil)
	for _, r := range s.Broken {
		t.Errorf("%v\n%v (make sim SEED=%d shows it)", r.Scenario, r.Broken, r.Scenario.Seed)
	}
	if t.Failed() {
		return
	}
	// A simulator in which nothing happens finds nothing.
	if s.Seeds != *seeds || s.Events < 1000*int(s.Seeds) || s.Transitions < 8*int(s.Seeds) || s.Refused < 10*int(s.Seeds) {
		t.Errorf("too little happened: %d seeds, %d events, %d changes of role, %d adverts refused",
			s.Seeds, s.Events, s.Transitions, s.Refused)
	}
}

func TestScenariosAreOfAllKinds(t *testing.T) {
	seen := map[string]int{}
	for seed := uint64(1); seed <= 1000; seed++ {
		s := NewScenario(seed)
		seen[fmt.Sprintf("%d nodes", len(s.Nodes))]++
		seen[fmt.Sprintf("advbase %d", s.AdvBase)]++
		for name, on := range map[string]bool{
			"dual stack": s.Dual, "no own addresses": s.Shared, "echo": s.Echo, "trailer " + s.Auth.String(): s.Trailer,
			"plain": !s.Trailer, "attack": s.Attack, "split hold": s.Split == carp.SplitHold, "split takeover": s.Split == carp.SplitTakeover, "stalls": s.Stall > 0, "loss": s.Loss > 0, "duplicates": s.Dup > 0,
			"reordering": s.Delay > s.unit(), "preempt": s.Nodes[0].Preempt, "no preempt": !s.Nodes[0].Preempt,
			"equals": s.Nodes[0].Skew == s.Nodes[1].Skew, "unequals": s.Nodes[0].Skew != s.Nodes[1].Skew,
		} {
			if on {
				seen[name]++
			}
		}
	}
	for _, name := range []string{
		"2 nodes", "3 nodes", "4 nodes", "5 nodes", "advbase 0", "advbase 1", "advbase 2", "advbase 3",
		"dual stack", "no own addresses", "echo", "trailer compat", "trailer permissive", "trailer enforce", "plain",
		"attack", "split hold", "split takeover", "stalls", "loss", "duplicates", "reordering", "preempt", "no preempt", "equals", "unequals",
	} {
		if seen[name] < 30 {
			t.Errorf("%s: %d of 1000 scenarios", name, seen[name])
		}
	}
}

// TestASeedIsAlwaysTheSame compares whole traces.
func TestASeedIsAlwaysTheSame(t *testing.T) {
	for seed := uint64(1); seed <= 30; seed++ {
		var a, b bytes.Buffer
		Run(seed, &a, nil)
		Run(seed, &b, nil)
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("seed %d: two traces, of %d and %d bytes", seed, a.Len(), b.Len())
		}
		if lines := bytes.Count(a.Bytes(), []byte("\n")); lines < 50 {
			t.Errorf("seed %d: a trace of %d lines", seed, lines)
		}
	}
}

// TestRecordsReplay plays what every process of every node was told to a fresh
// Machine, which must want the same.
func TestRecordsReplay(t *testing.T) {
	facts := 0
	for seed := uint64(1); seed <= 50; seed++ {
		records := map[string]*bytes.Buffer{}
		Run(seed, nil, func(node string, process int) io.Writer {
			name := fmt.Sprintf("seed%d-%s-%d", seed, node, process)
			if records[name] == nil {
				records[name] = new(bytes.Buffer)
			}
			return records[name]
		})
		for name, r := range records {
			facts += bytes.Count(r.Bytes(), []byte("=>"))
			var out bytes.Buffer
			if differ, err := Replay(name, r, &out); err != nil || differ != 0 {
				t.Fatalf("%v, %d lines with other effects\n%s", err, differ, out.Bytes())
			}
		}
	}
	if facts < 10000 {
		t.Errorf("only %d facts", facts)
	}
}

// TestScriptsReplay holds the format of records and that of the stories in
// ../testdata together.
func TestScriptsReplay(t *testing.T) {
	files, err := filepath.Glob("../testdata/*.txt")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d scripts: %v", len(files), err)
	}
	for _, f := range files {
		src, err := os.Open(f)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if differ, err := Replay(filepath.Base(f), src, &out); err != nil || differ != 0 {
			t.Errorf("%v, %d lines with other effects\n%s", err, differ, out.Bytes())
		}
		src.Close()
	}
}

func TestReplayTellsWhatIsWrong(t *testing.T) {
	for _, tt := range []struct{ script, want string }{
		{"", "x: no config line: want, for example, config vhid=1 advbase=1 advskew=100 preempt"},
		{"0.0 up", "x:1: a fact before the first config line"},
		{"config advbase=300", "x:1: config: advbase=300: want a number of at most 8 bits"},
		{"config vhid=0", "x:1: config: vhid 0: must be 1 to 255"},
		{"config advbas=1", `x:1: config: unknown word "advbas"`},
		{"config advbase=1\n\n# a\n0.0", "x:4: 0.0: want a time and a fact"},
		{"config advbase=1\n1,5 up", `x:2: time "1,5": want seconds, as 12.5`},
		{"config advbase=1\n0.0 jump", `x:2: unknown fact "jump"`},
		{"config advbase=1\n2.0 up\n1.0 tick", "x:3: time 1.0 is before that of the fact before, 2.0"},
		{"config advbase=1\n0.0 peer", "x:2: peer: want a state"},
		{"config advbase=1\n0.0 peer master", "x:2: peer master: want INIT, BACKUP, MASTER or DRAIN"},
		{"config advbase=1\n0.0 recv from=ten", "x:2: from=ten: want an address"},
		{"config advbase=1\n0.0 recv counter=1 counter=2", "x:2: counter: given twice"},
		{"config advbase=1\n0.0 sent at=0.0000000001", `x:2: at: time "0.0000000001": want seconds with at most nine decimals`},
	} {
		_, err := Replay("x", strings.NewReader(tt.script), io.Discard)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%q:\n got %v\nwant %s", tt.script, err, tt.want)
		}
	}
}

func TestReplayCountsOtherEffects(t *testing.T) {
	var out strings.Builder
	differ, err := Replay("x", strings.NewReader("config advbase=1\n0.0 up => -\n3.0 tick\n"), &out)
	if err != nil || differ != 1 {
		t.Errorf("got %d differences, %v; want 1", differ, err)
	}
	for _, want := range []string{"=> role BACKUP (initialization complete)", "# line 2 has another effect: -", "=> role MASTER"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}
