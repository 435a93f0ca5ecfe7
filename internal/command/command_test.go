package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// script makes an executable file that everybody may read, and returns its path.
func script(tb testing.TB, text string) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "xcarp-command-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil { // whoever the command runs as
		tb.Fatal(err)
	}
	path := filepath.Join(dir, "run")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		tb.Fatal(err)
	}
	return path
}

func self(argv ...string) Spec {
	return Spec{Argv: argv, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

func TestExitStatusAndLastLine(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"success", "echo fine; exit 0", ""},
		{"failure says the last line", "echo first; echo 'no route to the bank' >&2; echo; exit 3", "exit status 3: no route to the bank"},
		{"failure without a word", "exit 1", "exit status 1"},
		{"a signal", "kill -USR1 $$", "signal: user defined signal 1"},
		{"control characters", "printf '\\033[31mred\\n'; exit 1", "exit status 1: [31mred"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if err := NewRunner(self(script(t, c.text))).Run(t.Context()); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestArgumentsMeetNoShell(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out")
	hostile := "a b; touch /nonexistent/$(id) `id` * \"'"
	r := NewRunner(self(script(t, `printf '%s|' "$@" >"$OUT"`), hostile, ""))
	if err := r.Run(t.Context(), "OUT="+file); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(b), hostile+"||"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEnvironmentIsNotTheDaemons(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "/secret")
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	err := NewRunner(self(script(t, `env | grep -v -e ^PATH= -e ^LANG= -e ^PWD= -e ^SHLVL= -e ^_= -e ^OLDPWD= | tr '\n' ' '; exit 1`))).Run(t.Context(), "XCARP_NODE=a")
	if got, want := fmt.Sprint(err), "exit status 1: XCARP_NODE=a"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// alive reports whether the process is there and no zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// pidIn waits for a process number in a file.
func pidIn(tb testing.TB, file string) int {
	tb.Helper()
	pid := 0
	nstest.Eventually(tb, 10*time.Second, "a process number in "+file, func() bool {
		b, err := os.ReadFile(file)
		if err != nil || !strings.HasSuffix(string(b), "\n") {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err == nil
	})
	return pid
}

// A program that hangs is killed with all its children.
func TestTimeoutKillsTheGroup(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	r := NewRunner(self(script(t, "sleep 1000 & echo $! >"+file+"; echo waiting for godot; wait")))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := r.Run(ctx)
	if err == nil || !strings.HasPrefix(err.Error(), "timeout: killed after ") || !strings.HasSuffix(err.Error(), ": waiting for godot") {
		t.Errorf("got %v", err)
	}
	child := pidIn(t, file)
	nstest.Eventually(t, 5*time.Second, "the child is gone", func() bool { return !alive(child) })
}

// What a program leaves in its group goes with it, and a pipe that something
// outside of the group keeps open holds nobody up.
func TestLeftoversAreKilled(t *testing.T) {
	nstest.RequireProgram(t, "setsid")
	dir := t.TempDir()
	r := NewRunner(self(script(t, "sleep 1000 & echo $! >"+dir+"/in\nsetsid sh -c 'echo $$ >"+dir+"/out; exec sleep 5' &\nuntil [ -s "+dir+"/out ]; do sleep 0.05; done\nexit 0")))
	begun := time.Now()
	if err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("waited %v for a process outside of the group", took)
	}
	in := pidIn(t, dir+"/in")
	nstest.Eventually(t, 5*time.Second, "the child is gone", func() bool { return !alive(in) })
}

func TestRunsAsItsUser(t *testing.T) {
	nstest.RequireRoot(t)
	spec := Spec{Argv: []string{script(t, `echo "$(id -u) $(id -g) $(id -G) $(cat /proc/self/status | grep CapEff | tr -d '\t')"; exit 1`)}, UID: 65534, GID: 65534}
	err := NewRunner(spec).Run(t.Context())
	if got, want := fmt.Sprint(err), "exit status 1: 65534 65534 65534 CapEff:0000000000000000"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The daemon has a score of its own for the OOM killer; what it runs has none.
func TestOOMKillerMayHaveIt(t *testing.T) {
	const file = "/proc/self/oom_score_adj"
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("100"), 0); err != nil { // less than 0 takes a capability
		t.Fatal(err)
	}
	defer func() { _ = os.WriteFile(file, was, 0) }()
	err = NewRunner(self(script(t, "until [ $(cat /proc/$$/oom_score_adj) = 0 ] || [ $((i+=1)) = 50 ]; do sleep 0.1; done; echo $(cat /proc/$$/oom_score_adj); exit 1"))).Run(t.Context())
	if got, want := fmt.Sprint(err), "exit status 1: 0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMissingProgram(t *testing.T) {
	err := NewRunner(self("/nonexistent/check")).Run(t.Context())
	if !errors.Is(err, unix.ENOENT) || err.Error() != "start /nonexistent/check: no such file or directory" {
		t.Errorf("got %v", err)
	}
}

func TestLongOutputIsCut(t *testing.T) {
	var o output
	for range 100 {
		if _, err := o.Write([]byte(strings.Repeat("x", 1000))); err != nil {
			t.Fatal(err)
		}
	}
	if len(o.b) != outputMax || len(o.last()) > lineMax+len(": …") {
		t.Errorf("kept %d bytes, a line of %d", len(o.b), len(o.last()))
	}
}
