package daemon

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/carp/group"
	"github.com/xcarp/xcarp/internal/nstest"
)

// threadOf starts a thread that waits for the end of the test.
func threadOf(t *testing.T) int {
	end, tid := make(chan struct{}), make(chan int)
	t.Cleanup(func() { close(end) })
	go func() {
		runtime.LockOSThread()
		tid <- unix.Gettid()
		<-end
	}()
	return <-tid
}

// TestAllThreadsLeaveACPU has this thread move the others: one that asked, and an
// ordinary one.
func TestAllThreadsLeaveACPU(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := newCPUs(func() {})
	other := threadOf(t)
	c.sender = threadOf(t)
	uses := func(tid int, want unix.CPUSet) {
		t.Helper()
		var may unix.CPUSet
		if err := unix.SchedGetaffinity(tid, &may); err != nil || may != want {
			t.Errorf("thread %d may use %v, want %v: %v", tid, may, want, err)
		}
	}
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
		uses(other, want)
		uses(c.sender, c.may) // the kernel moves a real-time thread that waits
		uses(unix.Gettid(), c.may)
	}
	if err := c.leave(everyCPU); err != nil {
		t.Fatal(err)
	}
	uses(other, c.may)
	if err := c.leave(0); c.may.IsSet(0) && err != nil {
		t.Fatal(err)
	}
	if err := c.Keep(true); err != nil {
		t.Fatal(err)
	}
	uses(other, c.may)
	uses(c.sender, c.may)
	if err := c.leave(0); err == nil {
		t.Error("a process that is kept left")
	}
	uses(other, c.may)
}

// TestWhoIsAskedToLeave: one thing at a time, and the CPU on which the caller is.
func TestWhoIsAskedToLeave(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := newCPUs(func() {})
	if c.may.Count() < 2 {
		if err := c.Leave(); err == nil {
			t.Error("the only CPU is to be left")
		}
		return
	}
	if c.Back() {
		t.Error("back before anything was left")
	}
	if err := c.Leave(); err != nil {
		t.Fatal(err)
	}
	if err := c.Return(); err == nil {
		t.Error("two things are asked for at once")
	}
	if cpu := <-c.ask; cpu != c.left || !c.may.IsSet(cpu) {
		t.Errorf("asked to leave CPU %d, noted %d", cpu, c.left)
	}
	if err := c.Return(); err != nil {
		t.Fatal(err)
	}
	if cpu := <-c.ask; cpu != everyCPU || c.Back() {
		t.Errorf("asked to leave CPU %d to come back", cpu)
	}
}

// TestAMoveWaitsForNoGoroutine: the threads that were moved starve where they are kept,
// behind one of higher priority, and the sender thread is free all the same.
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
	var holds, ends atomic.Bool
	waited, moved := make(chan bool), make(chan error)
	go func() { // as who handles a flood
		runtime.LockOSThread() // it ends with its goroutine
		var one unix.CPUSet
		one.Set(two[1])
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
	if err := c.leave(everyCPU); err != nil {
		t.Fatal(err)
	}
}
