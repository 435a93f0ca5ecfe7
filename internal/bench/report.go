package bench

import "time"

// Report is a whole benchmark.
type Report struct {
	Began    time.Time         `json:"began"`
	TookS    float64           `json:"took_s"`
	Command  string            `json:"command"`
	Host     Host              `json:"host"`
	Noise    Noise             `json:"noise"`
	Versions map[string]string `json:"versions"` // by system
	Configs  []Config          `json:"configs"`
	Absent   []string          `json:"absent"` // systems that were not measured, and why
	Rows     []Row             `json:"rows"`
	Probe    bool              `json:"-"` // of a real pair: only what a probe sees
}

// Host is the machine.
type Host struct {
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
}

// Noise is what the prober's own stamps say about the machine: over all runs,
// fault or not, how long it was from one send to the next.
type Noise struct {
	Sends  int     `json:"sends"`
	P50MS  float64 `json:"p50_ms"`
	P99MS  float64 `json:"p99_ms"`
	P999MS float64 `json:"p999_ms"`
	MaxMS  float64 `json:"max_ms"`
	Over   int     `json:"over_2ms"`
	Load   float64 `json:"load"` // median over the runs
}

// Config is one file of a system, as it ran on fw-a.
type Config struct {
	System  string `json:"system"`
	Profile string `json:"profile"`
	File    string `json:"file"`
	Text    string `json:"text"`
}

// Gaps counts the times from one send to the next, in steps of 10 µs.
type Gaps struct {
	count [10001]int // the last step holds all from 100 ms on
	n     int
	max   time.Duration
}

const gapStep = 10 * time.Microsecond

// Add counts one gap.
func (g *Gaps) Add(d time.Duration) {
	g.count[min(int(d/gapStep), len(g.count)-1)]++
	g.n++
	g.max = max(g.max, d)
}

// quantile returns the upper edge of the step in which the quantile lies.
func (g *Gaps) quantile(q float64) float64 {
	left := int(q * float64(g.n))
	for i, c := range g.count {
		if left -= c; left < 0 {
			return float64(time.Duration(i+1)*gapStep) / 1e6
		}
	}
	return float64(g.max) / 1e6
}

// Noise sums up; the load is the caller's to add.
func (g *Gaps) Noise() Noise {
	if g.n == 0 {
		return Noise{}
	}
	over := 0
	for _, c := range g.count[int(RejectGap/gapStep):] {
		over += c
	}
	return Noise{
		Sends: g.n, P50MS: g.quantile(0.5), P99MS: g.quantile(0.99), P999MS: g.quantile(0.999),
		MaxMS: float64(g.max.Microseconds()) / 1000, Over: over,
	}
}
