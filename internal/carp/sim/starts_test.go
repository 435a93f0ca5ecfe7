package sim

import (
	"bytes"
	"testing"
)

// TestEqualNodesStartedTogether is the acceptance of the tie: one master in
// every one of 1,000 starts, whoever the equals are.
func TestEqualNodesStartedTogether(t *testing.T) {
	const starts = 1000
	for _, tt := range []struct {
		name string
		s    Start
	}{
		{"two nodes", Start{Nodes: 2, Trailer: true}},
		{"two nodes without own addresses", Start{Nodes: 2, Trailer: true, Shared: true}},
		{"two nodes without trailer", Start{Nodes: 2}},
		{"two nodes without trailer and own addresses", Start{Nodes: 2, Shared: true}},
		{"five nodes", Start{Nodes: 5, Trailer: true}},
		{"five nodes without trailer and own addresses", Start{Nodes: 5, Shared: true}},
		{"beside ucarp", Start{Nodes: 1, Foreign: []Foreign{UCARP}, Trailer: true}},
		{"beside ucarp, without own addresses", Start{Nodes: 1, Foreign: []Foreign{UCARP}, Trailer: true, Shared: true}},
		{"beside ucarp, without trailer", Start{Nodes: 1, Foreign: []Foreign{UCARP}}},
		{"beside FreeBSD", Start{Nodes: 1, Foreign: []Foreign{FreeBSD}, Trailer: true}},
		{"beside FreeBSD, without own addresses", Start{Nodes: 1, Foreign: []Foreign{FreeBSD}, Trailer: true, Shared: true}},
		{"beside OpenBSD", Start{Nodes: 1, Foreign: []Foreign{OpenBSD}, Trailer: true}},
		{"beside OpenBSD, without own addresses", Start{Nodes: 1, Foreign: []Foreign{OpenBSD}, Trailer: true, Shared: true}},
		{"two nodes beside ucarp", Start{Nodes: 2, Foreign: []Foreign{UCARP}, Trailer: true}},
		{"three nodes beside ucarp", Start{Nodes: 3, Foreign: []Foreign{UCARP}, Trailer: true}},
		{"two nodes beside FreeBSD", Start{Nodes: 2, Foreign: []Foreign{FreeBSD}, Trailer: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := 0
			for seed := uint64(1); seed <= starts; seed++ {
				r := tt.s.Run(seed, nil)
				if r.Broken == nil {
					continue
				}
				if bad++; bad == 1 {
					var trace bytes.Buffer
					tt.s.Run(seed, &trace)
					t.Errorf("%v\n%v\n%s", r.Scenario, r.Broken, trace.Bytes())
				}
			}
			t.Logf("%d of %d starts with one master", starts-bad, starts)
		})
	}
}
