package daemon

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xcarp/xcarp/internal/carp"
)

// metrics turns a Status into Prometheus series at each scrape, so there is one
// place that counts. Transitions alone are counted here.
type metrics struct {
	registry    *prometheus.Registry
	transitions *prometheus.CounterVec
}

func newMetrics(status func() Status) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "xcarp_transitions_total",
			Help: "Changes of a group's state, by the state entered and the cause.",
		}, []string{"group", "to", "cause"}),
	}
	m.registry.MustRegister(m.transitions, &statusCollector{status})
	return m
}

type statusCollector struct{ status func() Status }

var groupLabels = []string{"group", "carpdev", "vhid"}

func groupDesc(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("xcarp_"+name, help, append(groupLabels[:len(groupLabels):len(groupLabels)], more...), nil)
}

func syncDesc(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("xcarp_sync_"+name, help, append([]string{"peer"}, more...), nil)
}

var (
	descState    = groupDesc("state", "1 for the state the group is in, 0 for the others.", "state")
	descDemotion = groupDesc("demotion", "Demotion by owner.", "owner")
	descLease    = groupDesc("lease_remaining_seconds", "What is left of the role in the dataplane.")
	descTerm     = groupDesc("term", "Takeovers of the group so far.")
	descSent     = groupDesc("adverts_sent_total", "Adverts sent.")
	descSendErr  = groupDesc("advert_send_errors_total", "Adverts that could not be sent.")
	descReceived = groupDesc("adverts_received_total", "Adverts accepted.")
	descRejected = groupDesc("adverts_rejected_total", "Adverts refused, by reason.", "reason")
	descAlarms   = groupDesc("advert_alarms_total", "Adverts that somebody should know of, by kind.", "kind")
	descSplit    = groupDesc("split", "1 while the master is silent on the carpdev and lives by the sync link.")
	descDeaf     = groupDesc("deaf", "1 while nobody is heard on the carpdev, and neighbours that are asked do not answer.")
	descXDP      = groupDesc("xdp_packets_total", "Frames handled by the dataplane, by verdict.", "verdict")
	descMasters  = groupDesc("masters_seen", "Masters heard within the last three intervals, this node not counted.")
	descSilent   = groupDesc("family_silent", "1 while adverts of one family alone are heard from a dual-stack master, by the family that is silent.", "family")
	descSilences = groupDesc("family_silent_total", "How often one family of adverts fell silent alone.")

	descPeerUp   = syncDesc("up", "1 while the session with the peer is up.")
	descInSync   = syncDesc("in_sync", "1 while the tables are known to be equal but for what is under way.")
	descLag      = syncDesc("lag_seconds", "From the kernel's event to the peer's acknowledgement, smoothed.")
	descFlows    = syncDesc("flows", "Flows known here, this node's and the peer's.")
	descPending  = syncDesc("pending_flows", "Flows whose newest state the peer has not acknowledged.")
	descRecords  = syncDesc("records_total", "Records of flow state.", "direction")
	descBytes    = syncDesc("bytes_total", "Bytes on the sync link.", "direction")
	descGaps     = syncDesc("gaps_total", "Frames found missing, and repaired.")
	descResyncs  = syncDesc("resyncs_total", "Bulk updates, by cause.", "cause")
	descOverruns = syncDesc("event_overruns_total", "Times that the kernel had more events than the buffer held.")
	descInsert   = syncDesc("insert_errors_total", "Entries that the kernel refused, by errno.", "errno")
	descDropped  = syncDesc("frames_dropped_total", "Frames refused, by reason.", "reason")

	descEntries = prometheus.NewDesc("xcarp_conntrack_entries", "Entries of the kernel's connection table.", nil, nil)
	descMax     = prometheus.NewDesc("xcarp_conntrack_limit", "Size of the kernel's connection table.", nil, nil)
	descStale   = prometheus.NewDesc("xcarp_config_stale", "1 while the configuration on disk was refused, or waits for a restart.", nil, nil)
	descConfig  = prometheus.NewDesc("xcarp_config_info", "The configuration that runs.", []string{"hash", "version"}, nil)
)

// Describe implements prometheus.Collector. It names nothing beforehand: groups
// and reasons are known when there is a Status.
func (c *statusCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *statusCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.status()
	gauge := func(d *prometheus.Desc, v float64, l ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, l...)
	}
	count := func(d *prometheus.Desc, v uint64, l ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), l...)
	}
	gauge(descConfig, 1, s.Hash, s.Version)
	gauge(descStale, boolValue(s.Stale))
	collectTracking(&s, gauge, count)
	for _, g := range s.Groups {
		l := []string{g.Name, g.Carpdev, strconv.Itoa(int(g.VHID))}
		with := func(more string) []string { return append(l[:len(l):len(l)], more) }
		for _, st := range []carp.State{carp.Init, carp.Backup, carp.Master, carp.Drain} {
			gauge(descState, boolValue(g.State == st.String()), with(st.String())...)
		}
		for owner, n := range g.Demotions {
			gauge(descDemotion, float64(n), with(owner)...)
		}
		gauge(descReady, boolValue(g.Ready), l...)
		gauge(descLease, g.LeaseMS/1e3, l...)
		gauge(descTerm, float64(g.Term), l...)
		gauge(descMasters, float64(len(g.MastersSeen)), l...)
		for _, family := range []string{"IPv4", "IPv6"} {
			gauge(descSilent, boolValue(g.SilentFamily == family), with(family)...)
		}
		count(descSilences, g.SilentAlarms, l...)
		count(descSent, g.Sent, l...)
		count(descSendErr, g.SendErrors, l...)
		count(descReceived, g.Received, l...)
		gauge(descSplit, boolValue(g.Split), l...)
		gauge(descDeaf, boolValue(g.Ears == carp.EarsDeaf.String()), l...)
		for kind, n := range g.Alarms {
			count(descAlarms, n, with(kind)...)
		}
		for why, n := range g.Drops {
			count(descRejected, n, with(why)...)
		}
		for why, n := range g.Packets {
			count(descXDP, n, with(why)...)
		}
	}
	for _, d := range s.Carpdevs {
		for why, n := range d.Packets {
			if n > 0 { // most reasons can only be some group's
				count(descXDP, n, "", d.Name, "0", why)
			}
		}
	}
	for _, p := range s.Sync {
		gauge(descPeerUp, boolValue(p.Up), p.Peer)
		gauge(descInSync, boolValue(p.InSync), p.Peer)
		gauge(descLag, p.LagMS/1e3, p.Peer)
		gauge(descFlows, float64(p.Flows), p.Peer)
		gauge(descPending, float64(p.Pending), p.Peer)
		count(descRecords, p.Sent, p.Peer, "sent")
		count(descRecords, p.Received, p.Peer, "received")
		count(descBytes, p.BytesSent, p.Peer, "sent")
		count(descBytes, p.BytesRecv, p.Peer, "received")
		count(descGaps, p.Gaps, p.Peer)
		count(descOverruns, p.Overruns, p.Peer)
		for cause, n := range p.Resyncs {
			count(descResyncs, n, p.Peer, cause)
		}
		for errno, n := range p.Errors {
			count(descInsert, n, p.Peer, errno)
		}
		for why, n := range p.Dropped {
			count(descDropped, n, p.Peer, why)
		}
	}
	if s.Table != nil {
		gauge(descEntries, float64(s.Table.Entries))
		gauge(descMax, float64(s.Table.Max))
	}
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
