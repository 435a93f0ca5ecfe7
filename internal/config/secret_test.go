package config

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string { return write(t, dir, name, text, mode) }
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file("target", testKey, 0o600), link); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, want string }{
		{"0600", file("a", "x\n", 0o600), ""},
		{"0400", file("b", "x\n", 0o400), ""},
		{"readable by all", file("c", "x", 0o644), "has mode 0644, so others can read it: chmod 600 " + dir + "/c"},
		{"readable by a group", file("d", "x", 0o640), "has mode 0640, so others can read it: chmod 600 " + dir + "/d"},
		{"executable by all", file("e", "x", 0o601), "has mode 0601, so others can read it: chmod 600 " + dir + "/e"},
		{"link", link, "is a symbolic link: name the file itself"},
		{"directory", dir, "is not a regular file: name a file"},
		{"pipe", pipe, "is not a regular file: name a file"},
		{"device", "/dev/zero", "is not a regular file: name a file"},
		{"missing", dir + "/no", "does not exist: make one: (umask 077; xcarp keygen > " + dir + "/no)"},
		{"4096 bytes", file("f", strings.Repeat("x", 4096), 0o600), ""},
		{"4097 bytes", file("g", strings.Repeat("x", 4097), 0o600), "has 4097 bytes: at most 4096 are allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := readSecret(c.path)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	t.Run("of somebody else", func(t *testing.T) {
		path := file("h", "x", 0o600)
		nstest.RequireRoot(t) // to give a file away
		if err := os.Chown(path, 4711, -1); err != nil {
			t.Fatal(err)
		}
		_, err := readSecret(path)
		if want := "belongs to uid 4711, who could change it: chown root " + path; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
}

func TestParseKey(t *testing.T) {
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for _, c := range []struct{ name, text, want string }{
		{"as keygen prints it", GenerateKey(), ""},
		{"without a newline", strings.TrimSpace(GenerateKey()), ""},
		{"with CR LF", b64(32) + "\r\n", ""},
		{"empty", "", "is empty"},
		{"blank", " \n", "is empty"},
		{"too short", b64(31), "holds 31 bytes, not 32"},
		{"too long", b64(33), "holds 33 bytes, not 32"},
		{"words", "correct horse battery staple", "does not hold base64"},
		{"raw bytes", string(make([]byte, 32)), "does not hold base64"},
		{"two keys", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= # old\n\n# new\nAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", ""},
		{"the same twice", b64(32) + "\n" + b64(32) + "\n", fmt.Sprintf("has two keys with the id %02x: remove one, or make another", Key{}.ID())},
		{"a bad second one", GenerateKey() + b64(31), "holds 31 bytes in line 2, not 32"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseKeys([]byte(c.text))
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestGenerateKey(t *testing.T) {
	a, b := GenerateKey(), GenerateKey()
	if a == b || len(a) != 45 || a[44] != '\n' {
		t.Errorf("%q, %q", a, b)
	}
}

// TestRedaction prints a Config in every way that a log or a dump might.
func TestRedaction(t *testing.T) {
	c, err := load(t, pair+"\n# geheim\n")
	if err != nil {
		t.Fatal(err)
	}
	c.Groups[0].Password = Secret("geheim")
	c.Key = Key([]byte("geheimgeheimgeheimgeheimgeheimge"))
	var out []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U"} {
		for _, v := range []any{c, *c, c.Groups, c.Key, &c.Key, c.Groups[0].Password, &c.Groups[0].Password, []any{c.Key}} {
			out = append(out, fmt.Sprintf(verb, v))
		}
	}
	j, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	y, err := yaml.Marshal(c.Groups)
	if err != nil {
		t.Fatal(err)
	}
	enc := zapcore.NewJSONEncoder(zapcore.EncoderConfig{})
	z, err := enc.EncodeEntry(zapcore.Entry{}, []zapcore.Field{
		zap.Any("config", c), zap.Any("key", c.Key), zap.Any("pass", c.Groups[0].Password), zap.Reflect("groups", c.Groups),
	})
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, string(j), string(y), z.String())
	for _, forbidden := range []string{
		"geheim", fmt.Sprintf("%x", "geheim"), fmt.Sprintf("%X", "geheim"), fmt.Sprint([]byte("geheim"))[1:20],
		base64.StdEncoding.EncodeToString([]byte("geheim")), fmt.Sprintf("%o", []byte("geheim"))[1:20], "0x67, 0x65",
	} {
		for _, s := range out {
			if strings.Contains(s, forbidden) {
				t.Errorf("%q in %.300s", forbidden, s)
			}
		}
	}
	if n := strings.Count(string(j), redacted); n != 4 { // a key, once more among all keys, and two passwords
		t.Errorf("%d times %s in %s", n, redacted, j)
	}
}

func TestInlinePasswordNeedsAPrivateFile(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "xcarp.yaml", g(""), 0o644)
	_, err := Load(path, noEnv)
	want := path + ":3:57: a password in a file that others can read (mode 0644): chmod 600 " + path + ", or use pass_file"
	if got := said(err); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	write(t, dir, "p", "hunter2\n", 0o600)
	path = write(t, dir, "xcarp.yaml", strings.Replace(g(""), "pass: x", "pass_file: p", 1), 0o644)
	if _, err := Load(path, noEnv); err != nil {
		t.Errorf("with pass_file: %v", err)
	}
}

func TestSecretFilesFromTheEnvironment(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "k", testKey, 0o400)
	text := "key_file: ${CREDENTIALS_DIRECTORY}/k\ngroups: {g: {vhid: 1, carpdev: eth0, addresses: [10.0.0.1/24]}}\n"
	env := func(name string) string { return map[string]string{"CREDENTIALS_DIRECTORY": dir}[name] }
	c, err := Load(write(t, t.TempDir(), "xcarp.yaml", text, 0o644), env)
	if err != nil {
		t.Fatal(err)
	}
	if !c.HasKey || c.Key[31] != 31 || !c.Groups[0].FromKey || len(c.Groups[0].Password) != 0 {
		t.Errorf("%v %d %+v", c.HasKey, c.Key[31], c.Groups[0])
	}
}

func TestWarnings(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nineteen bytes", strings.Replace(g(""), "pass: x", "pass: "+strings.Repeat("x", 19), 1), ""},
		{"twenty bytes", strings.Replace(g(""), "pass: x", "pass: "+strings.Repeat("x", 20), 1),
			"xcarp.yaml:3:57: warning: pass has 20 bytes: only the first 19 count, as on the BSDs"},
		{"skew of others only", g("") + "advskew: {m: 5}\n", `xcarp.yaml:4:1: warning: advskew has no entry for this node, "n": it gets 0`},
		{"bundle of one", g("") + "bundle: [g]\n", "xcarp.yaml:4:9: warning: a bundle of less than two groups does nothing: name the groups that must move together"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := load(t, c.text)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, w := range cfg.Warnings {
				w.File = "xcarp.yaml"
				got += w.Error()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
