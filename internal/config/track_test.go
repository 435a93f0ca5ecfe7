package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/xcarp/xcarp/internal/nstest"
)

// tr is a text with one track, hk one with one hook.
func tr(track string) string { return g("") + "track: {t: " + track + "}\n" }
func hk(hook string) string  { return g("") + "hooks: {h: " + hook + "}\n" }

func init() {
	bad = append(bad, []struct{ name, text, want string }{
		{"track as a list", g("") + "track: [ping]\n", `xcarp.yaml:4:8: track must be a mapping, not a list: write track: {upstream: {ping: 203.0.113.254}}`},
		{"track of one word", tr("203.0.113.254"), `xcarp.yaml:4:12: track "t" must be a mapping, not "203.0.113.254": write track: {upstream: {ping: 203.0.113.254}}`},
		{"track of nothing", tr("{every: 1s}"), `xcarp.yaml:4:9: track "t" does not say what to check: add one of link, route, ping, arp, tcp, process, pid_file, file, command`},
		{"track of two things", tr("{link: eth0, ping: 10.0.0.2}"), `xcarp.yaml:4:25: track "t" has both link and ping: keep one of them, and make a second track of the other`},
		{"misspelt check", tr("{pign: 10.0.0.2}"), `xcarp.yaml:4:13: unknown key "pign" in a track: did you mean "ping"?`},
		{"keepalived's script", tr("{script: /bin/true}"), `xcarp.yaml:4:13: unknown key "script" in a track: did you mean "command"?`},
		{"ping a name", tr("{ping: www.example.org}"), `xcarp.yaml:4:19: ping cannot be "www.example.org": write an address, such as 203.0.113.254; names are not looked up`},
		{"ping a group of hosts", tr("{ping: 224.0.0.1}"), `xcarp.yaml:4:19: ping cannot be 224.0.0.1: write the address of a host`},
		{"ping a link-local address", tr(`{ping: "fe80::1"}`), `xcarp.yaml:4:19: ping fe80::1 is a link-local address of an unknown link: add dev: and the interface`},
		{"arp without dev", tr("{arp: 10.0.0.2}"), `xcarp.yaml:4:13: track "t" has no dev: add dev: and the interface to the neighbour`},
		{"arp for IPv6", tr(`{arp: "2001:db8::2", dev: eth0}`), `xcarp.yaml:4:18: arp cannot be "2001:db8::2": use ping for IPv6`},
		{"tcp without a port", tr("{tcp: 10.0.0.2}"), `xcarp.yaml:4:18: tcp cannot be "10.0.0.2": write an address and a port, such as 203.0.113.254:179 or "[2001:db8::1]:179"; names are not looked up`},
		{"the default route", tr("{route: default}"), `xcarp.yaml:4:20: route cannot be "default": of which family?: write 0.0.0.0/0 or ::/0`},
		{"a route with host bits", tr("{route: 10.1.2.3/8}"), `xcarp.yaml:4:20: route 10.1.2.3/8 has bits beyond its length: write 10.0.0.0/8`},
		{"a process with its path", tr("{process: /usr/sbin/bird}"), `xcarp.yaml:4:22: process cannot be "/usr/sbin/bird": write its name, without folder and arguments`},
		{"a relative file", tr("{file: ok}"), `xcarp.yaml:4:19: file cannot be "ok": write the whole path, from /`},
		{"content of a ping", tr("{ping: 10.0.0.2, content: number}"), `xcarp.yaml:4:29: content has no meaning for ping: remove it`},
		{"unknown content", tr("{file: /ok, content: missing}"), `xcarp.yaml:4:33: content cannot be "missing": write exists, absent or number`},
		{"a shell line", tr(`{command: "ping -c1 10.0.0.2"}`), `xcarp.yaml:4:22: command must be a list: there is no shell that would take "ping -c1 10.0.0.2" apart: write [/usr/local/sbin/check, argument]`},
		{"a relative command", tr("{command: [check]}"), `xcarp.yaml:4:23: command cannot be "check": write the whole path, from /`},
		{"an empty command", tr("{command: []}"), `xcarp.yaml:4:22: command is empty: write [/usr/local/sbin/check, argument]`},
		{"times and counts", tr("{link: eth0, every: 1ms, timeout: 2, rise: 0, fall: 101, demote: 256}"), `xcarp.yaml:4:32: every 1ms is out of range: write a time from 10ms to 1h0m0s
xcarp.yaml:4:46: timeout must be a time, not "2": write the unit, too: 2s
xcarp.yaml:4:55: rise 0 is out of range: write a number from 1 to 100
xcarp.yaml:4:64: fall 101 is out of range: write a number from 1 to 100
xcarp.yaml:4:77: demote 256 is out of range: write a number from 1 to 255`},
		{"a track of an unknown group", tr("{link: eth0, groups: [h]}"), `xcarp.yaml:4:34: groups names an unknown group "h": known are g`},
		{"a track of no group", tr("{link: eth0, groups: []}"), `xcarp.yaml:4:33: groups is empty: name some, or remove the key for all`},
		{"a track in a group", g(", track: {}"), `xcarp.yaml:3:66: unknown key "track" in a group: it belongs at the top level`},
		{"a hook without a command", hk("{on: [MASTER]}"), `xcarp.yaml:4:9: hook "h" has no command: add command: [/usr/local/sbin/move-dns]`},
		{"a hook of an unknown state", hk("{command: [/bin/true], on: [master]}"), `xcarp.yaml:4:40: on cannot be "master": did you mean "MASTER"?`},
		{"a hook with many retries", hk("{command: [/bin/true], retries: 11}"), `xcarp.yaml:4:44: retries 11 is out of range: write a number from 0 to 10`},
		{"ready for what", g("") + "ready: {routes: [10.0.0.0/8, 10.0.0.0/8, any]}\n", `xcarp.yaml:4:30: route 10.0.0.0/8 a second time: keep it once
xcarp.yaml:4:42: a route cannot be "any": write a prefix such as 0.0.0.0/0`},
		{"a delay without a unit", g(", startup_delay: 5") + "preempt_delay: 2h\n", `xcarp.yaml:3:81: startup_delay must be a time, not "5": write the unit, too: 5s
xcarp.yaml:4:16: preempt_delay 2h0m0s is out of range: write a time from 0s to 1h0m0s`},
	}...)
}

func TestTracksAndHooks(t *testing.T) {
	c, err := load(t, g(", startup_delay: 1s")+`  h: {vhid: 2, carpdev: eth1, addresses: [10.1.0.1/24], pass: x}
track:
  upstream: {ping: 203.0.113.254, every: 100ms, fall: 5, demote: 100, groups: [h]}
  bgp: {tcp: "[2001:db8::1]:179", dev: eth0, timeout: 2s}
  uplink: {link: ppp0}
  default: {route: 0.0.0.0/0}
  script: {command: [/bin/true, "a b"], every: 10s, user: "12345"}
  flag: {file: /run/maintenance, content: absent}
hooks:
  second: {command: [/bin/true], on: [INIT, MASTER], retries: 2, user: root}
  first: {command: [/bin/false, x], timeout: 1m, groups: [h, g]}
bundle: [g, h]
ready: {settle: 5s, routes: [0.0.0.0/0, "::/0"]}
startup_delay: 5s
preempt_delay: 30s
`)
	if err != nil {
		t.Fatal(said(err))
	}
	all := []string{"g", "h"}
	tracks := []Track{
		{Name: "bgp", Check: TrackTCP, What: "tcp [2001:db8::1]:179", Dev: "eth0", Addr: netip.MustParseAddrPort("[2001:db8::1]:179"),
			Every: time.Second, Timeout: 2 * time.Second, Rise: 2, Fall: 3, Demote: 240, Groups: all},
		{Name: "default", Check: TrackRoute, What: "route 0.0.0.0/0", Route: netip.MustParsePrefix("0.0.0.0/0"),
			Every: 5 * time.Second, Timeout: 5 * time.Second, Rise: 1, Fall: 1, Demote: 240, Groups: all},
		{Name: "flag", Check: TrackFile, What: "file /run/maintenance", Path: "/run/maintenance", Content: FileAbsent,
			Every: time.Second, Timeout: time.Second, Rise: 1, Fall: 1, Demote: 240, Groups: all},
		{Name: "script", Check: TrackCommand, What: "command /bin/true a b", Command: []string{"/bin/true", "a b"}, User: "12345",
			Every: 10 * time.Second, Timeout: 5 * time.Second, Rise: 2, Fall: 3, Demote: 240, Groups: all},
		{Name: "uplink", Check: TrackLink, What: "link ppp0", Dev: "ppp0", Every: time.Second, Timeout: time.Second, Rise: 1, Fall: 1, Demote: 240, Groups: all},
		{Name: "upstream", Check: TrackPing, What: "ping 203.0.113.254", Addr: netip.MustParseAddrPort("203.0.113.254:0"),
			Every: 100 * time.Millisecond, Timeout: 100 * time.Millisecond, Rise: 2, Fall: 5, Demote: 100, Groups: all}, // h alone is named, but moves with g
	}
	hooks := []Hook{
		{Name: "second", Command: []string{"/bin/true"}, User: "root", On: []string{"INIT", "MASTER"}, Groups: all, Timeout: 10 * time.Second, Retries: 2},
		{Name: "first", Command: []string{"/bin/false", "x"}, User: "nobody", On: []string{"MASTER", "BACKUP"}, Groups: all, Timeout: time.Minute},
	}
	addr := cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{})
	if diff := cmp.Diff(tracks, c.Tracks, addr); diff != "" {
		t.Errorf("tracks: want, got:\n%s", diff)
	}
	if diff := cmp.Diff(hooks, c.Hooks); diff != "" {
		t.Errorf("hooks: want, got:\n%s", diff)
	}
	if c.Ready.Settle != 5*time.Second || len(c.Ready.Routes) != 2 {
		t.Errorf("ready: got %+v", c.Ready)
	}
	var delays []time.Duration
	for _, g := range c.Groups {
		delays = append(delays, g.StartupDelay, g.PreemptDelay)
	}
	if got, want := fmt.Sprint(delays), "[1s 30s 5s 30s]"; got != want {
		t.Errorf("delays: got %s, want %s", got, want)
	}
}

func TestCheckPrograms(t *testing.T) {
	nstest.RequireRoot(t) // files of others
	dir, err := os.MkdirTemp("", "xcarp-config-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := func(mode os.FileMode) string { return write(t, dir, fmt.Sprintf("m%o", mode), "#!/bin/sh\n", mode) }
	for _, c := range []struct{ name, more, want string }{
		{"fine", "track: {t: {command: [" + program(0o755) + "]}}", ""},
		{"of root alone, as root", "hooks: {t: {command: [" + program(0o700) + "], user: root}}", ""},
		{"of root alone, as nobody", "hooks: {t: {command: [" + program(0o700) + "]}}",
			"xcarp.yaml:4:22: command D/m700 cannot be run by user nobody (mode 0700): chmod o+x D/m700, or name another user"},
		{"as root, of everybody", "hooks: {t: {command: [" + program(0o777) + "], user: root}}",
			"xcarp.yaml:4:22: command D/m777 would run as root, and others can write it (mode 0777): chmod go-w D/m777"},
		{"missing", "track: {t: {command: [" + dir + "/none]}}", "xcarp.yaml:4:22: command D/none does not exist: write the path of a program"},
		{"a folder", "track: {t: {command: [" + dir + "]}}", "xcarp.yaml:4:22: command D is not a file: write the path of a program"},
		{"not executable", "track: {t: {command: [" + program(0o644) + "]}}", "xcarp.yaml:4:22: command D/m644 is not executable (mode 0644): chmod 755 D/m644"},
		{"no such user", "track: {t: {user: noboddy, command: [/bin/sh]}}", `xcarp.yaml:4:19: user "noboddy" does not exist: create it, or name another: user: nobody`},
		{"misspelt interface", "track: {t: {link: eht1}}", `xcarp.yaml:4:19: warning: track: no interface "eht1": did you mean "eth1"?`},
		{"no such interface", "track: {t: {ping: 10.0.0.2, dev: ppp0}}", `xcarp.yaml:4:34: warning: track: no interface "ppp0": there are eth0, eth1, eth2`},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := load(t, strings.Replace(g(""), "10.0.0.1/24", "203.0.113.1/24", 1)+c.more+"\n")
			if err != nil {
				t.Fatal(said(err))
			}
			sys := ready()
			sys.Programs = true
			var lines []string
			for _, p := range Check(cfg, sys) {
				p.File = filepath.Base(p.File)
				lines = append(lines, strings.ReplaceAll(p.Error(), dir, "D"))
			}
			if got := strings.Join(lines, "\n"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}
