package lab

import (
	"fmt"
	"math"
	"strings"
)

// ShieldResult is one flood under one system. Where there are two figures, one of
// each router, it has the worse.
type ShieldResult struct {
	System  string  `json:"system"`
	Profile string  `json:"profile"` // of xcarp: timers (detect: off) or default (with pulses)
	Attack  Attack  `json:"attack"`
	Seconds float64 `json:"seconds"` // that were measured before the master was killed

	FramesSent uint64  `json:"frames_sent"` // failover included
	RatePPS    float64 `json:"rate_pps"`    // sent, to both routers
	ReachedPPS float64 `json:"reached_pps"` // received by the LAN device that received less
	NSPerFrame float64 `json:"ns_per_frame"`

	Transitions int     `json:"transitions"` // during the flood, both routers
	CPUPercent  float64 `json:"cpu_percent"` // of one processor, the daemon

	// CPUUserPercent is its own code's part. What else is charged to it need not be its
	// doing: the kernel runs the softirqs of a flood on the time of whoever has just
	// sent something, as pulses are every few milliseconds.
	CPUUserPercent float64 `json:"cpu_user_percent"`

	LogLines   int     `json:"log_lines"`
	FailoverMS float64 `json:"failover_ms"` // 0: not seen
	BoundMS    float64 `json:"bound_ms"`

	// xcarp only.
	AdvertsSent     uint64            `json:"adverts_sent"`     // by the master
	AdvertsAccepted uint64            `json:"adverts_accepted"` // by the backup's daemon
	AdvertsPassed   uint64            `json:"adverts_passed"`   // by its XDP program
	Refused         map[string]uint64 `json:"refused"`          // by both XDP programs, by reason
	Hint            string            `json:"hint"`             // that the backup shows
	Shield          string            `json:"shield"`
	XDPMode         string            `json:"xdp_mode"`

	Broken []string `json:"broken"` // promises that were not kept
}

// compare fills in what happened between two looks.
func (r *ShieldResult) compare(before, after sight) {
	took := after.at.Sub(before.at)
	r.Refused, r.Broken, r.ReachedPPS = map[string]uint64{}, []string{}, math.Inf(1)
	for i := range after.nodes {
		a, b := &after.nodes[i], &before.nodes[i]
		r.Transitions += a.moves - b.moves
		r.CPUPercent = max(r.CPUPercent, 100*float64(a.cpu-b.cpu)/float64(took))
		r.CPUUserPercent = max(r.CPUUserPercent, 100*float64(a.user-b.user)/float64(took))
		r.LogLines = max(r.LogLines, a.lines-b.lines)
		r.ReachedPPS = min(r.ReachedPPS, float64(a.rx-b.rx)/took.Seconds())
		for _, why := range []string{"badauth", "badtrailer", "replay", "loop", "ratelimit", "badsum", "badlen", "badttl"} {
			if n := a.group.Packets[why] - b.group.Packets[why]; n > 0 {
				r.Refused[why] += n
			}
		}
		if runs := a.runs - b.runs; runs > 0 {
			r.NSPerFrame = max(r.NSPerFrame, float64(a.spent-b.spent)/float64(runs))
		}
	}
	master, backup := 0, 1
	delta := func(node int, of func(*nodeSight) uint64) uint64 {
		return of(&after.nodes[node]) - of(&before.nodes[node])
	}
	r.AdvertsSent = delta(master, func(n *nodeSight) uint64 { return n.group.Sent })
	r.AdvertsAccepted = delta(backup, func(n *nodeSight) uint64 { return n.group.Received })
	r.AdvertsPassed = delta(backup, func(n *nodeSight) uint64 { return n.group.Packets["advert"] })
	g := &after.nodes[backup].group
	r.Hint, r.Shield, r.XDPMode = g.Hint, g.Shield, g.XDPMode
}

// judge holds the figures of xcarp against the promises.
func (r *ShieldResult) judge() {
	if r.System != "xcarp" {
		return
	}
	need := func(ok bool, format string, args ...any) {
		if !ok {
			r.Broken = append(r.Broken, fmt.Sprintf(format, args...))
		}
	}
	need(r.Transitions == 0, "%d transitions in the flood", r.Transitions)
	need(r.CPUPercent <= shieldCPU, "the daemon took %.1f %% of a processor, %g are promised; its own code took %.1f %%", r.CPUPercent, shieldCPU, r.CPUUserPercent)
	need(r.LogLines <= shieldLines, "%d lines in a log, %d are promised", r.LogLines, shieldLines)
	need(r.FailoverMS > 0 && r.FailoverMS <= r.BoundMS, "failover after %.0f ms, %.0f are promised", r.FailoverMS, r.BoundMS)
	need(r.AdvertsAccepted > 0 && r.AdvertsAccepted >= uint64(r.Seconds*1000/masterDownMS),
		"%d genuine adverts accepted, one per master-down interval is promised", r.AdvertsAccepted)
	need(r.AdvertsPassed >= r.AdvertsAccepted, "more adverts accepted than XDP let pass: the figures are wrong")
	// What an attacker repeats counts as replayed, and has a limit of its own.
	need(r.Refused["ratelimit"] == 0, "genuine adverts were refused: %d as too many", r.Refused["ratelimit"])
	if r.Attack == Forged {
		// Nothing but genuine ones gets this far: all that XDP let pass must be
		// accepted, and none may have been taken for one too many.
		need(r.AdvertsPassed <= r.AdvertsAccepted+2, "%d adverts passed XDP, %d were accepted", r.AdvertsPassed, r.AdvertsAccepted)
		need(r.Refused["replay"] == 0, "genuine adverts were refused: %v", r.Refused)
		need(r.Refused["badauth"] > 0, "no forged advert reached XDP")
	}
}

// ShieldText draws results as a table and reports whether every promise was kept.
func ShieldText(all []ShieldResult) (text string, kept bool) {
	var b strings.Builder
	kept = true
	fmt.Fprintf(&b, "%-13s %-11s %10s %10s %9s %6s %13s %6s %10s %14s\n",
		"system", "adverts", "sent/s", "reached/s", "ns/frame", "moves", "CPU user/all", "log", "failover", "accepted/sent")
	for _, r := range all {
		ns, accepted, failover := "-", "-", "never"
		if r.NSPerFrame > 0 {
			ns = fmt.Sprintf("%.0f", r.NSPerFrame)
		}
		if r.System == "xcarp" {
			accepted = fmt.Sprintf("%d/%d", r.AdvertsAccepted, r.AdvertsSent)
		}
		if r.FailoverMS > 0 {
			failover = fmt.Sprintf("%.0f ms", r.FailoverMS)
		}
		fmt.Fprintf(&b, "%-13s %-11s %10.0f %10.0f %9s %6d %6.1f/%.1f %% %6d %10s %14s\n", strings.TrimSpace(r.System+" "+r.Profile), r.Attack, r.RatePPS, r.ReachedPPS, ns,
			r.Transitions, r.CPUUserPercent, r.CPUPercent, r.LogLines, failover, accepted)
	}
	for _, r := range all {
		for _, s := range r.Broken {
			kept = false
			fmt.Fprintf(&b, "not kept: %s %s under %s adverts: %s\n", r.System, r.Profile, r.Attack, s)
		}
		if r.Hint != "" {
			fmt.Fprintf(&b, "hint under %s adverts: %s\n", r.Attack, r.Hint)
		}
	}
	return b.String(), kept
}
