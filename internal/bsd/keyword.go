package bsd

// kind is what follows a keyword.
type kind uint8

const (
	number  kind = iota // low to high
	text                // anything
	device              // the name of an interface
	address             // an IP address
	onOff               // nothing: the keyword itself is the value, as is its opposite
	oneOf               // one of some words
	nodes               // vhid:advskew,vhid:advskew
	count               // a number that may be left out: 1
	nothing             // nothing, and it wants nothing
	ignored             // one word, which has no meaning here
)

// keyword is one word of the grammar. Several words may have one key.
type keyword struct {
	word      string
	key       string // empty for those that want nothing
	kind      kind
	low, high int    // of a number
	takeaway  bool   // -word takes the setting away
	off       string // of onOff: the opposite
	value     string // of onOff: what the word means if not true
	words     []string
	example   string
}

// keywords is the grammar: ifconfig(8) of OpenBSD, and what FreeBSD, NetBSD and
// DragonFly call the same. The first word of a key is the one that String writes.
var keywords = []keyword{
	{word: "vhid", key: "vhid", kind: number, low: 1, high: 255},
	{word: "carpdev", key: "carpdev", kind: device, takeaway: true, example: "em0"},
	{word: "advbase", key: "advbase", kind: number, low: 0, high: 255},
	{word: "advskew", key: "advskew", kind: number, low: 0, high: 254},
	{word: "pass", key: "pass", kind: text, takeaway: true, example: "PASSWORD"},
	{word: "key", key: "pass", kind: text}, // FreeBSD prints it so
	{word: "carpnodes", key: "carpnodes", kind: nodes, takeaway: true, example: "1:0,2:100"},
	{word: "balancing", key: "balancing", kind: oneOf, words: []string{"none", "arp", "ip", "ip-stealth", "ip-unicast"}},
	{word: "carppeer", key: "carppeer", kind: address, takeaway: true, example: "10.0.0.3"},
	{word: "peer", key: "carppeer", kind: address, takeaway: true, example: "10.0.0.3"}, // FreeBSD
	{word: "peer6", key: "peer6", kind: address, takeaway: true, example: "fe80::3"},
	{word: "mcast", key: "mcast", kind: address, takeaway: true, example: "224.0.0.18"},
	{word: "mcast6", key: "mcast6", kind: address, takeaway: true, example: "ff02::12"},
	{word: "state", key: "state", kind: oneOf, words: []string{"master", "backup", "init"}},
	{word: "carpver", key: "carpver", kind: number, low: 2, high: 3}, // FreeBSD: 3 is VRRP
	{word: "lladdr", key: "lladdr", kind: text, takeaway: true, example: "00:00:5e:00:01:01"},
	{word: "syncdev", key: "syncdev", kind: device, takeaway: true, example: "em1"},
	{word: "syncif", key: "syncdev", kind: device, takeaway: true, example: "em1"}, // before OpenBSD 4.7
	{word: "syncpeer", key: "syncpeer", kind: address, takeaway: true, example: "10.1.1.2"},
	{word: "defer", key: "defer", kind: onOff, off: "-defer"},
	{word: "maxupd", kind: ignored, example: "128"},
	{word: "up", key: "up", kind: onOff, off: "down"},
	{word: "down", key: "up", kind: onOff, off: "up", value: "false"},
	{word: "-defer", key: "defer", kind: onOff, value: "false"},
	{word: "carpdemote", key: "carpdemote", kind: count},
	{word: "-carpdemote", key: "carpdemote", kind: count, value: "-"},
	{word: "inet", kind: nothing}, {word: "inet6", kind: nothing}, {word: "-inet6", kind: nothing},
	{word: "alias", kind: nothing}, {word: "add", kind: nothing}, {word: "vhinet", kind: nothing},
	{word: "group", kind: ignored, example: "carp"}, {word: "-group", kind: ignored, example: "carp"},
	{word: "description", kind: ignored, example: "TEXT"}, {word: "descr", kind: ignored, example: "TEXT"},
	{word: "rtlabel", kind: ignored, example: "NAME"}, {word: "priority", kind: ignored, example: "0"},
	{word: "broadcast", kind: ignored, example: "10.0.0.255"},
}

// acting are the words that are no keywords with a value.
var acting = []string{"create", "plumb", "destroy", "unplumb", "netmask", "prefixlen", "-alias", "delete", "remove"}

// find returns the keyword that is written so, also as -word.
func find(w string) (k keyword, away, ok bool) {
	for _, k := range keywords {
		if w == k.word {
			return k, false, true
		}
		if k.takeaway && w == "-"+k.word {
			return k, true, true
		}
	}
	return keyword{}, false, false
}

// known are all words, for a guess at what was meant.
func known() []string {
	all := append([]string{}, acting...)
	for _, k := range keywords {
		all = append(all, k.word)
	}
	return all
}
