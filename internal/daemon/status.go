package daemon

import (
	"net"
	"strconv"
	"time"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/config"
)

// Status is what `xcarp show -o json` prints. Field names are a promise; fields
// are only ever added.
type Status struct {
	Node    string        `json:"node"`
	Version string        `json:"version"`
	Config  string        `json:"config"`
	Hash    string        `json:"config_hash"`
	Stale   bool          `json:"config_stale"` // what is on disk was refused, or waits for a restart
	Uptime  float64       `json:"uptime_s"`
	KeyFile string        `json:"key_file,omitempty"`
	Keys    []string      `json:"keys"` // ids of those accepted, the signing one first
	Groups  []GroupStatus `json:"groups"`
	Sync    []SyncStatus  `json:"sync"`
	SyncDev string        `json:"sync_dev,omitempty"` // the interface of the sync link
	Table   *TableStatus  `json:"conntrack,omitempty"`

	Carpdevs []CarpdevStatus `json:"carpdevs"`
	Tracks   []TrackStatus   `json:"tracks"`
	Hooks    *HooksStatus    `json:"hooks,omitempty"`

	Demotions []Demotion `json:"demotions"` // an operator's

	StaleWhy *StaleStatus `json:"config_problem,omitempty"`
}

// GroupStatus is one group as this node sees it.
type GroupStatus struct {
	Name    string `json:"name"`
	VHID    uint8  `json:"vhid"`
	Carpdev string `json:"carpdev"`
	State   string `json:"state"` // INIT, BACKUP, MASTER or DRAIN

	Since  time.Time `json:"since"`  // when the state was entered, wall clock
	Reason string    `json:"reason"` // why it was entered
	Term   uint64    `json:"term"`   // takeovers of this group so far

	Group     string `json:"group,omitempty"`      // whose addresses this vhid shares with others
	Balance   string `json:"balance,omitempty"`    // arp, ip or ip-stealth
	BalanceBy string `json:"balance_by,omitempty"` // mac or source-ip

	Demotion  int            `json:"demotion"`  // the sum that adverts carry
	Demotions map[string]int `json:"demotions"` // by owner

	Ready bool     `json:"ready"` // may replace a master
	Waits []string `json:"waits"` // what it still waits for after its start

	LeaseMS float64 `json:"lease_ms"` // what is left of the role in the dataplane; 0 if it has none

	XDPMode     string            `json:"xdp_mode"` // native, generic or tc
	Answer      string            `json:"answer"`   // ARP and ND answered by xdp or tc
	Shield      string            `json:"shield"`   // verify: digests are checked in the kernel; limit: it refuses that
	Hint        string            `json:"hint"`     // why adverts are refused, as far as one can tell
	MastersSeen []string          `json:"masters_seen"`
	Drops       map[string]uint64 `json:"drops"`  // adverts refused, by reason
	Alarms      map[string]uint64 `json:"alarms"` // adverts that an operator should know of, by kind
	Ears        string            `json:"ears"`   // hears, deaf or unknown: anybody at all on the carpdev
	Split       bool              `json:"split"`  // the master is silent here and lives by the sync link

	// Pulses is how each peer answers for the group, without those that are not asked.
	Pulses       []PulseStatus     `json:"pulses"`
	Auth         string            `json:"auth"`    // compat, permissive or enforce
	Trailer      bool              `json:"trailer"` // our adverts have one
	Packets      map[string]uint64 `json:"packets"` // all verdicts of the dataplane, by reason
	Addresses    []string          `json:"addresses"`
	VMAC         string            `json:"vmac"`
	Mode         string            `json:"mode"` // local or next-hop
	AdvBase      uint8             `json:"advbase"`
	AdvSkew      uint8             `json:"advskew"`
	Preempt      bool              `json:"preempt"`
	IntervalMS   float64           `json:"advert_interval_ms"` // derived
	MasterDownMS float64           `json:"master_down_ms"`     // derived
	Sent         uint64            `json:"adverts_sent"`
	Received     uint64            `json:"adverts_received"`
	SendErrors   uint64            `json:"send_errors"`
	Down         bool              `json:"down"` // administratively
	MTU          int               `json:"mtu"`  // of the carpdev, bytes

	Masters      []MasterStatus `json:"masters"`       // those of masters_seen, in full
	SilentFamily string         `json:"silent_family"` // IPv4 or IPv6 if the other one alone is heard
	SilentAlarms uint64         `json:"silent_family_alarms"`
}

// MasterStatus is another master that is heard.
type MasterStatus struct {
	Address  string  `json:"address"`
	Address6 string  `json:"address6,omitempty"` // the other source of a dual-stack master
	AdvBase  uint8   `json:"advbase"`
	AdvSkew  uint8   `json:"advskew"` // as advertised, demotion included
	Demotion uint8   `json:"demotion"`
	AgoMS    float64 `json:"ago_ms"` // since its last advert
}

// CarpdevStatus is what the dataplane saw on a carpdev that is no group's:
// adverts of other vhids and of VRRP, frames in a VLAN, fragments.
type CarpdevStatus struct {
	Name    string            `json:"name"`
	Packets map[string]uint64 `json:"packets"` // verdicts by reason
}

// describe fills in what the configuration says of a group that takes no part.
func (s *GroupStatus) describe(g *config.Group, dev *carpdev) {
	s.VHID, s.Carpdev, s.VMAC, s.Mode = g.VHID, g.Carpdev, told(g).String(), string(g.Mode)
	s.Group, s.Balance, s.BalanceBy = g.Of, string(g.Balance), string(g.BalanceBy)
	s.AdvBase, s.AdvSkew, s.Preempt = g.AdvBase, g.AdvSkew, g.Preempt
	s.IntervalMS = float64(carp.Interval(g.AdvBase, g.AdvSkew)) / 1e6
	s.MasterDownMS = float64(carp.MasterDown(g.AdvBase, g.AdvSkew)) / 1e6
	s.Addresses = []string{}
	for _, a := range g.Addresses {
		s.Addresses = append(s.Addresses, a.String())
	}
	if dev != nil {
		s.MTU, s.XDPMode, s.Answer = dev.mtu, string(dev.port.Mode()), dev.port.Answer()
	}
}

// draftStatus is what is known of a group that is not complete.
func draftStatus(d config.Draft) GroupStatus {
	number := func(key string) uint8 {
		n, _ := strconv.ParseUint(d.Known[key], 10, 8) // 0 if it is not known
		return uint8(n)
	}
	s := GroupStatus{Name: d.Name, Carpdev: d.Known["carpdev"], VHID: number("vhid"), AdvBase: 1, AdvSkew: number("advskew"),
		Addresses: append([]string{}, d.Addresses...), Down: true}
	if _, ok := d.Known["advbase"]; ok {
		s.AdvBase = number("advbase")
	}
	vmac := carp.VirtualMAC(s.VHID)
	s.VMAC = net.HardwareAddr(vmac[:]).String()
	return s
}

// SyncStatus is one peer on the sync link.
type SyncStatus struct {
	Peer      string            `json:"peer"`
	Addr      string            `json:"addr"` // of the peer on the sync link
	Up        bool              `json:"up"`
	InSync    bool              `json:"in_sync"`
	LagMS     float64           `json:"lag_ms"` // from the kernel's event to the peer's acknowledgement
	Flows     int               `json:"flows"`  // known here, ours and the peer's
	Pending   int               `json:"pending"`
	Sent      uint64            `json:"records_sent"`
	Received  uint64            `json:"records_received"`
	Gaps      uint64            `json:"gaps"`
	Resyncs   map[string]uint64 `json:"resyncs"` // by cause
	Overruns  uint64            `json:"event_overruns"`
	Errors    map[string]uint64 `json:"insert_errors"` // by errno
	Dropped   map[string]uint64 `json:"dropped"`       // frames refused, by reason
	BytesSent uint64            `json:"bytes_sent"`
	BytesRecv uint64            `json:"bytes_received"`
	Keys      []string          `json:"keys"` // ids of those it accepts, the signing one first; none: it does not say
}

// TableStatus is the fill of the kernel's connection table.
type TableStatus struct {
	Entries int `json:"entries"`
	Max     int `json:"max"`
}

// TrackStatus is one thing that the groups need.
type TrackStatus struct {
	Name     string    `json:"name"`
	Check    string    `json:"check"` // "ping 203.0.113.254"
	State    string    `json:"state"` // PENDING, UP or DOWN
	Since    time.Time `json:"since"`
	Demote   int       `json:"demote"` // what it demotes by now
	Groups   []string  `json:"groups"`
	Error    string    `json:"error"`  // of the last check, empty if it succeeded
	RTTMS    float64   `json:"rtt_ms"` // of the last check, 0 without an answer over the network
	Checks   uint64    `json:"checks"`
	Failures uint64    `json:"failures"`
}

// HooksStatus is what becomes of changes of state that are told to programs.
type HooksStatus struct {
	Queued  int          `json:"queued"`  // changes that wait
	Dropped uint64       `json:"dropped"` // changes that were never told
	Hooks   []HookStatus `json:"hooks"`   // in their order
}

// HookStatus is one program.
type HookStatus struct {
	Name     string     `json:"name"`
	Command  []string   `json:"command"`
	Runs     uint64     `json:"runs"`
	Failures uint64     `json:"failures"` // among runs
	Running  *time.Time `json:"running,omitempty"`
	Last     *HookRun   `json:"last,omitempty"`
}

// HookRun is one run that has ended.
type HookRun struct {
	Group  string    `json:"group"`
	To     string    `json:"to"`
	At     time.Time `json:"at"`
	TookMS float64   `json:"took_ms"`
	Error  string    `json:"error"` // empty: acknowledged
}

// Demotion is one that an operator asked for.
type Demotion struct {
	ID     int        `json:"id"`
	Group  string     `json:"group,omitempty"` // empty: all
	By     int        `json:"by"`
	Reason string     `json:"reason,omitempty"`
	User   string     `json:"user,omitempty"`
	Since  time.Time  `json:"since"`
	Until  *time.Time `json:"until,omitempty"` // absent: until it is taken back
}

// Owner is its name among the demotions of a group.
func (d Demotion) Owner() string { return "operator " + strconv.Itoa(d.ID) }

// PulseStatus is what the pulses say of a peer, about one group.
type PulseStatus struct {
	Peer    string  `json:"peer"`
	Says    string  `json:"says"`     // lives, hung, cut off, gone, in doubt, unwatched
	State   string  `json:"state"`    // as last answered
	Sync    bool    `json:"sync"`     // it answers on the sync device, too
	LimitMS float64 `json:"limit_ms"` // of silence
	RTTMS   float64 `json:"rtt_ms"`   // the slowest usual reflection on the carpdev
	Wrong   int     `json:"wrong"`    // takeovers and claims lately from a peer that lived

	// How often it is asked while sending is too slow for what detect says; 0: as
	// often as that says.
	SlowedMS float64 `json:"slowed_ms,omitempty"`
}
