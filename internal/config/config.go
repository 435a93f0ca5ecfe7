package config

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"
)

// Config is a whole configuration, validated, with every default filled in and
// everything that depends on the node resolved for this node. Compare two by
// Hash, or group by group with reflect.DeepEqual.
type Config struct {
	Path string // the file it was read from
	Hash string // of the effective configuration, 16 hex digits, for metrics

	Node    string // our name: `node`, or the host name
	Key     Key    // the first one of key_file, if HasKey: it signs and seals
	HasKey  bool
	Keys    []Key   // all of key_file, Key included: they are accepted
	KeyFile string  // its path
	Auth    Auth    // the default for the groups
	Trailer bool    // the default for the groups
	Split   Split   // the default for the groups
	Detect  Detect  // likewise
	Sync    *Sync   // nil: no state sync
	Preempt bool    // the default for the groups; net.inet.carp.preempt
	Groups  []Group // sorted by name
	Drafts  []Draft // what lines have begun: groups that are not complete
	Idle    bool    // net.inet.carp.allow is 0: no group takes part
	Bundles [][]string
	DSCP    uint8 // of adverts, 0 to 63; the default for the groups
	SendErr int   // demotion of a node that cannot send adverts, 0 to 255
	IfDown  int   // demotion of the rest of a bundle while a carpdev is down, 0 to 255
	XDP     XDP
	Metrics Metrics
	Log     Log
	Tracks  []Track // sorted by name
	Hooks   []Hook  // in the order of the file
	Ready   Ready

	Warnings []*Problem `json:"-"` // what Load found and accepted; Check returns them, too

	// problem makes a Problem at a place of the text, for Check. It is a function
	// because the text may hold passwords, and fmt looks into anything else.
	problem func(place, message, fix string) *Problem

	// origin is what the Config was made of, a function for the same reason.
	origin func() *origin
}

// Sync is the link over which the nodes mirror their connection tables.
type Sync struct {
	Dev   string                // the interface the session is bound to
	Port  uint16                // UDP, the same on all nodes
	Hold  time.Duration         // timeout of mirrored flows, renewed by the owner
	Local netip.Addr            // our own address in nodes
	Peers map[string]netip.Addr // all other nodes

	// ByAddress: the nodes are called by their addresses, and Local is whichever
	// of Dev's can reach the peer. So it is with a line of pfsync0.
	ByAddress bool
}

// Group is one vhid on one carpdev: the addresses that its master answers for. Or
// several vhids that share the addresses, each with a master of its own.
type Group struct {
	Name      string
	VHID      uint8 // 1 to 255; with CarpNodes the lowest of theirs
	Carpdev   string
	Addresses []netip.Prefix // sorted; the prefix is that of the subnet
	AdvBase   uint8          // seconds
	AdvSkew   uint8          // 1/256 s, at most 254
	Password  Secret         // as given, not cut; empty if FromKey
	FromKey   bool           // derive the password from Config.Key
	Mode      Mode
	HMAC      HMAC
	Preempt   bool
	Down      bool       // takes no part until `xcarp ifconfig NAME up`
	Peer4     netip.Addr // adverts go to this member alone; not valid: to a multicast group
	Peer6     netip.Addr
	Mcast4    netip.Addr // the multicast group; not valid: CARP's own
	Mcast6    netip.Addr
	DSCP      uint8
	LLAddr    []byte // six bytes that OpenBSD members have in their digest; empty: none
	Auth      Auth
	Trailer   bool // sent; false without a key_file
	Split     Split
	Detect    Detect // default where there is a sync section, else off

	CarpNodes []CarpNode // that share the addresses, by vhid; nil: VHID has them alone
	Balance   Balance
	BalanceBy BalanceBy
	Of        string // in what Elections returns: the group; else empty

	StartupDelay time.Duration // how long it stays in INIT after a start
	PreemptDelay time.Duration // how long it then replaces nobody, once ready
}

// Mode says where a shared address lives.
type Mode string

// The modes of a group.
const (
	Local   Mode = "local"    // on the carpdev while master: services, and routers
	NextHop Mode = "next-hop" // nowhere: the dataplane answers, traffic passes through
)

// HMAC says how the digest of an advert is made; the BSDs differ for IPv6.
type HMAC string

// The ways of making a digest.
const (
	HMACAuto    HMAC = "auto" // as openbsd; both ways are accepted always
	HMACFreeBSD HMAC = "freebsd"
	HMACOpenBSD HMAC = "openbsd"
)

// Auth says whose adverts are believed; see carp.Auth.
type Auth string

// The modes of authentication.
const (
	AuthCompat     Auth = "compat"     // plain CARP peers are welcome
	AuthPermissive Auth = "permissive" // they are believed, with an alarm
	AuthEnforce    Auth = "enforce"    // nothing without our trailer is
)

// Split says what becomes of a master that is silent on the carpdev and alive by
// the sync link, when nobody knows who is cut off.
type Split string

// The ways to decide.
const (
	SplitHold     Split = "hold"     // it stays
	SplitTakeover Split = "takeover" // classic CARP: there will be two
)

// Detect says how closely the peers are watched: see carp.Detect.
type Detect string

// The profiles.
const (
	DetectFast    Detect = "fast"    // every millisecond
	DetectDefault Detect = "default" // every 5 ms
	DetectOff     Detect = "off"     // not at all: the timers of CARP
)

// XDP says how the program is attached to a carpdev.
type XDP string

// The ways to attach.
const (
	XDPAuto    XDP = "auto"    // native, else generic
	XDPNative  XDP = "native"  // in the driver, or refuse
	XDPGeneric XDP = "generic" // in the stack
)

// Metrics is where Prometheus finds us.
type Metrics struct {
	Listen string // host:port; empty: nowhere
}

// Log is how much is said.
type Log struct {
	Level string // debug, info, warn or error
}

// Group returns the group of that name, or nil.
func (c *Config) Group(name string) *Group {
	for i := range c.Groups {
		if c.Groups[i].Name == name {
			return &c.Groups[i]
		}
	}
	return nil
}

// hash digests what the configuration says, not how or where it is written. It
// is published, so passwords count only under the key: without one, the hash of
// a short password would give it away.
func (c *Config) hash() string {
	d := *c
	d.Path, d.Hash, d.KeyFile, d.Keys = "", "", "", nil // one of them may be on its way in or out
	b, err := json.Marshal(d)
	if err != nil {
		panic(fmt.Sprintf("config: marshal of our own type: %v", err))
	}
	h := sha256.New()
	h.Write(b)
	if c.HasKey {
		m := hmac.New(sha256.New, c.Key[:])
		for _, g := range c.Groups {
			fmt.Fprintf(m, "%s %d\n", g.Name, len(g.Password))
			m.Write(g.Password)
		}
		h.Write(m.Sum(nil))
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
