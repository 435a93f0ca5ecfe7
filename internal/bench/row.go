package bench

import (
	"cmp"
	"math"
	"slices"
)

// Row is all runs of one system under one fault.
type Row struct {
	System  string `json:"system"`
	Profile string `json:"profile"`
	Fault   string `json:"fault"`
	Mode    string `json:"mode"`
	Flows   int    `json:"flows"`

	Runs     int  `json:"runs"`     // that were made
	Rejected int  `json:"rejected"` // of these, by the one rule
	Failed   int  `json:"failed"`   // of these, could not be made
	Void     bool `json:"void"`     // over a third rejected: no figures
	Dark     int  `json:"dark"`     // runs in which a path did not come back

	BlackoutMS     *Spread   `json:"blackout_ms"` // null without a run that counts
	Blackout6MS    *Spread   `json:"blackout6_ms"`
	Lost           *Spread   `json:"lost"`
	Lost6          *Spread   `json:"lost6"`
	TCP            RowTCP    `json:"tcp"`
	Queries        int       `json:"queries"`
	DoubleAnswers  int       `json:"double_answers"`
	DoubleForwards int       `json:"double_forwards"`
	New            *Openings `json:"new,omitempty"` // all runs together
	Raw            []Run     `json:"raw"`
}

// RowTCP is what became of the connections.
type RowTCP struct {
	Survived int      `json:"survived"` // runs in which both connections did
	StallMS  *Spread  `json:"stall_ms"` // of the worse one in each run
	PauseMS  *float64 `json:"pause_no_fault_ms"`
	Resets   int      `json:"resets"`
}

// Spread says how values are spread.
type Spread struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	Max float64 `json:"max"`
}

// NewSpread takes the median (of an even number the mean of the middle two), the
// 95th percentile by nearest rank, and the maximum. Nil of no values.
func NewSpread(v []float64) *Spread {
	if len(v) == 0 {
		return nil
	}
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	s := &Spread{P50: v[n/2], P95: v[int(math.Ceil(0.95*float64(n)))-1], Max: v[n-1]}
	if n%2 == 0 {
		s.P50 = math.Round((v[n/2-1]+v[n/2])/2*1e6) / 1e6
	}
	return s
}

// Counted returns the runs that count.
func (r *Row) Counted() []Run {
	var c []Run
	for _, run := range r.Raw {
		if run.Error == "" && !run.Rejected {
			c = append(c, run)
		}
	}
	return c
}

// Rows sorts runs into rows, in the order in which the rows first appear.
func Rows(runs []Run) []Row {
	type key struct {
		system, profile, fault, mode string
		flows                        int
	}
	index := map[key]int{}
	rows := []Row{}
	for _, run := range runs {
		k := key{run.System, run.Profile, run.Fault, run.Mode, run.Flows}
		i, ok := index[k]
		if !ok {
			i = len(rows)
			index[k] = i
			rows = append(rows, Row{System: k.system, Profile: k.profile, Fault: k.fault, Mode: k.mode, Flows: k.flows})
		}
		rows[i].Raw = append(rows[i].Raw, run)
	}
	for i := range rows {
		rows[i].sum()
	}
	return rows
}

// sum fills in what follows from the runs.
func (r *Row) sum() {
	r.Runs = len(r.Raw)
	for _, run := range r.Raw {
		switch {
		case run.Error != "":
			r.Failed++
		case run.Rejected:
			r.Rejected++
		}
	}
	if r.Void = 3*r.Rejected > r.Runs; r.Void {
		return
	}
	var blackout, blackout6, lost, lost6, stall, pause []float64
	for _, run := range r.Counted() {
		blackout, blackout6 = append(blackout, run.BlackoutMS), append(blackout6, run.Blackout6MS)
		lost, lost6 = append(lost, float64(run.Lost)), append(lost6, float64(run.Lost6))
		stall, pause = append(stall, run.TCP.StallMS()), append(pause, run.TCP.PauseMS)
		if run.TCP.Survived {
			r.TCP.Survived++
		}
		if run.Dark {
			r.Dark++
		}
		r.TCP.Resets += run.TCP.Resets
		r.Queries += run.Queries
		r.DoubleAnswers += run.DoubleAnswers
		r.DoubleForwards += run.DoubleForwards
		r.New = r.New.plus(run.New)
	}
	r.BlackoutMS, r.Blackout6MS = NewSpread(blackout), NewSpread(blackout6)
	r.Lost, r.Lost6 = NewSpread(lost), NewSpread(lost6)
	r.TCP.StallMS = NewSpread(stall)
	if p := NewSpread(pause); p != nil {
		r.TCP.PauseMS = &p.P50
	}
}

// plus adds up what was opened, and spans what broke.
func (o *Openings) plus(p *Openings) *Openings {
	if o == nil || p == nil {
		return cmp.Or(o, p)
	}
	sum := &Openings{Opened: o.Opened + p.Opened, Broken: o.Broken + p.Broken, FirstMS: o.FirstMS, LastMS: o.LastMS}
	switch {
	case o.Broken == 0:
		sum.FirstMS, sum.LastMS = p.FirstMS, p.LastMS
	case p.Broken > 0:
		sum.FirstMS, sum.LastMS = min(o.FirstMS, p.FirstMS), max(o.LastMS, p.LastMS)
	}
	return sum
}

// BestPeer returns the row with the shortest median blackout among the other
// systems under the same fault, nil if there is none to compare with.
func BestPeer(rows []Row, r Row) *Row {
	var best *Row
	for i, p := range rows {
		if p.System == r.System || p.Fault != r.Fault || p.Mode != r.Mode || p.Flows != r.Flows || p.BlackoutMS == nil {
			continue
		}
		if best == nil || p.BlackoutMS.P50 < best.BlackoutMS.P50 {
			best = &rows[i]
		}
	}
	return best
}
