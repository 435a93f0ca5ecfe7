package daemon

import "github.com/prometheus/client_golang/prometheus"

func trackDesc(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("xcarp_track_"+name, help, append([]string{"track"}, more...), nil)
}

var (
	descReady = groupDesc("ready", "1 if the group may replace a master: it waits for nothing after its start.")

	descTrackUp      = trackDesc("up", "1 while what is tracked is there, 0 while it is not or is not known yet.")
	descTrackPending = trackDesc("pending", "1 until the track is decided after the start.")
	descTrackDemote  = trackDesc("demotion", "What the track demotes its groups by.")
	descTrackRTT     = trackDesc("rtt_seconds", "Round trip time of the last check that was answered over the network.")
	descTrackChecks  = trackDesc("checks_total", "Checks, by result: ok or failed.", "result")

	descHookRuns = prometheus.NewDesc("xcarp_hook_runs_total", "Runs of hooks, by result: ok or failed.", []string{"hook", "result"}, nil)
	descHookTook = prometheus.NewDesc("xcarp_hook_last_run_seconds", "How long the last run of the hook took.", []string{"hook"}, nil)
	descQueued   = prometheus.NewDesc("xcarp_hook_queue", "Changes of state that wait to be told.", nil, nil)
	descUntold   = prometheus.NewDesc("xcarp_hook_dropped_total", "Changes of state that were never told to hooks.", nil, nil)
)

// collectTracking adds the series of tracks, hooks and readiness.
func collectTracking(s *Status, gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, uint64, ...string)) {
	for _, t := range s.Tracks {
		gauge(descTrackUp, boolValue(t.State == "UP"), t.Name)
		gauge(descTrackPending, boolValue(t.State == "PENDING"), t.Name)
		gauge(descTrackDemote, float64(t.Demote), t.Name)
		if t.RTTMS > 0 {
			gauge(descTrackRTT, t.RTTMS/1e3, t.Name)
		}
		count(descTrackChecks, t.Checks-t.Failures, t.Name, "ok")
		count(descTrackChecks, t.Failures, t.Name, "failed")
	}
	if s.Hooks == nil {
		return
	}
	gauge(descQueued, float64(s.Hooks.Queued))
	count(descUntold, s.Hooks.Dropped)
	for _, h := range s.Hooks.Hooks {
		count(descHookRuns, h.Runs-h.Failures, h.Name, "ok")
		count(descHookRuns, h.Failures, h.Name, "failed")
		if h.Last != nil {
			gauge(descHookTook, h.Last.TookMS/1e3, h.Name)
		}
	}
}
