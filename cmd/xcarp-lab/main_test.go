package main

import "testing"

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"--help"}, 0},
		{[]string{"demo", "--help"}, 0},
		{[]string{"dmeo"}, 2},
		{[]string{"demo", "now"}, 2},
		{[]string{"demo", "--fautl", "crash"}, 2},
		{[]string{"demo", "--fault", "fire"}, 2},
		{[]string{"demo", "--runs", "0"}, 2},
		{[]string{"demo", "--rate", "0"}, 2},
		{[]string{"demo", "-o", "yaml"}, 2},
		{[]string{"demo", "--systems", "xcarp,vrrpd"}, 2},
		{[]string{"demo", "--no-restart"}, 2},
		{[]string{"bench", "failover", "--faults", "fire"}, 2},
		{[]string{"bench", "failover", "--modes", "bridge"}, 2},
		{[]string{"bench", "failover", "--runs", "0"}, 2},
		{[]string{"bench", "failover", "--flows", "9", "--modes", "route"}, 2},
		{[]string{"bench", "failover", "--flows", "9", "--modes", "all"}, 2},
		{[]string{"bench", "failover", "extra"}, 2},
		{[]string{"bench", "flap", "--cases", "fire"}, 2},
		{[]string{"bench", "flap", "--for", "0s"}, 2},
		{[]string{"probe"}, 2},
		{[]string{"probe", "fw.example"}, 2},
		{[]string{"probe", "--for", "2h", "127.0.0.1"}, 2},
		{[]string{"probe", "--answer", "7", "127.0.0.1"}, 2},
		{[]string{"demo", "--xcarp", "/nonexistent/xcarp"}, 1},
		{[]string{"sim", "--seeds", "20"}, 0},
		{[]string{"sim", "--seed", "3", "--record", t.TempDir()}, 0},
		{[]string{"sim", "--replay", "../../internal/carp/testdata/term.txt"}, 0},
		{[]string{"sim", "--replay", "/nonexistent/record"}, 1},
		{[]string{"sim", "--replay", "main.go"}, 1},
		{[]string{"sim", "7"}, 2},
		{[]string{"sim", "--seed", "3", "--replay", "x"}, 2},
		{[]string{"sim", "--record", "x"}, 2},
		{[]string{"sim", "-o", "yaml"}, 2},
	} {
		if got := run(t.Context(), c.args); got != c.want {
			t.Errorf("%q: got exit status %d, want %d", c.args, got, c.want)
		}
	}
}
