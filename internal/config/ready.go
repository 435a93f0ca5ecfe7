package config

import (
	"net/netip"
	"slices"
	"time"
)

// Ready is what a node must have after its start before it may replace a master.
type Ready struct {
	Settle time.Duration  // how long each carpdev must have been up without a break
	Routes []netip.Prefix // that must be in the main table
}

// maxDelay bounds the delays after a start.
const maxDelay = time.Hour

// ready reads the section of that name.
func (r *reader) ready(c *Config, e entry) {
	if !r.want(e, mapping, "ready: {settle: 1s, routes: [0.0.0.0/0]}") {
		return
	}
	keys := r.section(e.value, readySection)
	if k, ok := keys["settle"]; ok {
		if d, ok := r.duration(k, 0, time.Minute); ok {
			c.Ready.Settle = d
		}
	}
	if k, ok := keys["routes"]; ok && r.want(k, list, "[0.0.0.0/0]") {
		for _, n := range k.value.items {
			p := r.prefix("a route", n, "0.0.0.0/0")
			if p.IsValid() && slices.Contains(c.Ready.Routes, p) {
				r.failf(n, "keep it once", "route %s a second time", p)
			} else if p.IsValid() {
				c.Ready.Routes = append(c.Ready.Routes, p)
			}
		}
	}
}

// delays reads the two delays after a start, at the top level or in a group.
func (r *reader) delays(keys map[string]entry, startup, preempt *time.Duration) {
	for word, to := range map[string]*time.Duration{"startup_delay": startup, "preempt_delay": preempt} {
		if k, ok := keys[word]; ok {
			if d, ok := r.duration(k, 0, maxDelay); ok {
				*to = d
			}
		}
	}
}
