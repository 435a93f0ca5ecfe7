package daemon

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAllThreadsLeaveACPU has this thread move the others: one that asked, and an
// ordinary one.
func TestAllThreadsLeaveACPU(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := newCPUs(func() {})
	end := make(chan struct{})
	defer close(end)
	thread := func() int {
		tid := make(chan int)
		go func() {
			runtime.LockOSThread()
			tid <- unix.Gettid()
			<-end
		}()
		return <-tid
	}
	other := thread()
	c.sender = thread()
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
