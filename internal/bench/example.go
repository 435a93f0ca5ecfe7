package bench

import "time"

// Example is a report of made-up runs that has everything that a report can
// have. It is what tests of the page look at.
func Example() Report {
	var runs []Run
	add := func(system, profile, fault string, base float64) {
		for i := range 10 {
			dark := base + float64(i*i)*base/50
			run := Run{
				System: system, Profile: profile, Fault: fault, Mode: "nat", Order: len(runs) + 1,
				BlackoutMS: dark, Blackout6MS: dark, Sent: 2000, Lost: int(2 * dark), Lost6: int(2 * dark), Queries: 40,
				TCP:         RunTCP{Survived: true, EchoMS: 1.4 * dark, PushMS: 1.2 * dark, PauseMS: 11},
				SenderGapMS: 0.6, Spans: []Span{{Lane: "IPv4", FromMS: -0.2, ToMS: dark}, {Lane: "IPv6", FromMS: -0.2, ToMS: dark}, {Lane: "echo", FromMS: -4, ToMS: 1.4 * dark}},
			}
			if system == "keepalived+conntrackd" {
				run.Rejected = i < 4 // of ten: too many
				run.SenderGapMS = 7
				run.Spans = append(run.Spans, Span{Lane: "rig", FromMS: 3, ToMS: 10})
			}
			runs = append(runs, run)
		}
	}
	for _, fault := range []string{"crash", "failback:crash"} {
		add("xcarp", "fast", fault, 3)
		add("frr", "10ms", fault, 26)
		add("keepalived+conntrackd", "10ms", fault, 40)
		runs = append(runs, Run{System: "ucarp", Profile: "1s", Fault: fault, Mode: "nat", Error: "the pair is not ready"})
	}
	return Report{
		Began: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC), TookS: 321, Command: "xcarp-lab bench failover",
		Host:     Host{Kernel: "7.3.0-test", CPU: "a CPU", CPUs: 2},
		Noise:    Noise{Sends: 99, P50MS: 0.5, P99MS: 0.7, P999MS: 1.1, MaxMS: 7, Over: 2, Load: 1.5},
		Versions: map[string]string{"xcarp": "xcarp <b>bold</b>", "frr": "chromium 1.2.3"},
		Configs:  []Config{{"keepalived", "10ms", "keepalived.conf", "vrrp_instance wan {\n}\n"}},
		Absent:   []string{"ucarp skew4: needs ucarp: apt-get install ucarp"},
		Rows:     Rows(runs),
	}
}
