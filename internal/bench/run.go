package bench

import (
	"time"

	"github.com/xcarp/xcarp/internal/probe"
)

// The rule of rejection, see the package's comment.
const (
	RejectGap    = 2 * time.Millisecond
	RejectWindow = 50 * time.Millisecond
)

// Reject finds the longest gap between two sends near a fault that lasted from
// one instant to another, and says whether the rule rejects the run.
func Reject(shots []probe.Shot, before, after time.Duration) (longest time.Duration, rejected bool) {
	for _, s := range probe.Stalls(shots, 0, before-RejectWindow, after+RejectWindow) {
		longest = max(longest, s.To-s.From)
	}
	return longest, longest > RejectGap
}

// Run is one fault, or the way back from one, under one system. Times are
// relative to the fault, or to its healing. Field names are fixed (docs/reference).
type Run struct {
	System  string `json:"system"`
	Profile string `json:"profile"`
	Fault   string `json:"fault"` // "failback:crash" is the way back from crash
	Mode    string `json:"mode"`
	Flows   int    `json:"flows"` // other connections in the table
	Order   int    `json:"order"` // in the whole benchmark, from 1

	Error    string `json:"error,omitempty"` // the run could not be made; nothing below holds
	Rejected bool   `json:"rejected"`

	BlackoutMS     float64   `json:"blackout_ms"` // IPv4
	Blackout6MS    float64   `json:"blackout6_ms"`
	Dark           bool      `json:"dark"` // a path did not come back while it was watched: its blackout is a lower bound
	Sent           int       `json:"sent"` // probes, each family
	Lost           int       `json:"lost"`
	Lost6          int       `json:"lost6"`
	DoubleForwards int       `json:"double_forwards"` // probes that arrived, or were answered, more than once
	Queries        int       `json:"queries"`         // ARP and ND requests for shared addresses
	DoubleAnswers  int       `json:"double_answers"`  // of these, answered by both routers
	TCP            RunTCP    `json:"tcp"`
	New            *Openings `json:"new,omitempty"` // connections that were opened meanwhile; of a lost daemon
	Settled        bool      `json:"settled"`       // roles were as they should be at the end
	Transitions    int       `json:"transitions"`

	SlowestMS   float64 `json:"slowest_ms"`    // the longest that an answer took, of either family
	SenderGapMS float64 `json:"sender_gap_ms"` // the prober's own longest gap around the fault
	FaultTookMS float64 `json:"fault_took_ms"` // until all of the fault was in place
	WatchedMS   float64 `json:"watched_ms"`
	Load        float64 `json:"load"` // average of the last minute when the run began
	Spans       []Span  `json:"spans"`
}

// Openings are connections that were opened from a fault on, while it was watched.
type Openings struct {
	Opened int `json:"opened"`
	Broken int `json:"broken"` // of these, did not live to the end

	FirstMS float64 `json:"first_broken_ms"` // when the first and the last of the broken ones were opened
	LastMS  float64 `json:"last_broken_ms"`
}

// RunTCP is what became of the two connections: one on which the client asks and
// the server echoes, one on which the server pushes, every 10 ms.
type RunTCP struct {
	Survived bool    `json:"survived"` // new payload came on both before anything was healed
	EchoMS   float64 `json:"echo_ms"`  // longest time without payload
	PushMS   float64 `json:"push_ms"`
	PauseMS  float64 `json:"pause_no_fault_ms"` // the same of both before the fault
	Resets   int     `json:"resets"`            // RST segments on the client's and the server's wire
}

// StallMS is the longer of the two stalls.
func (t RunTCP) StallMS() float64 { return max(t.EchoMS, t.PushMS) }

// Span is a time in which something did not flow.
type Span struct {
	Lane   string  `json:"lane"` // IPv4, IPv6, echo, push, probe; rig: the prober itself
	FromMS float64 `json:"from_ms"`
	ToMS   float64 `json:"to_ms"`
	Open   bool    `json:"open,omitempty"`

	Lost    int `json:"lost,omitempty"`    // probes
	Arrived int `json:"arrived,omitempty"` // of these, at the far end: their answers were lost
}

// Lanes are what spans are of, in the order in which they are drawn.
var Lanes = []string{"IPv4", "IPv6", "echo", "push", "rig"}
