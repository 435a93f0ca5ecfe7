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
		{[]string{"demo", "--systems", "xcarp,ucarp"}, 1},
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
