package test

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/nstest"
)

// A flood sends frames towards a node as fast as it may.
type flood struct {
	sent  atomic.Int64
	began time.Time
	stop  chan struct{}
	ended chan struct{}
}

// flood sends the frames one after the other, perSecond of them.
func (t *tap) flood(perSecond int, frames ...advert) *flood {
	f := &flood{began: time.Now(), stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(f.ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		n := 0
		for {
			select {
			case <-f.stop:
				return
			case <-tick.C:
			}
			for due := int(time.Since(f.began).Seconds() * float64(perSecond)); n < due; n++ {
				select {
				case <-f.stop: // it cannot keep up
					return
				default:
				}
				if _, err := unix.Write(t.fd, frames[n%len(frames)]); err == nil {
					f.sent.Add(1)
				}
			}
		}
	}()
	t.tb.Cleanup(f.end)
	return f
}

func (f *flood) end() {
	select {
	case <-f.stop:
	default:
		close(f.stop)
	}
	<-f.ended
}

// floodOf returns how many frames per second, and for how long. The full rate takes
// a core that others may need.
func floodOf() (perSecond int, lasts time.Duration) {
	if long() {
		return 500_000, 10 * time.Second
	}
	return 10_000, 3 * time.Second
}

// A flood of forged adverts changes no role, keeps no genuine advert from being
// believed often enough, and fills no log.
func TestFault08_Flood(t *testing.T) {
	t.Parallel()
	a := attack(t)
	rate, lasts := floodOf()
	for _, tt := range []struct {
		name string
		edit func(ip, carp []byte)
	}{
		{"unknown vhid", func(_, c []byte) { badDigest(nil, c); c[1] = 77 }},
		{"wrong digest", badDigest},
		{"relabelled", func(_, c []byte) { c[2], c[5] = 0, 0 }},
	} {
		w := newWatch(t, a.a, a.b)
		received := a.b.group("lan").Received
		used := a.b.cpu()
		fa := a.taps[a.a].flood(rate, a.v4.edit(tt.edit), a.v6.edit(tt.edit))
		fb := a.taps[a.b].flood(rate, a.v4.edit(tt.edit), a.v6.edit(tt.edit))
		wait(t, lasts)
		took := time.Since(fb.began)
		share := 100 * (a.b.cpu() - used).Seconds() / took.Seconds()
		genuine := a.b.group("lan").Received - received
		fa.end()
		fb.end()
		if least := max(1, int(lasts/carp.MasterDown(1, 100))); int(genuine) < least {
			t.Errorf("%s: %d genuine adverts believed in %v, want one per master-down time: %d", tt.name, genuine, lasts, least)
		}
		// The shield in XDP refuses them before the daemon is woken.
		if _, shield := a.b.group("lan").Packets["badauth"]; shield && share > 3*5 {
			t.Errorf("%s: the daemon used %.1f %% of a core, want 5 %%", tt.name, share)
		}
		w.unmoved(int(lasts.Seconds()) + 2)
		figure(t, tt.name, "%.0f frames/s to each node for %v: %d genuine adverts believed, %.1f %% CPU of the daemon, refused %v",
			float64(fb.sent.Load())/took.Seconds(), lasts, genuine, share, since(groupOf(w.before[a.b], "lan").Drops, a.b.group("lan").Drops))
	}
}

// A master that dies in the flood is replaced as if there was none.
func TestFault09_FloodAndTheMasterDies(t *testing.T) {
	t.Parallel()
	a := attack(t)
	rate, _ := floodOf()
	used, began := a.b.cpu(), time.Now()
	f := a.taps[a.b].flood(rate, a.v4.edit(badDigest), a.v6.edit(badDigest))
	wait(t, time.Second)
	a.cut(a.a)
	cut := time.Now()
	// The promise is for a machine that others do not use at the same time.
	bound := carp.MasterDown(1, 100) + carp.Interval(1, 0)
	a.b.waitState(3*bound, "MASTER", "lan", "wan")
	took := time.Since(cut)
	figure(t, "takeover in the flood", "%v, bound and an interval: %v", took.Round(10*time.Millisecond), bound)
	figure(t, "flood", "%.0f frames/s", float64(f.sent.Load())/time.Since(f.began).Seconds())
	figure(t, "CPU of the daemon", "%.1f %% of a core", 100*(a.b.cpu()-used).Seconds()/time.Since(began).Seconds())
	nstest.Eventually(t, 5*time.Second, "an answer of the new master", func() bool {
		a.taps[a.b].send(arpRequest(t))
		return a.taps[a.b].count(answersFor(shared4)) > 0
	})
}

// cpu returns the processor time that the daemon has used.
func (n *node) cpu() time.Duration {
	n.tb.Helper()
	n.mu.Lock()
	pid := n.cmd.Process.Pid
	n.mu.Unlock()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		n.tb.Fatal(err)
	}
	// proc(5): the program's name may hold anything, so count from its end.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var user, system int64
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		n.tb.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 everywhere
}
