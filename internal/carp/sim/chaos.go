package sim

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// fault makes one fault and sees to its end, which is at the end of the chaos
// at the latest.
func (w *world) fault() {
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	u := w.sc.unit()
	d := min(w.between(u/10, 10*u), w.sc.Chaos-w.now)
	if d <= 0 {
		return
	}
	switch w.rng.IntN(14) {
	case 0: // two halves
		side := w.rng.Uint32()
		w.partition("partition", d, true, true, func(a, b int) bool { return side>>a&1 != side>>b&1 })
	case 1: // the carpdev only
		side := w.rng.Uint32()
		w.partition("carpdev partition", d, true, false, func(a, b int) bool { return side>>a&1 != side>>b&1 })
	case 2: // the sync channel only
		side := w.rng.Uint32()
		w.partition("sync partition", d, false, true, func(a, b int) bool { return side>>a&1 != side>>b&1 })
	case 3: // one cannot be heard
		w.partition("nobody hears "+n.name, d, true, w.chance(0.5), func(a, b int) bool { return a == n.i })
	case 4: // one cannot hear
		n.muffled++
		w.later(d, func() { n.muffled-- })
		w.partition(n.name+" hears nobody", d, true, w.chance(0.5), func(a, b int) bool { return b == n.i })
	case 5: // one way between two
		o := w.rng.IntN(len(w.nodes))
		w.partition("one way", d, true, w.chance(0.5), func(a, b int) bool { return a == n.i && b == o })
	case 6:
		n.setLink(false)
		w.later(d, func() { n.setLink(true) })
	case 7:
		w.restart(n, d)
	case 8:
		n.freeze(d)
	case 9:
		step := w.between(0, 8*u)
		w.line(n.name, "boot clock steps by %v", step)
		n.offset += step // it never goes back
		n.loop()
		n.w.check.woken(n)
	case 10, 11:
		owner := []string{"link", "track", "sync", "operator"}[w.rng.IntN(4)]
		n.setDemotion(owner, 1+w.rng.IntN(300))
		w.later(d, func() { n.setDemotion(owner, 0) })
	case 12:
		w.line(n.name, "cannot send for %v", d)
		n.deaf = true
		w.later(d, func() { n.deaf = false })
	case 13:
		was := w.loss
		w.line("segment", "loses 0.8 of all for %v", d)
		w.loss = 0.8
		w.later(d, func() { w.loss = min(was, w.sc.Loss) })
	}
}

// partition cuts every pair that it is told to, for d.
func (w *world) partition(what string, d time.Duration, carp, sync bool, pair func(a, b int) bool) {
	w.line("segment", "%s for %v (sync %v)", what, d, sync)
	var cut [][2]int
	for a := range w.nodes {
		for b := range w.nodes {
			if a != b && pair(a, b) {
				w.cut(carp, sync, a, b, 1)
				cut = append(cut, [2]int{a, b})
			}
		}
	}
	w.later(d, func() {
		w.line("segment", "end of %s", what)
		for _, p := range cut {
			w.cut(carp, sync, p[0], p[1], -1)
		}
	})
}

// restart ends the process or the machine of a node and starts it d later.
func (w *world) restart(n *node, d time.Duration) {
	if n.m == nil || n.leaving {
		return
	}
	how := w.rng.IntN(4)
	switch how {
	case 0:
		w.line(n.name, "power lost")
		n.poweroff()
	case 1: // within the lease, as systemd does
		w.line(n.name, "killed")
		n.kill()
		d = min(d, w.between(0, w.sc.unit()))
	case 2:
		w.line(n.name, "killed")
		n.kill()
	case 3:
		w.line(n.name, "told to stop")
		n.stop = true
		n.loop()
		n.leaving = true
		process := n.process
		w.later(drain, func() {
			if n.process == process {
				n.leave()
			}
		})
		d = max(d, drain+time.Millisecond)
	}
	disk := w.rng.IntN(8)
	w.later(d, func() {
		if n.m != nil {
			return
		}
		switch disk {
		case 0:
			w.line(n.name, "storage lost")
			n.disk = w.newStorage()
		case 1:
			w.line(n.name, "storage as it was at the beginning")
			n.disk = n.old.clone()
			w.sc.setBack = w.sc.setBack || !w.sc.Trailer
		}
		if n.powered {
			n.start()
		} else {
			n.boot()
		}
	})
}

const drain = 150 * time.Millisecond // what a master needs to leave, and a bit

// leave ends a process that was told to stop, if it is still that one.
func (n *node) leave() {
	if n.m == nil {
		return
	}
	if !n.m.Stopped() {
		n.w.line(n.name, "killed: it took too long to stop")
	}
	n.kill()
}

// newStorage is what a node has that nobody has heard of.
func (w *world) newStorage() storage {
	return storage{id: w.rng.Uint64() | 1<<63, counter: w.rng.Uint64() >> 2}
}

// heal ends all faults. What was under way keeps its delay.
func (w *world) heal() {
	w.line("segment", "all is well from here on")
	w.calm = true
	w.loss, w.dup, w.delay = 0, 0, calmDelay
	for a := range w.cutCarp {
		for b := range w.cutCarp[a] {
			w.cutCarp[a][b], w.cutSync[a][b] = 0, 0
		}
	}
	for _, n := range w.nodes {
		n.deaf = false
		n.setLink(true)
		if n.frozen {
			n.thaw()
		}
		for _, owner := range slices.Sorted(maps.Keys(n.own)) {
			n.setDemotion(owner, 0)
		}
		if n.leaving {
			n.leave()
		}
		switch {
		case n.m != nil:
		case n.powered:
			n.start()
		default:
			n.boot()
		}
	}
	if n := w.nodes[w.rng.IntN(len(w.nodes))]; w.chance(0.3) {
		n.setDemotion("track", 1+w.rng.IntN(240)) // it is well, but this one is to be last
	}
}

// newWorld makes the world of a scenario.
func newWorld(sc *Scenario) *world {
	w := &world{sc: sc, rng: rand.New(rand.NewPCG(sc.Seed, 2)), loss: sc.Loss, dup: sc.Dup, delay: sc.Delay, mac: -1}
	for i, c := range sc.Nodes {
		n := &node{w: w, i: i, name: nodeName(i), cfg: c, link: true, last: make([]uint64, len(sc.Nodes))}
		n.disk = w.newStorage()
		n.old = n.disk.clone()
		w.nodes = append(w.nodes, n)
		w.stations = append(w.stations, n)
	}
	w.grow()
	w.check.world(w)
	return w
}

// grow makes room for the cuts between all stations.
func (w *world) grow() {
	w.cutCarp, w.cutSync = nil, nil
	for range w.stations {
		w.cutCarp = append(w.cutCarp, make([]int, len(w.stations)))
		w.cutSync = append(w.cutSync, make([]int, len(w.stations)))
	}
}
