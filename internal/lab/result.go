package lab

import "time"

// Result is one measured fault. All figures come from this run; the field names
// are fixed (docs/reference).
type Result struct {
	System       string   `json:"system"`
	Fault        Fault    `json:"fault"`
	Mode         string   `json:"mode"` // nat: source NAT to the shared WAN address
	BlackoutMS   float64  `json:"blackout_ms"`
	ProbesSent   int      `json:"probes_sent"`
	ProbesLost   int      `json:"probes_lost"`
	TCP          TCP      `json:"tcp"`
	MastersAfter int      `json:"masters_after"`
	TookMS       float64  `json:"took_ms"` // the whole run, lab building included
	Peers        []Result `json:"peers"`

	Sync          bool         `json:"sync"`           // the peers mirrored their state
	PathRecovered bool         `json:"path_recovered"` // before healing; if false, blackout_ms is a lower bound
	RigStallMS    float64      `json:"rig_stall_ms"`   // longest delay of the prober's own sends around the fault
	FaultTookMS   float64      `json:"fault_took_ms"`  // from before the fault's first effect until all was in place
	MovedMS       float64      `json:"moved_ms"`       // fault until fw-b was seen to be MASTER of all groups; 0: not seen
	XDPMode       string       `json:"xdp_mode"`
	Masters       Masters      `json:"masters"`
	Failback      Failback     `json:"failback"`
	Transitions   []Transition `json:"transitions"`

	// For the picture, in ms relative to the fault.
	BlackoutFromMS float64 `json:"blackout_from_ms"`
}

// TCP is what became of the download.
type TCP struct {
	Survived bool    `json:"survived"`
	StallMS  float64 `json:"stall_ms"`
	Bytes    int64   `json:"bytes"`  // that the client got in the whole transfer
	Resets   int     `json:"resets"` // RST segments on the client's and the server's wire

	Resumed     bool    `json:"resumed"` // new payload within 10 s of the fault, before healing
	Intact      bool    `json:"intact"`  // the whole transfer's length and SHA-256 are right
	LostBytes   int64   `json:"lost_bytes"`
	StallFromMS float64 `json:"stall_from_ms"`
}

// Failback is what happened after the fault was healed.
type Failback struct {
	Done        bool    `json:"done"`    // fw-a MASTER and fw-b BACKUP of all groups again
	TookMS      float64 `json:"took_ms"` // from healing until that was seen
	BlackoutMS  float64 `json:"blackout_ms"`
	ProbesSent  int     `json:"probes_sent"`
	ProbesLost  int     `json:"probes_lost"`
	TCPAlive    bool    `json:"tcp_alive"`    // new payload after fw-a was MASTER again
	BytesBefore int64   `json:"bytes_before"` // that came through the pair between fault and healing
	FlowsTried  int     `json:"flows_tried"`  // during the cut
	FlowsOpened int     `json:"flows_opened"`
	FlowsAlive  int     `json:"flows_alive"` // on which the server could still reach the client
}

// ms is a duration in milliseconds, to the microsecond.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
