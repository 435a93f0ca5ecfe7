package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
)

const (
	// handoverTime is how long peers have to claim what they are offered, and
	// leaveTime the same for a node that stops: it goes without, then.
	handoverTime = time.Second
	leaveTime    = 700 * time.Millisecond // a peer that has just made way gets its table after 400 ms
	demoteTime   = 100 * time.Millisecond // and before a demotion

	// handoverAgain is how often the offer is repeated, and handoverLook how often is
	// looked whether it was taken.
	handoverAgain = 20 * time.Millisecond
	handoverLook  = time.Millisecond
)

// HandoverRequest is the body of POST /v1/handover.
type HandoverRequest struct {
	Group string `json:"group,omitempty"` // with the rest of its bundle; empty: all
	To    string `json:"to,omitempty"`    // a node; empty: whichever answers
}

// HandoverResult is what became of one group.
type HandoverResult struct {
	Group string `json:"group"`
	To    string `json:"to"`

	// GapMS is from the instant at which this node stopped answering to the first
	// advert of the new master, as heard here; less than 0: none was heard.
	GapMS float64 `json:"gap_ms"`
}

// serveHandover adds to the control API
//
//	POST /v1/handover  HandoverRequest → [HandoverResult]
func (d *Daemon) serveHandover(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/handover", func(w http.ResponseWriter, r *http.Request) {
		var in HandoverRequest
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&in); err != nil {
			answer(w, nil, refusal("not a handover: "+err.Error()))
			return
		}
		out, err := d.Handover(r.Context(), in)
		answer(w, out, err)
	})
}

// Handover lets a peer claim groups of which this node is master, without loss.
func (d *Daemon) Handover(ctx context.Context, in HandoverRequest) ([]HandoverResult, error) {
	cfg := d.now.Load()
	if in.Group != "" && cfg.Group(in.Group) == nil {
		return nil, refusal(fmt.Sprintf("no group %q", in.Group))
	}
	offers := map[*member]*watched{}
	for _, m := range d.members() {
		if s, _ := m.group.Stands(); s != carp.Master || !cfg.Concerns(in.Group, m.cfg.Name) {
			continue
		}
		w := d.pulses.heir(m, in.To)
		if w == nil {
			who := "no peer that takes part answers pulses"
			if in.To != "" {
				who = fmt.Sprintf("%s takes no part, or does not answer pulses", in.To)
			}
			return nil, refusal(fmt.Sprintf("group %s: %s: see `xcarp show`, or demote this node", m.cfg.Name, who))
		}
		offers[m] = w
	}
	if len(offers) == 0 {
		return nil, refusal("this node is master of nothing that could be handed over")
	}
	d.log.Info("handover", zap.Int("groups", len(offers)))
	if left := d.offer(ctx, offers, handoverTime, true); len(left) > 0 {
		return nil, refusal(fmt.Sprintf("%s did not claim %s: it may not be ready, see `xcarp show` there; this node stays master",
			left[0].peer, left[0].member.cfg.Name))
	}
	var out []HandoverResult
	for _, m := range slices.SortedFunc(maps.Keys(offers), byName) {
		out = append(out, HandoverResult{Group: m.cfg.Name, To: offers[m].peer, GapMS: m.gap(ctx)})
	}
	return out, nil
}

// handOverAll hands over what can be, before the groups stop.
func (d *Daemon) handOverAll() {
	offers := map[*member]*watched{}
	for _, m := range d.members() {
		if s, _ := m.group.Stands(); s == carp.Master {
			if w := d.pulses.heir(m, ""); w != nil {
				offers[m] = w
			}
		}
	}
	if len(offers) == 0 {
		return
	}
	for _, w := range d.offer(context.Background(), offers, leaveTime, true) {
		d.log.Warn("not claimed by the peer: a goodbye has to do", zap.String("group", w.member.cfg.Name), zap.String("peer", w.peer))
	}
}

// moveDemoted lets a bundle that is about to be demoted move at once, as a whole and
// without loss: adverts would tell of it one after the other.
func (d *Daemon) moveDemoted(group string, by int) {
	offers := map[*member]*watched{}
	for _, m := range d.members() {
		if s, _ := m.group.Stands(); s != carp.Master || !d.now.Load().Concerns(group, m.cfg.Name) {
			continue
		}
		if w := d.pulses.heir(m, ""); w != nil && int(w.demotion.Load()) < m.group.Status().Demotion+by {
			offers[m] = w
		}
	}
	if len(offers) > 0 {
		d.offer(context.Background(), offers, demoteTime, false)
	}
}

// offer asks the peers to claim, and returns what they did not. stay says that this
// node does not take it back by itself.
func (d *Daemon) offer(ctx context.Context, offers map[*member]*watched, within time.Duration, stay bool) (left []*watched) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for m := range offers {
		m.claimedAt.Store(0)
		if !stay {
			continue
		}
		m.group.Do(func(m *carp.Machine, now time.Time) carp.Effects { return m.Handover(now, true) })
	}
	look := time.NewTicker(handoverLook)
	defer look.Stop()
	for n := 0; ; n++ {
		left = nil
		to := map[string][]string{}
		for m, w := range offers {
			if s, _ := m.group.Stands(); s == carp.Master {
				left = append(left, w)
				to[w.peer] = append(to[w.peer], m.cfg.Name)
			}
		}
		if len(left) == 0 {
			return nil
		}
		if n%int(handoverAgain/handoverLook) == 0 {
			for peer, names := range to {
				for _, b := range appendNames(tellTake, names) {
					d.mirror.Tell(peer, b)
				}
			}
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return left
		}
	}
}

// heir returns a peer that could claim the group: one that answers, takes part, and is
// the one that was asked for, if any.
func (p *pulses) heir(m *member, to string) *watched {
	if p == nil {
		return nil
	}
	for _, w := range p.thread.plan.Load().watched {
		if w.member == m && (to == "" || w.peer == to) && carp.Silence(w.silence.Load()) == carp.Lives &&
			w.state() != carp.Init { // MASTER: it was, when it was last asked
			return w
		}
	}
	return nil
}

// Status returns what the pulses say about a group.
func (p *pulses) Status(m *member) []PulseStatus {
	all := []PulseStatus{}
	if p == nil {
		return all
	}
	for _, w := range p.thread.plan.Load().watched {
		if w.member != m {
			continue
		}
		all = append(all, PulseStatus{
			Peer: w.peer, Says: carp.Silence(w.silence.Load()).String(), State: w.state().String(),
			Sync: !w.deaf.Load(), LimitMS: float64(w.limit.Load()) / 1e6, RTTMS: float64(w.slowest.Load()) / 1e6,
			SlowedMS: float64(w.slowed.Load()) / 1e6, Wrong: int(w.regrets.Load()),
		})
	}
	return all
}

// gap returns how long the group had no master, in milliseconds.
func (m *member) gap(ctx context.Context) float64 {
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	look := time.NewTicker(handoverLook)
	defer look.Stop()
	for {
		if at := m.claimedAt.Load(); at != 0 {
			for _, seen := range m.group.Status().Masters {
				if gap := carp.SinceBoot(seen.At) - time.Duration(at); gap >= 0 {
					return float64(gap) / 1e6
				}
			}
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return -1
		}
	}
}

func byName(a, b *member) int {
	if a.cfg.Name < b.cfg.Name {
		return -1
	}
	return 1
}

// AskHandover asks the daemon of the run-dir to hand over.
func AskHandover(ctx context.Context, runDir string, in HandoverRequest) (out []HandoverResult, err error) {
	return out, ask(ctx, runDir, http.MethodPost, "/v1/handover", in, &out)
}
