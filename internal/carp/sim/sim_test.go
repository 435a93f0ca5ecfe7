package sim

import (
	"testing"
)

func TestTry(t *testing.T) {
	bad := map[string]int{}
	first := map[string]uint64{}
	ev := 0
	for s := uint64(1); s <= 4000; s++ {
		r := Run(s, nil, nil)
		ev += r.Events
		if r.Broken != nil {
			if bad[r.Broken.Rule]++; bad[r.Broken.Rule] <= 4 {
				t.Logf("%v\n   %v", r.Scenario, r.Broken)
			}
			if first[r.Broken.Rule] == 0 {
				first[r.Broken.Rule] = s
			}
		}
	}
	t.Log(bad, first, ev)
}
