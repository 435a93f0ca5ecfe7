package daemon

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp/group"
	"github.com/xcarp/xcarp/internal/nstest"
)

// threadOf starts a thread that waits for the end of the test.
func threadOf(t *testing.T) int {
	t.Helper()
	end, tid := make(chan struct{}), make(chan int)
	t.Cleanup(func() { close(end) })
	go func() {
		runtime.LockOSThread()
		tid <- unix.Gettid()
		<-end
	}()
	return <-tid
}

// useAll lets all threads of the process but one use some CPUs. One that is made meanwhile
// has those of its maker, so all are listed twice.
func useAll(t *testing.T, cpus unix.CPUSet, but int) {
	t.Helper()
	for range 2 {
		all, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Error(err)
		}
		for _, e := range all {
			if tid, _ := strconv.Atoi(e.Name()); tid != but {
				_ = unix.SchedSetaffinity(tid, &cpus) // it may have ended
			}
		}
	}
}

// mayUse is the CPUs that a thread may use.
func mayUse(t *testing.T, tid int) (may unix.CPUSet) {
	t.Helper()
	if err := unix.SchedGetaffinity(tid, &may); err != nil {
		t.Error(err)
	}
	return may
}

// TestTheSenderThreadLeavesACPU: it alone, for no longer than a step takes.
func TestTheSenderThreadLeavesACPU(t *testing.T) {
	var during, other unix.CPUSet
	c := newCPUs(nil)
	c.sender = threadOf(t)
	ordinary := threadOf(t)
	c.wake = func() { during, other = mayUse(t, c.sender), mayUse(t, ordinary) }
	for cpu := range 1024 {
		if !c.may.IsSet(cpu) {
			continue
		}
		want := c.may
		if want.Clear(cpu); want.Count() == 0 {
			if err := c.leave(cpu); err == nil {
				t.Error("the only CPU was left")
			}
			return
		}
		if err := c.leave(cpu); err != nil {
			t.Fatal(err)
		}
		if during != want || other != c.may {
			t.Errorf("leaving CPU %d, the thread might use %v, others %v; want %v, %v", cpu, during, other, want, c.may)
		}
		if got := mayUse(t, c.sender); got != c.may {
			t.Errorf("after that it may use %v, want %v", got, c.may)
		}
	}
}

// TestWhoIsAskedToLeave: one at a time, and the CPU on which the caller is.
func TestWhoIsAskedToLeave(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := newCPUs(nil)
	if c.may.Count() < 2 {
		if err := c.Leave(); err == nil {
			t.Error("the only CPU is to be left")
		}
		return
	}
	if err := c.Leave(); err != nil {
		t.Fatal(err)
	}
	if err := c.Leave(); err == nil {
		t.Error("two are to be left at once")
	}
	if cpu := <-c.ask; !c.may.IsSet(cpu) {
		t.Errorf("asked to leave CPU %d", cpu)
	}
}

// TestAMoveWaitsForNoGoroutine: the other threads starve, behind one of higher priority,
// and the sender thread is free to use all CPUs again all the same.
func TestAMoveWaitsForNoGoroutine(t *testing.T) {
	nstest.RequireRoot(t)
	c := newCPUs(func() {})
	var two []int
	for cpu := range 1024 {
		if c.may.IsSet(cpu) {
			two = append(two, cpu)
		}
	}
	if len(two) < 2 {
		nstest.Skip(t, "needs two CPUs")
	}
	c.sender = threadOf(t)
	var one unix.CPUSet
	one.Set(two[1])
	t.Cleanup(func() { useAll(t, c.may, 0) })
	var holds, ends atomic.Bool
	waited, moved := make(chan bool), make(chan error)
	go func() { // as who handles a flood
		runtime.LockOSThread() // it ends with its goroutine
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: realtime + 1}
		if err := errors.Join(unix.SchedSetaffinity(0, &one), unix.SchedSetAttr(0, &attr, 0)); err != nil {
			t.Error(err)
		}
		until := group.BootClock().Add(time.Second / 2)
		for holds.Store(true); !ends.Load() && group.BootClock().Before(until); {
		}
		waited <- !ends.Load()
	}()
	go func() { // as cpus.Run
		runtime.LockOSThread()
		if err := preferred(); err != nil {
			t.Error(err)
		}
		for !holds.Load() {
			runtime.Gosched()
		}
		useAll(t, one, unix.Gettid())
		err := c.leave(two[0])
		ends.Store(true)
		moved <- err
	}()
	if err := <-moved; err != nil {
		t.Error(err)
	}
	if <-waited {
		t.Error("the move waited for a thread that starves")
	}
	if got := mayUse(t, c.sender); got != c.may {
		t.Errorf("the sender thread may use %v, want %v", got, c.may)
	}
}
