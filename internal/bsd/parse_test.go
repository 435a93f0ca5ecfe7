package bsd

import (
	"errors"
	"strings"
	"testing"
)

// The forms that manuals, blogs and mail threads show, and what each of them says
// in the one form that String writes.
func TestTheFormsOfTheTutorials(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"OpenBSD, ifconfig", "vhid 1 pass password carpdev em0 advskew 100 10.0.0.1 netmask 255.255.255.0",
			"g vhid 1 carpdev em0 advskew 100 pass password 10.0.0.1/24"},
		{"FreeBSD 9, rc.conf", "vhid 1 advskew 100 pass testpass 192.168.1.50/24",
			"g vhid 1 advskew 100 pass testpass 192.168.1.50/24"},
		{"FreeBSD 10, alias", "inet vhid 1 pass testpass alias 192.168.1.50/32",
			"g vhid 1 pass testpass 192.168.1.50/32"},
		{"FreeBSD 10, aliases", "vhid 12 advskew 210 pass X 192.168.1.11/32",
			"g vhid 12 advskew 210 pass X 192.168.1.11/32"},
		{"OpenBSD, hostname.carp1 with NONE", "inet 172.16.0.10 255.255.255.0 NONE -inet6 carpdev vlan2 advskew 50 carppeer 172.16.0.102 pass X vhid 2",
			"g vhid 2 carpdev vlan2 advskew 50 pass X carppeer 172.16.0.102 172.16.0.10/24"},
		{"OpenBSD, hostname.carp1 with a broadcast address", "inet 192.168.10.1 255.255.255.0 192.168.10.255 carpdev sis0 vhid 1",
			"g vhid 1 carpdev sis0 192.168.10.1/24"},
		{"OpenBSD, load sharing", "carpnodes 5:100,6:0 balancing ip-stealth",
			"g carpnodes 5:100,6:0 balancing ip-stealth"},
		{"IPv6", "vhid 3 carpdev em0 inet6 2001:db8::1 prefixlen 64",
			"g vhid 3 carpdev em0 2001:db8::1/64"},
		{"FreeBSD, unicast", "vhid 4 peer 10.0.0.3 10.0.0.1/24",
			"g vhid 4 carppeer 10.0.0.3 10.0.0.1/24"},
		{"a mask in hex", "vhid 5 10.0.0.1 netmask 0xffffff00",
			"g vhid 5 10.0.0.1/24"},

		{"with the command in front", "ifconfig g create vhid 1 10.0.0.1/24 up", "g create vhid 1 up 10.0.0.1/24"},
		{"several addresses and a removed one", "10.0.0.1/24 alias 10.0.0.2 netmask 255.255.255.255 -alias 10.0.0.3",
			"g 10.0.0.1/24 10.0.0.2/32 -alias 10.0.0.3"},
		{"an address behind a whole one is no mask", "10.0.0.1/24 255.255.255.0/24", "g 10.0.0.1/24 255.255.255.0/24"},
		{"the removed one first", "inet 10.0.0.1 delete", "g -alias 10.0.0.1"},
		{"a password with blanks", `pass "two words" vhid 1`, `g vhid 1 pass "two words"`},
		{"a password that is a keyword", `pass vhid vhid 1`, `g vhid 1 pass vhid`},
		{"the last word counts", "advskew 1 down advskew 2 up", "g advskew 2 up"},
		{"what is taken away", "-carppeer -carpdev down", "g -carpdev -carppeer down"},
		{"FreeBSD, all peers", "peer6 fe80::3 mcast 224.0.0.18 mcast6 ff02::12 carpver 2 state backup",
			"g peer6 fe80::3 mcast 224.0.0.18 mcast6 ff02::12 state backup carpver 2"},
		{"DragonFly", "vhid 7 vhinet 10.0.0.1/24", "g vhid 7 10.0.0.1/24"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := ParseGroup("g", tt.line)
			if err != nil {
				t.Fatal(err)
			}
			if got := l.String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			again, err := ParseIfconfig(l.String())
			if err != nil {
				t.Fatalf("its own form: %v", err)
			}
			if got := again.String(); got != tt.want {
				t.Errorf("its own form becomes %s", got)
			}
		})
	}
}

func TestABadLineIsSaidInOneLine(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"an unknown word", "carp1 vhid 1 advskwe 100", `column 14: unknown word "advskwe": did you mean "advskew"?`},
		{"a value out of range", "carp1 vhid 256 carpdev em0", `column 12: vhid 256 is out of range: write a number from 1 to 255`},
		{"an address without a mask", "carp1 vhid 1 10.0.0.1 carpdev em0", `column 14: address 10.0.0.1 has no mask: add netmask 255.255.255.0, or write 10.0.0.1/24`},

		{"no value", "carp1 vhid 1 advskew", `column 14: advskew has no value: write advskew and a number from 0 to 254`},
		{"a keyword for a value", "carp1 vhid pass x", `column 7: vhid has no value: write vhid and a number from 1 to 255`},
		{"a word for a number", "carp1 advbase one", `column 15: advbase must be a number, not "one": write a number from 0 to 255`},
		{"advskew 255", "carp1 advskew 255", `column 15: advskew 255 is out of range: write a number from 0 to 254`},
		{"a mask with a hole", "carp1 10.0.0.1 netmask 255.0.255.0", `column 24: 255.0.255.0 is not the mask of a subnet: write one such as 255.255.255.0 or 0xffffff00`},
		{"a mask without an address", "carp1 netmask 255.255.255.0", `column 7: netmask without an address before it: write 10.0.0.1 netmask and the mask`},
		{"a length too long", "carp1 10.0.0.1/33", `column 7: prefix length "33" of address 10.0.0.1 is wrong: write 1 to 32`},
		{"an IPv6 address without a length", "carp1 2001:db8::1", `column 7: address 2001:db8::1 has no mask: add prefixlen 64, or write 2001:db8::1/64`},
		{"a word that was to be an address", "carp1 10.0.0.256/24", `column 7: "10.0.0.256/24" is not an address: write one such as 10.0.0.1 netmask 255.255.255.0`},
		{"balancing", "carp1 balancing ip-stelth", `column 17: balancing cannot be "ip-stelth": did you mean "ip-stealth"?`},
		{"carpnodes", "carp1 carpnodes 1:0,1:100", `column 17: carpnodes names vhid 1 twice: write vhid:advskew for each node, such as 1:0,2:100`},
		{"an open quote", `carp1 pass "two`, `column 12: a quote that does not end: add the second "`},
		{"a password without quotes", "carp1 pass two woorden", `column 16: the word behind the password is no keyword: put a password with blanks in it into quotes`},
		{"nothing", "", `column 1: a line without an interface: write ifconfig carp1 and what it shall be`},
		{"no interface", "vhid 1 pass x", `column 1: vhid where the name of an interface belongs: write ifconfig carp1 vhid …`},
		{"destroy and more", "carp1 destroy vhid 1", `column 20: destroy beside other words: give it alone`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseIfconfig(tt.line)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			var e *Error
			if !errors.As(err, &e) || e.Fix == "" {
				t.Errorf("%v says no remedy", err)
			}
		})
	}
}

func TestLinesAddUp(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"what a tutorial types", []string{"carp1 create", "carp1 vhid 1 pass x carpdev em0", "carp1 10.0.0.1 netmask 255.255.255.0", "carp1 advskew 50"},
			"carp1 create vhid 1 carpdev em0 advskew 50 pass x 10.0.0.1/24"},
		{"an address brings it up", []string{"carp1 vhid 1 down", "carp1 10.0.0.1/24"}, "carp1 vhid 1 10.0.0.1/24"},
		{"nothing else does", []string{"carp1 vhid 1 10.0.0.1/24 down", "carp1 advskew 1"}, "carp1 vhid 1 advskew 1 down 10.0.0.1/24"},
		{"an address comes and goes", []string{"carp1 10.0.0.1/24 10.0.0.2/24", "carp1 -alias 10.0.0.1"}, "carp1 10.0.0.2/24 -alias 10.0.0.1"},
		{"and comes back", []string{"carp1 -alias 10.0.0.1", "carp1 10.0.0.1/24"}, "carp1 10.0.0.1/24"},
		{"nodes instead of a vhid", []string{"carp1 vhid 1", "carp1 carpnodes 1:0,2:100"}, "carp1 carpnodes 1:0,2:100"},
		{"no nodes, and the vhid stays", []string{"carp1 vhid 1", "carp1 -carpnodes vhid 2"}, "carp1 vhid 2 -carpnodes"},
		{"destroy forgets", []string{"carp1 vhid 1 10.0.0.1/24", "carp1 destroy"}, "carp1 destroy"},
		{"create begins anew", []string{"carp1 vhid 1", "carp1 destroy", "carp1 create", "carp1 vhid 2"}, "carp1 create vhid 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sum := &Line{Name: "carp1"}
			for _, text := range tt.lines {
				l, err := ParseIfconfig(text)
				if err != nil {
					t.Fatal(err)
				}
				sum = sum.Then(l)
			}
			if got := sum.String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestSysctlNames(t *testing.T) {
	for _, tt := range []struct{ arg, want string }{
		{"net.inet.carp.allow=1", "net.inet.carp.allow=1"},
		{"net.inet.carp.demotion=-240", "net.inet.carp.demotion=-240"},
		{"net.inet.carp.preempt", "net.inet.carp.preempt=0"},
		{"net.inet.card.allow", `column 1: unknown name "net.inet.card.allow": did you mean net.inet.carp.allow?`},
		{"net.inet.card.allow=1", `column 1: unknown name "net.inet.card.allow": did you mean net.inet.carp.allow?`},
		{"net.inet.carp.prempt=1", `column 1: unknown name "net.inet.carp.prempt": did you mean net.inet.carp.preempt?`},
		{"net.inet.carp.allow=2", `column 21: net.inet.carp.allow cannot be 2: write a number from 0 to 1`},
		{"net.inet.carp.allow=", `column 21: net.inet.carp.allow has no value: write a number from 0 to 1`},
		{"net.inet.carp.log=yes", `column 19: net.inet.carp.log must be a number, not "yes": write a number from 0 to 7`},
	} {
		s, err := ParseSysctl(tt.arg)
		got := s.String()
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.arg, got, tt.want)
		}
	}
	_, err := ParseSysctl("net.inet.ip.forwarding=1")
	if err == nil || !strings.Contains(err.Error(), "known are net.inet.carp.allow, ") {
		t.Errorf("a name of others: %v", err)
	}
}

func TestJoinKeepsWords(t *testing.T) {
	words := []string{"carp1", "pass", `a "b" \c' d`, "", "vhid"}
	got, err := split(Join(words))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(words) {
		t.Fatalf("got %v, want %q", got, words)
	}
	for i := range words {
		if got[i].text != words[i] {
			t.Errorf("word %d: got %q, want %q", i, got[i].text, words[i])
		}
	}
}

// FuzzIfconfig: whatever parses has a form that parses to the same, and an error
// has a place within the line.
func FuzzIfconfig(f *testing.F) {
	for _, s := range []string{
		"carp1 create", "carp1 vhid 1 pass password carpdev em0 advskew 100 10.0.0.1 netmask 255.255.255.0",
		"carp1 inet 172.16.0.10 255.255.255.0 NONE -inet6 carpdev vlan2", "carp1 carpnodes 5:100,6:0 balancing ip-stealth",
		"-g carp carpdemote 50", "-g carp -carpdemote", "pfsync0 syncdev em1 syncpeer 10.1.1.2 up defer", `carp1 pass "a \" b" -alias ::1`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		l, err := ParseIfconfig(line)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Column < 1 || e.Column > len([]rune(line))+1 || e.Fix == "" {
				t.Fatalf("%q: %#v", line, err)
			}
			return
		}
		if _, ok := l.Get("carpdemote"); ok {
			return // a command, not a state
		}
		form := l.String()
		again, err := ParseIfconfig(form)
		if err != nil {
			t.Fatalf("%q becomes %q: %v", line, form, err)
		}
		if got := again.String(); got != form {
			t.Fatalf("%q becomes %q, then %q", line, form, got)
		}
	})
}
