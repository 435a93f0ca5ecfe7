package config

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xcarp/xcarp/internal/bsd"
)

func TestABSDLineIsAGroup(t *testing.T) {
	c, err := load(t, line("vhid 1 pass password carpdev em0 advskew 100 10.0.0.1 netmask 255.255.255.0"))
	if err != nil {
		t.Fatal(err)
	}
	g := c.Groups[0]
	if g.Name != "carp1" || g.VHID != 1 || string(g.Password) != "password" || g.Carpdev != "em0" || g.AdvSkew != 100 ||
		len(g.Addresses) != 1 || g.Addresses[0].String() != "10.0.0.1/24" || g.AdvBase != 1 || g.Mode != Local {
		t.Errorf("got %+v", g)
	}
}

func TestALineSaysWhereAdvertsGo(t *testing.T) {
	const file = "groups: {wan: {vhid: 1, carpdev: eth0, addresses: [10.0.0.1/24, \"2001:db8::1/64\"], carppeer: 10.0.0.2, pass: x}}\n"
	for _, tt := range []struct{ line, want string }{
		{"", "10.0.0.2 invalid IP invalid IP invalid IP  56"},
		{"ifconfig wan peer6 fe80::3", "10.0.0.2 fe80::3 invalid IP invalid IP  56"},
		{"ifconfig wan peer 10.0.0.3 peer6 fe80::3", "10.0.0.3 fe80::3 invalid IP invalid IP  56"},
		{"ifconfig wan -carppeer mcast 224.0.0.99 mcast6 ff02::99", "invalid IP invalid IP 224.0.0.99 ff02::99  56"},
		{"ifconfig wan -carppeer peer6 fe80::3", "invalid IP fe80::3 invalid IP invalid IP  56"},
		{"ifconfig wan -peer6 lladdr 02:00:c0:ff:ee:01", "10.0.0.2 invalid IP invalid IP invalid IP 02:00:c0:ff:ee:01 56"},
		{"sysctl net.inet.carp.dscp=4", "10.0.0.2 invalid IP invalid IP invalid IP  4"},
	} {
		c, err := edited(t, file, tt.line)
		if err != nil {
			t.Errorf("%s: %v", tt.line, err)
			continue
		}
		g := c.Groups[0]
		if got := fmt.Sprint(g.Peer4, " ", g.Peer6, " ", g.Mcast4, " ", g.Mcast6, " ", net.HardwareAddr(g.LLAddr), " ", g.DSCP); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.line, got, tt.want)
		}
	}
	for line, want := range map[string]string{
		"ifconfig wan peer6 10.0.0.3":                              `:20: peer6 is an IPv6 address, not 10.0.0.3: write peer 10.0.0.3`,
		"ifconfig wan lladdr nonsense":                             `:21: "nonsense" cannot be the MAC address of an interface: write one such as 02:00:c0:ff:ee:01`,
		"ifconfig wan carppeer 10.0.0.1":                           `:23: carppeer 10.0.0.1 is a shared address: write the own address of the other member on the carpdev, such as 10.0.0.3`,
		"ifconfig wan balancing ip":                                `:24: group "wan" has balance and no carpnodes: add carpnodes: {1: 0, 2: 100}, a vhid and its advskew here for each node`,
		"ifconfig wan carpnodes 1:0,2:100 balancing ip-unicast":    `:44: balance: ip-unicast needs a hub: a switch learns where the MAC is: write ip or ip-stealth`,
		"sysctl net.inet.carp.dscp=4\nifconfig wan mcast 10.0.0.9": `:20: mcast must be a multicast address of its family, not "10.0.0.9": write one such as 224.0.0.18`,
	} {
		_, err := edited(t, file, line)
		if err == nil || strings.Count(err.Error(), "\n") > 0 || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: got %v, want …%s", line, err, want)
		}
	}
	c, err := edited(t, file, "sysctl net.inet.carp.ifdown_demotion_factor=7", "sysctl net.inet.carp.senderr_demotion_factor=9")
	if err != nil || c.IfDown != 7 || c.SendErr != 9 {
		t.Errorf("ifdown %v, senderr %v, %v", c.IfDown, c.SendErr, err)
	}
}

// edited loads a text with lines laid over it.
func edited(t *testing.T, text string, lines ...string) (*Config, error) {
	t.Helper()
	dir := t.TempDir()
	path := write(t, dir, "xcarp.yaml", text, 0o600)
	l, err := ReadLines(write(t, dir, "lines", strings.Join(lines, "\n")+"\n", 0o600))
	if err != nil {
		return nil, err
	}
	return Source{Path: path, Env: noEnv, Lines: l}.Load()
}

func TestLinesChangeWhatTheFileSays(t *testing.T) {
	const file = "node: n\npreempt: true\ngroups:\n  wan: {vhid: 1, carpdev: eth0, addresses: [10.0.0.1/24, 10.0.0.2/24], pass: x}\n  lan: {vhid: 2, carpdev: eth1, addresses: [10.1.0.1/24], pass: x}\nbundle: [wan, lan]\n"
	c, err := edited(t, file,
		"sysctl net.inet.carp.preempt=0", "sysctl net.inet.carp.log=6", "sysctl net.inet.carp.allow=0",
		"ifconfig wan advskew 50 -alias 10.0.0.2 10.0.0.3/24", "ifconfig wan down",
		"ifconfig lan destroy",
		"ifconfig carp1 create", "ifconfig carp1 vhid 3 carpdev eth1", "ifconfig carp1 pass secret 10.1.0.9/24",
		"ifconfig carp2 create carpdev eth7")
	if err != nil {
		t.Fatal(err)
	}
	if c.Preempt || c.Log.Level != "debug" || !c.Idle {
		t.Errorf("preempt %v, log %v, idle %v: the sysctls do nothing", c.Preempt, c.Log.Level, c.Idle)
	}
	if w := c.Group("wan"); w == nil || w.AdvSkew != 50 || !w.Down || w.VHID != 1 || len(w.Addresses) != 2 ||
		w.Addresses[1] != netip.MustParsePrefix("10.0.0.3/24") || w.Preempt {
		t.Errorf("wan: %+v", w)
	}
	if c.Group("lan") != nil {
		t.Error("lan is still there")
	}
	if g := c.Group("carp1"); g == nil || g.VHID != 3 || g.Carpdev != "eth1" || string(g.Password) != "secret" {
		t.Errorf("carp1: %+v", g)
	}
	if len(c.Drafts) != 1 || c.Drafts[0].Name != "carp2" || strings.Join(c.Drafts[0].Missing, " ") != "vhid an address pass" || c.Drafts[0].Known["carpdev"] != "eth7" {
		t.Errorf("drafts: %+v", c.Drafts)
	}
	if !c.InFile("lan") || c.InFile("carp1") {
		t.Error("InFile does not tell the file from the lines")
	}

	// Other lines over the same text, which may have gone wrong on disk since.
	if err := os.WriteFile(c.Path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := c.With(&Lines{})
	if err != nil {
		t.Fatal(err)
	}
	if again.Group("lan") == nil || again.Group("carp1") != nil || again.Hash == c.Hash {
		t.Errorf("without lines: %+v", again.Groups)
	}
}

func TestALineThatDoesNotFitIsRefusedWhereItStands(t *testing.T) {
	const file = "groups: {wan: {vhid: 1, carpdev: eth0, addresses: [10.0.0.1/24], pass: x}}\n"
	for _, tt := range []struct{ name, line, want string }{
		{"a vhid that is taken", "ifconfig carp1 vhid 1 pass x carpdev eth0 10.0.0.2/24", `lines:1:21: vhid 1 on eth0 is taken by group "carp1": give one of them another vhid`},
		{"an address that is taken", "ifconfig carp1 vhid 2 pass x carpdev eth0 10.0.0.1/24", `lines:1:43: address 10.0.0.1 is already in group "wan": keep it in one group`},
		{"no word", "ifconfig carp1 vhdi 2", `lines:1:16: unknown word "vhdi": did you mean "vhid"?`},
		{"no command", "route add 10.0.0.0/8", `lines:1:7: unknown word "add"`},
		{"state", "ifconfig wan state master", `lines:1:20: state cannot be set: a better advskew or a demotion moves a group`},
		{"sync without a key", "ifconfig pfsync0 syncdev eth2 syncpeer 10.1.1.2 up", `lines:1:26: state sync needs a key: run (umask 077; xcarp keygen > DIR/xcarp.key), copy the file to the other node, and say this again`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := edited(t, file, tt.line)
			if err == nil {
				t.Fatal("accepted")
			}
			got := err.Error()
			dir := got[:strings.Index(got, "lines:")]
			got = strings.ReplaceAll(strings.ReplaceAll(got, dir+"lines", "lines"), strings.TrimSuffix(dir, "/"), "DIR")
			if tt.name == "a vhid that is taken" { // groups are read in the order of the text: the line's comes last
				tt.want = `lines:1:21: vhid 1 on eth0 is taken by group "wan": give one of them another vhid`
			}
			if tt.name == "no command" {
				if !strings.HasPrefix(got, "lines:1:") {
					t.Errorf("got %s", got)
				}
				return
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestAPfsyncLineFindsItsOwnAddress(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "xcarp.key", GenerateKey(), 0o600)
	path := write(t, dir, "xcarp.yaml", "", 0o600)
	lines, err := ReadLines(write(t, dir, "lines", "ifconfig pfsync0 syncdev eth2 syncpeer 10.1.1.2 up\n", 0o600))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Source{Path: path, Env: noEnv, Lines: lines}.Load()
	if err != nil {
		t.Fatal(err)
	}
	sys := System{EUID: 0, Forward4: true, Forward6: true, Interfaces: []Interface{
		{Name: "eth2", Ethernet: true, Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.1.1/30")}},
	}}
	for _, p := range Check(c, sys) {
		if !p.Warning {
			t.Error(p)
		}
	}
	if c.Sync == nil || c.Sync.Local.String() != "10.1.1.1" || c.Sync.Peers["10.1.1.2"].String() != "10.1.1.2" || !c.HasKey {
		t.Errorf("sync %+v, key %v", c.Sync, c.HasKey)
	}
}

func TestLinesOutliveTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "lines")
	l := &Lines{}
	for _, text := range []string{"carp2 create", "carp1 vhid 1 pass \"a b\" carpdev em0 10.0.0.1/24", "carp1 advskew 5 -alias 10.0.0.7"} {
		line, err := bsd.ParseIfconfig(text)
		if err != nil {
			t.Fatal(err)
		}
		l.Ifconfig(line)
	}
	l.Sysctl(bsd.Sysctl{Name: "preempt", Value: 1})
	if err := l.Write(path); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	again, err := ReadLines(path)
	if err != nil {
		t.Fatal(err)
	}
	if again.String() != l.String() || !strings.Contains(l.String(), `ifconfig carp1 vhid 1 carpdev em0 advskew 5 pass "a b" 10.0.0.1/24 -alias 10.0.0.7`) {
		t.Errorf("got\n%s\nwant\n%s", again, l)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadLines(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others can read: %v", err)
	}
	if err := (&Lines{}).Write(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Error("no lines, but a file")
	}
}

// What a person wrote into the file of saved lines stays: comments, order, and the
// wording of what is the same.
func TestCommentsOfTheSavedLinesStay(t *testing.T) {
	path := write(t, t.TempDir(), "lines", `# the pair in the cellar
ifconfig carp2 vhid 2 pass password carpdev em0 10.0.0.2 netmask 255.255.255.0

# until the new switch is there
sysctl net.inet.carp.preempt=1
ifconfig carp1 vhid 1 pass password carpdev em0 10.0.0.1/24
`, 0o600)
	l, err := ReadLines(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"carp1 advskew 7", "carp3 create"} {
		line, err := bsd.ParseIfconfig(text)
		if err != nil {
			t.Fatal(err)
		}
		l.Ifconfig(line)
	}
	says := func(want string) {
		t.Helper()
		if err := l.Write(path); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%v\ngot\n%s\nwant\n%s", err, got, want)
		}
		if l, err = ReadLines(path); err != nil {
			t.Fatal(err)
		}
	}
	says(`# the pair in the cellar
ifconfig carp2 vhid 2 pass password carpdev em0 10.0.0.2 netmask 255.255.255.0

# until the new switch is there
sysctl net.inet.carp.preempt=1
ifconfig carp1 vhid 1 carpdev em0 advskew 7 pass password 10.0.0.1/24
ifconfig carp3 create
`)
	for _, name := range []string{"carp1", "carp2", "carp3"} {
		l.Forget(name)
	}
	says(`# the pair in the cellar

# until the new switch is there
sysctl net.inet.carp.preempt=1
`)
}

func TestNothingIsAConfiguration(t *testing.T) {
	dir := t.TempDir()
	for name, s := range map[string]Source{
		"an empty file":  {Path: write(t, dir, "e", "", 0o600), Env: noEnv},
		"only a comment": {Path: write(t, dir, "c", "# x\n", 0o600), Env: noEnv},
		"no file":        {Path: filepath.Join(dir, "no"), Env: noEnv, Optional: true},
	} {
		c, err := s.Load()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(c.Groups) != 0 || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].Error(), "no groups") {
			t.Errorf("%s: %+v, %v", name, c.Groups, c.Warnings)
		}
	}
}
