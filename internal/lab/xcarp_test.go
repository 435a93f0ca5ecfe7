package lab

import (
	"testing"
	"time"
)

func TestParseXCarpShow(t *testing.T) {
	const out = `{"node":"fw-a","groups":[
		{"name":"wan","vhid":1,"carpdev":"eth0","state":"MASTER","since":"2026-11-24T14:00:00Z","reason":"","term":3,"demotion":0,"lease_ms":2700,"xdp_mode":"native","masters_seen":["x"],"drops":{}},
		{"name":"lan","vhid":2,"carpdev":"eth1","state":"BACKUP","xdp_mode":"native"}],
		"sync":[{"peer":"fw-b","up":true,"in_sync":true,"lag_ms":0.3,"flows":12}]}`
	s, err := parseXCarpShow([]byte(out), true)
	if err != nil {
		t.Fatal(err)
	}
	if s.Groups["wan"] != Master || s.Groups["lan"] != Backup || len(s.Groups) != 2 {
		t.Errorf("groups: got %v", s.Groups)
	}
	if !s.InSync || s.Flows != 12 || s.XDPMode != "native" {
		t.Errorf("got %+v, want in sync, 12 flows, native", s)
	}
	if s.all(Master) || s.all(Backup) {
		t.Error("one group of each role is all of neither")
	}
	for _, c := range []struct {
		name, out string
		sync      bool
		want      bool
	}{
		{"no peer yet", `{"sync":[]}`, true, false},
		{"no sync section", `{}`, false, true},
		{"peer behind", `{"sync":[{"in_sync":false}]}`, true, false},
		{"one of two behind", `{"sync":[{"in_sync":true},{"in_sync":false}]}`, true, false},
	} {
		s, err := parseXCarpShow([]byte(c.out), c.sync)
		if err != nil || s.InSync != c.want {
			t.Errorf("%s: in sync: got %v, %v, want %v", c.name, s.InSync, err, c.want)
		}
	}
	if (Status{}).all(Master) {
		t.Error("no groups are all of no role")
	}
}

func TestParseXCarpLog(t *testing.T) {
	const log = `{"level":"info","ts":1732456800.25,"msg":"state","vhid":1,"from":"BACKUP","to":"MASTER","reason":"master down"}
{"level":"info","ts":1732456800.25,"msg":"adopted","vhid":1,"to":"x"}
2024-11-24T14:00:01.500Z	INFO	state	{"vhid": 2, "from": "MASTER", "to": "BACKUP", "reason": "goodbye"}
2024-11-24T14:00:01.500Z	INFO	group	state	{"vhid": 3, "from": "MASTER", "to": "INIT"}
panic: {oops
`
	got := parseXCarpLog("fw-a", []byte(log))
	if len(got) != 3 {
		t.Fatalf("got %d transitions, want 3: %+v", len(got), got)
	}
	for i, want := range []struct {
		vhid   int
		to     string
		reason string
		unixMS int64
	}{{1, "MASTER", "master down", 1732456800250}, {2, "BACKUP", "goodbye", 1732456801500}, {3, "INIT", "", 1732456801500}} {
		g := got[i]
		if g.VHID != want.vhid || g.To != want.to || g.Reason != want.reason || !g.at.Equal(time.UnixMilli(want.unixMS)) {
			t.Errorf("transition %d: got %+v at %v, want %+v", i, g, g.at.UnixMilli(), want)
		}
	}
}

func TestParseFault(t *testing.T) {
	for _, f := range Faults {
		if got, err := ParseFault(string(f)); got != f || err != nil {
			t.Errorf("%s: got %q, %v", f, got, err)
		}
		if faultText[f] == "" {
			t.Errorf("%s has no text for people", f)
		}
		f.effect() // panics for a fault without one
	}
	for _, s := range []string{"fire", ""} {
		if got, err := ParseFault(s); err == nil {
			t.Errorf("%q: got %q, want an error", s, got)
		}
	}
}
