package lab

import (
	"encoding/json"
	"slices"
	"testing"
)

// The names are other people's interface.
func TestResultKeepsItsFieldNames(t *testing.T) {
	b, err := json.Marshal(Result{Peers: []Result{}})
	if err != nil {
		t.Fatal(err)
	}
	var top, tcp map[string]json.RawMessage
	if err := json.Unmarshal(b, &top); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(top["tcp"], &tcp); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"system", "fault", "mode", "blackout_ms", "probes_sent", "probes_lost", "tcp", "masters_after", "took_ms", "peers"} {
		if _, ok := top[want]; !ok {
			t.Errorf("no field %q in %s", want, b)
		}
	}
	for _, want := range []string{"survived", "stall_ms", "bytes", "resets"} {
		if _, ok := tcp[want]; !ok {
			t.Errorf("no field tcp.%q in %s", want, b)
		}
	}
	if got := top["peers"]; !slices.Equal(got, []byte("[]")) {
		t.Errorf("peers: got %s, want an array", got)
	}
}
