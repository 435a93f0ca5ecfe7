package config

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// write puts a file into the test's folder and returns its path.
func write(tb testing.TB, dir, name, text string, mode os.FileMode) string {
	tb.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		tb.Fatal(err)
	}
	return path
}

const testKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"

func noEnv(string) string { return "" }

// load loads the text as xcarp.yaml, beside a key file k and a password file p.
func load(tb testing.TB, text string) (*Config, error) {
	tb.Helper()
	dir := tb.TempDir()
	write(tb, dir, "k", testKey, 0o600)
	write(tb, dir, "p", "hunter2\n", 0o600)
	c, err := Load(write(tb, dir, "xcarp.yaml", text, 0o600), noEnv)
	for _, p := range Problems(err) {
		for _, s := range []*string{&p.File, &p.Message, &p.Fix} {
			*s = strings.ReplaceAll(*s, dir+"/", "")
		}
	}
	return c, err
}

// said returns the one-line forms of all problems.
func said(err error) string {
	var lines []string
	for _, p := range Problems(err) {
		lines = append(lines, p.Error())
	}
	return strings.Join(lines, "\n")
}

const pair = `node: fw-a
key_file: k
sync: {dev: eth2, nodes: {fw-a: 172.30.0.1, fw-b: 172.30.0.2}}
preempt: true
groups:
  wan: {vhid: 1, carpdev: eth0, addresses: [203.0.113.1/24, "2001:db8::1/64"]}
  lan: {vhid: 2, carpdev: eth1, addresses: [10.0.0.9/24, 10.0.0.1/24], preempt: false, mode: next-hop, hmac: openbsd, advbase: 0, advskew: {fw-a: 7}, pass_file: p}
advskew: {fw-a: 20, fw-b: 100}
bundle: [wan, lan]
xdp: native
metrics: {listen: ":9112"}
log: {level: debug}
`

func TestLoad(t *testing.T) {
	got, err := load(t, pair)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Node: "fw-a", HasKey: true, Preempt: true, Auth: AuthCompat, Trailer: true, Split: SplitHold, Detect: DetectDefault,
		Sync: &Sync{
			Dev: "eth2", Port: 4112, Hold: 600 * time.Second,
			Local: netip.MustParseAddr("172.30.0.1"),
			Peers: map[string]netip.Addr{"fw-b": netip.MustParseAddr("172.30.0.2")},
		},
		Groups: []Group{{
			Name: "lan", VHID: 2, Carpdev: "eth1", AdvBase: 0, AdvSkew: 7, Password: Secret("hunter2"),
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("10.0.0.9/24")},
			Mode:      NextHop, HMAC: HMACOpenBSD, Auth: AuthCompat, DSCP: 56, Trailer: true, Split: SplitHold, Detect: DetectDefault,
		}, {
			Name: "wan", VHID: 1, Carpdev: "eth0", AdvBase: 1, AdvSkew: 20, FromKey: true, Preempt: true,
			Addresses: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/24"), netip.MustParsePrefix("2001:db8::1/64")},
			Mode:      Local, HMAC: HMACAuto, Auth: AuthCompat, DSCP: 56, Trailer: true, Split: SplitHold, Detect: DetectDefault,
		}},
		Bundles: [][]string{{"wan", "lan"}},
		DSCP:    56, SendErr: 240, IfDown: 240,
		XDP: XDPNative, Metrics: Metrics{":9112"}, Log: Log{"debug"},
		Ready: Ready{Settle: time.Second},
	}
	for i := range want.Key {
		want.Key[i] = byte(i)
	}
	want.Keys = []Key{want.Key}
	addr := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	prefix := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	diff := cmp.Diff(want, got, addr, prefix, cmpopts.IgnoreUnexported(Config{}), cmpopts.IgnoreFields(Config{}, "Path", "Hash", "KeyFile"))
	if diff != "" {
		t.Errorf("want, got:\n%s", diff)
	}
	if filepath.Base(got.Path) != "xcarp.yaml" || len(got.Hash) != 16 {
		t.Errorf("path %q, hash %q", got.Path, got.Hash)
	}
}

func TestDefaults(t *testing.T) {
	c, err := load(t, "groups: {g: {vhid: 1, carpdev: eth0, addresses: [10.0.0.1/24], pass: x}}")
	if err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	g := c.Groups[0]
	if c.Node != host || c.XDP != XDPAuto || c.Log.Level != "info" || c.Metrics.Listen != "" || c.Sync != nil || c.HasKey ||
		g.AdvBase != 1 || g.AdvSkew != 0 || g.Preempt || g.FromKey || g.Mode != Local || g.HMAC != HMACAuto ||
		g.Auth != AuthCompat || g.Trailer {
		t.Errorf("got %+v", c)
	}
}

func TestHostNameWithoutItsDomain(t *testing.T) {
	r := &reader{source: &source{text: strings.TrimPrefix(pair, "node: fw-a\n"), places: map[string]*node{}},
		env: noEnv, hostname: "fw-b.example.org"}
	c := r.read()
	if len(r.problems) > 0 || c.Node != "fw-b" || c.Groups[1].AdvSkew != 100 || c.Sync.Local.String() != "172.30.0.2" {
		t.Errorf("node %q, %+v, %v", c.Node, c.Groups, said(join(r.problems)))
	}
}

func TestBundleOfBundles(t *testing.T) {
	text := strings.Replace(pair, "bundle: [wan, lan]", "bundle: [[wan, lan]]", 1)
	c, err := load(t, text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]string{{"wan", "lan"}}, c.Bundles); diff != "" {
		t.Error(diff)
	}
}

func TestHash(t *testing.T) {
	hash := func(old, new string) string {
		text := strings.Replace(pair, old, new, 1)
		if old != new && text == pair {
			t.Fatalf("no %q", old)
		}
		c, err := load(t, text)
		if err != nil {
			t.Fatal(err)
		}
		return c.Hash
	}
	same := hash("", "")
	if got := hash("preempt: true", "# a remark\npreempt:   true"); got != same {
		t.Error("a comment changed the hash")
	}
	if got := hash("advbase: 0", "advbase: 1"); got == same {
		t.Error("another advbase did not change the hash")
	}
	if got := hash("pass_file: p", "pass: hunter3"); got == same {
		t.Error("another password did not change the hash")
	}
}

func TestNotAFile(t *testing.T) {
	dir := t.TempDir()
	big := write(t, dir, "big", strings.Repeat("#\n", maxText), 0o600)
	for _, c := range []struct{ name, path, want string }{
		{"missing", dir + "/no", dir + "/no: no such file: write one; docs/example.yaml is a commented one"},
		{"directory", dir, dir + ": is a directory: name the file in it: " + dir + "/xcarp.yaml"},
		{"device", "/dev/null", "/dev/null: is not a regular file: name a file"},
		{"huge", big, big + ": is larger than 256 KiB: is this the right file?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(c.path, noEnv)
			if got := said(err); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(pair))
	for _, c := range bad {
		f.Add([]byte(c.text))
	}
	if b, err := os.ReadFile("../../docs/example.yaml"); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := &reader{source: &source{path: "f", text: string(text), places: map[string]*node{}}, env: noEnv, hostname: "h"}
		c := r.read()
		for _, p := range append(r.problems, r.warnings...) {
			if s := p.Error(); strings.ContainsAny(s, "\n\r") || !strings.HasPrefix(s, "f:") {
				t.Errorf("not one line with a place: %q", s)
			}
		}
		if len(r.problems) > 0 {
			return
		}
		for _, g := range c.Groups {
			if g.VHID == 0 || g.Carpdev == "" || len(g.Addresses) == 0 || !g.FromKey && len(g.Password) == 0 && len(r.secrets) == 0 {
				t.Errorf("accepted %+v", g)
			}
		}
		Check(c, System{})
	})
}
