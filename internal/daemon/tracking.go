package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	stdsync "sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xcarp/xcarp/internal/command"
	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/track"
)

// tracking watches what the groups need, and the routes that readiness waits for.
type tracking struct {
	tracks  []*track.Track
	routes  []*track.Track
	watcher *track.Watcher

	mu      stdsync.Mutex
	demotes []int           // as tracks: what each asks for now
	met     map[string]bool // what nobody waits for any more: tracks that are decided, routes that are there
}

// newTracking prepares the tracks in the network namespace of the caller.
func (d *Daemon) newTracking() (*tracking, error) {
	k := &tracking{demotes: make([]int, len(d.cfg.Tracks)), met: map[string]bool{}}
	var err error
	if k.watcher, err = track.NewWatcher(d.log); err != nil {
		return nil, err
	}
	for i := range d.cfg.Tracks {
		c := &d.cfg.Tracks[i]
		probe, err := d.probe(c)
		if err != nil {
			k.watcher.Close()
			return nil, fmt.Errorf("track %s: %w", c.Name, err)
		}
		t := track.New(track.Config{
			Name: c.Name, What: c.What, Every: c.Every, Timeout: c.Timeout, Rise: c.Rise, Fall: c.Fall, Demote: c.Demote,
			Probe: probe, Log: d.log,
			OnChange: func(s track.Status) { d.onTrack(k, i, s) },
		})
		k.tracks = append(k.tracks, t)
		k.watcher.Add(t)
	}
	for _, p := range d.cfg.Ready.Routes {
		t := track.New(track.Config{
			Name: "ready", What: waitsForRoute(p.String()), Every: 5 * time.Second, Timeout: 5 * time.Second, Rise: 1, Fall: 1,
			Probe:    track.Route{Prefix: p},
			OnChange: func(s track.Status) { d.meets(k, s.What, s.State == track.Up) },
		})
		k.routes = append(k.routes, t)
		k.watcher.Add(t)
	}
	return k, nil
}

// How readiness names what it waits for.
func waitsForRoute(prefix string) string { return "route " + prefix }
func waitsForTrack(name string) string   { return "track " + name + " decided" }

// pending is what a group of that name has to wait for when it begins.
func (d *Daemon) pending(group string) []string {
	var p []string
	tracks := d.now.Load().Tracks
	for _, r := range d.cfg.Ready.Routes {
		p = append(p, waitsForRoute(r.String()))
	}
	for i := range tracks {
		if t := &tracks[i]; slices.Contains(t.Groups, group) {
			p = append(p, waitsForTrack(t.Name))
		}
	}
	d.tracking.mu.Lock()
	defer d.tracking.mu.Unlock()
	return slices.DeleteFunc(p, func(what string) bool { return d.tracking.met[what] })
}

// probe makes what the configuration names.
func (d *Daemon) probe(c *config.Track) (track.Probe, error) {
	switch c.Check {
	case config.TrackLink:
		return track.Link{Name: c.Dev}, nil
	case config.TrackRoute:
		return track.Route{Prefix: c.Route, Dev: c.Dev}, nil
	case config.TrackPing:
		return track.Ping{Addr: c.Addr.Addr(), Dev: c.Dev}, nil
	case config.TrackARP:
		return track.ARP{Addr: c.Addr.Addr(), Dev: c.Dev}, nil
	case config.TrackTCP:
		return track.TCP{Addr: c.Addr, Dev: c.Dev}, nil
	case config.TrackProcess:
		return track.ByName(c.Process), nil
	case config.TrackPIDFile:
		return track.ByPIDFile(c.Path), nil
	case config.TrackFile:
		switch c.Content {
		case config.FileAbsent:
			return track.Absent{Path: c.Path}, nil
		case config.FileNumber:
			return track.Number{Path: c.Path}, nil
		}
		return track.Exists{Path: c.Path}, nil
	case config.TrackCommand:
		s, err := commandSpec(c.Command, c.User)
		return track.NewCommand(s, "XCARP_NODE="+d.cfg.Node, "XCARP_TRACK="+c.Name), err
	}
	return nil, fmt.Errorf("no such check: %q", c.Check)
}

func commandSpec(argv []string, name string) (command.Spec, error) {
	u, err := config.LookupUser(name)
	return command.Spec{Argv: argv, UID: u.UID, GID: u.GID, Groups: u.Groups}, err
}

// onTrack carries a verdict to the election. The demotion comes first: a node that
// is ready and not yet demoted would replace a better one.
func (d *Daemon) onTrack(k *tracking, i int, s track.Status) {
	k.mu.Lock()
	k.demotes[i] = s.Demote
	groups := d.now.Load().Tracks[i].Groups
	for _, m := range d.members() {
		if slices.Contains(groups, m.cfg.Shared()) {
			m.group.Demote("track "+s.Name, s.Demote)
		}
	}
	k.mu.Unlock()
	d.meets(k, waitsForTrack(s.Name), s.State != track.Pending)
}

// meets notes whether something that readiness waits for is there.
func (d *Daemon) meets(k *tracking, what string, yes bool) {
	k.mu.Lock()
	k.met[what] = yes
	k.mu.Unlock()
	d.start.Pending(what, !yes)
}

// Join tells a group what it is demoted by.
func (k *tracking) Join(m *member, cfg *config.Config) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.tracks {
		n := 0
		if t := &cfg.Tracks[i]; slices.Contains(t.Groups, m.cfg.Shared()) {
			n = k.demotes[i]
		}
		m.group.Demote("track "+cfg.Tracks[i].Name, n)
	}
}

// Told repeats what need not be waited for: a group that just joined may have
// missed it.
func (k *tracking) Told(s *starter) {
	k.mu.Lock()
	met := maps.Clone(k.met)
	k.mu.Unlock()
	for what, yes := range met {
		s.Pending(what, !yes)
	}
}

// Run watches until the context ends.
func (k *tracking) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { return k.watcher.Run(ctx) })
	for _, t := range slices.Concat(k.tracks, k.routes) {
		g.Go(func() error { return t.Run(ctx) })
	}
	return g.Wait()
}

// Status describes the tracks, which are those of the configuration.
func (k *tracking) Status(cfg []config.Track) []TrackStatus {
	all := []TrackStatus{}
	for i, t := range k.tracks {
		s := t.Status()
		all = append(all, TrackStatus{
			Name: s.Name, Check: s.What, State: s.State.String(), Since: s.Since, Demote: s.Demote, Groups: append([]string{}, cfg[i].Groups...),
			Error: s.Err, RTTMS: float64(s.RTT) / 1e6, Checks: s.Checks, Failures: s.Failures,
		})
	}
	return all
}
