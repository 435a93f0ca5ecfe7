package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xcarp/xcarp/internal/journal"
	"github.com/xcarp/xcarp/internal/nstest"
)

// typed runs a command line as a person would who has no daemon.
func typed(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XCARP_RUN_DIR", filepath.Join(dir, "run"))
	t.Setenv("XCARP_STATE_DIR", filepath.Join(dir, "state"))
	t.Setenv("XCARP_PIN_DIR", filepath.Join(dir, "pin"))
	var out, errs bytes.Buffer
	code = execute(t.Context(), args, &out, &errs)
	return out.String(), errs.String(), code
}

// file writes a file that nobody else can read.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A command line that makes no sense costs one line, which says what to look at.
func TestACommandLineThatMakesNoSense(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"shwo", `no command "shwo": did you mean "show"?: see xcarp --help`},
		{"frobnicate", `no command "frobnicate": see xcarp --help`},
		{"show wan lan", `"lan" is one word too many: see xcarp show --help`},
		{"run xcarp.yaml", `"xcarp.yaml" is one word too many: see xcarp run --help`},
		{"key rotate", `no command "rotate": see xcarp key --help`},
		{"key retier 81", `no command "retier": did you mean "retire"?: see xcarp key --help`},
		{"key use", `a word is missing: write xcarp key use ID: see xcarp key use --help`},
		{"show -o yaml", `-o yaml: not a format: table or json: see xcarp show --help`},
		{"detach -o yaml", `-o yaml: not a format: table or json: see xcarp detach --help`},
		{"demote --for 3", `invalid argument "3" for "--for" flag: time: missing unit in duration "3": see xcarp demote --help`},
		{"sysctl -w net.inet.carp.allow = 1", `a blank beside =: write NAME=VALUE as one word: see xcarp sysctl --help`},
		{"ifconfig --frob carp1", `unknown flag: --frob: see xcarp ifconfig --help`},
		{"check x.yaml -c y.yaml", `check: FILE and --config are the same: give one: see xcarp check --help`},
		{"--run-dir", `flag needs an argument: --run-dir: see xcarp --help`},
	} {
		t.Run(tt.line, func(t *testing.T) {
			out, errs, code := typed(t, strings.Fields(tt.line)...)
			if want := "xcarp: " + tt.want + "\n"; errs != want || out != "" || code != 2 {
				t.Errorf("got  %q, %q, exit status %d\nwant %q, exit status 2", out, errs, code, want)
			}
		})
	}
}

// The flags of all commands mean the same before and behind the command's name.
func TestFlagsBeforeAndBehindTheCommand(t *testing.T) {
	for _, line := range []string{
		"show --run-dir /nowhere", "--run-dir /nowhere show", "--run-dir=/nowhere ifconfig carp1", "ifconfig carp1 --run-dir /nowhere",
		"--run-dir /nowhere ifconfig carp1 create", "ifconfig --run-dir /nowhere carp1 down -o=json",
		"sysctl --run-dir /nowhere", "demote --run-dir /nowhere", "--run-dir /nowhere undemote",
	} {
		_, errs, code := typed(t, strings.Fields(line)...)
		if want := "xcarp: /nowhere/xcarp.sock: no daemon answers there: start it with `xcarp run`, or give --run-dir\n"; errs != want || code != 1 {
			t.Errorf("%s: %q, exit status %d, want %q and 1", line, errs, code, want)
		}
	}
}

// Every command that prints prints JSON, too.
func TestEveryCommandHasJSON(t *testing.T) {
	root := rootCommand()
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "run", "help", "completion":
			continue
		}
		for _, c := range append(c.Commands(), c) {
			if c.InheritedFlags().Lookup("output") == nil && c.Flags().Lookup("output") == nil && c.PersistentFlags().Lookup("output") == nil {
				t.Errorf("%s has no -o", c.CommandPath())
			}
		}
	}
	key := file(t, "xcarp.key", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
	for _, line := range []string{
		"keygen", "version", "key --key-file " + key, "key add --key-file " + key, "check " + file(t, "x.yaml", "a"),
	} {
		out, errs, _ := typed(t, append(strings.Fields(line), "-o", "json")...)
		if !json.Valid([]byte(out)) || errs != "" {
			t.Errorf("%s -o json prints %q, %q", line, out, errs)
		}
	}
}

// The warnings of the text are among what check says, and so is what the machine
// lacks for a text with mistakes: all at once.
func TestCheckSaysAllAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
		code       int
	}{
		{"an empty file", "", []string{"x.yaml: warning: no groups: this node shares nothing"}, 0},
		{"a text with a mistake", "groups:\n  a: {vhid: 999, carpdev: nowhere7, addresses: [10.0.0.1/24], pass: x}\n",
			[]string{"x.yaml:2:13: vhid", "x.yaml:2:27: carpdev: no interface \"nowhere7\""}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.code == 0 {
				nstest.RequireRoot(t) // to be none is an error of its own
			}
			conf := file(t, "x.yaml", tt.text)
			_, errs, code := typed(t, "check", conf)
			if code != tt.code {
				t.Errorf("exit status %d, want %d", code, tt.code)
			}
			if _, same, code := typed(t, "check", "--config", conf); same != errs || code != tt.code {
				t.Errorf("with --config: exit status %d\n%s", code, same)
			}
			for _, w := range tt.want {
				if !strings.Contains(errs, w) {
					t.Errorf("lacks %q:\n%s", w, errs)
				}
			}
		})
	}
}

// TestLogOfNoGroup: a name that was mistyped is not a group without events.
func TestLogOfNoGroup(t *testing.T) {
	dir := t.TempDir()
	line := `{"seq":1,"at":"2026-11-28T00:00:00Z","level":"info","text":"state","fields":{"group":"lan"}}` + "\n"
	if err := os.WriteFile(journal.Path(dir), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	for group, want := range map[string]string{"lan": "", "lna": "xcarp: nothing of a group \"lna\" is on record: `xcarp show` lists the groups\n"} {
		for _, since := range []string{"2026-11-27T00:00:00Z", "2026-11-29T00:00:00Z"} {
			out, errs, code := typed(t, "log", group, "--since", since, "--state-dir", dir)
			if errs != want || (code != 0) != (want != "") {
				t.Errorf("log %s --since %s: got %q, %q, exit status %d", group, since, out, errs, code)
			}
		}
	}
}

// What a reboot forgets does not go where what it must keep is.
func TestRunDirAndStateDirAreTwo(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	conf := file(t, "x.yaml", "")
	for _, line := range [][]string{
		{"run", "--config", conf, "--run-dir", dir, "--state-dir", dir + "/"},
		{"check", conf, "--run-dir", dir, "--state-dir", link},
	} {
		_, errs, code := typed(t, line...)
		if !strings.Contains(errs, "run-dir and state-dir are both "+dir) || code != 1 {
			t.Errorf("%v: exit status %d: %s", line, code, errs)
		}
	}
}
