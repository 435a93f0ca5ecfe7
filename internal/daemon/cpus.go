package daemon

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cpus are those that the process may use: what the caller of newCPUs might.
//
// The sender thread asks to leave one, and another thread of the same priority moves it.
// Who moves itself has to run where it goes before it may use all again; if the flood is
// there by then it waits behind who handles that (measured: 2 s). For the same reason
// nobody is kept off a CPU for longer than a step takes, and ordinary threads not at all:
// they would starve, and the sender thread would wait for what they hold.
type cpus struct {
	may    unix.CPUSet
	unread error
	ask    chan int // the CPU to leave
	sender int      // the thread that asks; set before Run
	wake   func()   // wakes it
}

// stepTime is what the sender thread gets to take a step on another CPU. Go asks a goroutine
// for its place after 10 ms, and who moves the thread has to be done by then.
const stepTime = 5 * time.Millisecond

// newCPUs is given what wakes the thread that will ask.
func newCPUs(wake func()) *cpus {
	c := cpus{ask: make(chan int, 1), wake: wake}
	if err := unix.SchedGetaffinity(0, &c.may); err != nil {
		c.unread = fmt.Errorf("read the affinity: %w", err)
	}
	return &c
}

// Run does what is asked for until the context ends. Its thread ends with it.
func (c *cpus) Run(ctx context.Context) {
	runtime.LockOSThread()
	_ = preferred() // without it the move comes later
	for {
		select {
		case cpu := <-c.ask:
			_ = c.leave(cpu) // the sender thread sees that sends stay slow
		case <-ctx.Done():
			return
		}
	}
}

// preferred gives the calling thread real-time priority.
func preferred() error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: realtime}
	return unix.SchedSetAttr(0, &attr, 0)
}

// Leave asks for the caller to be moved to another CPU than it is on.
func (c *cpus) Leave() error {
	cpu, err := onCPU()
	if err != nil {
		return err
	}
	if _, err := c.others(cpu); err != nil {
		return err
	}
	select {
	case c.ask <- cpu:
		return nil
	default:
		return errors.New("the thread is being moved")
	}
}

// others are all CPUs but one.
func (c *cpus) others(cpu int) (unix.CPUSet, error) {
	if c.unread != nil {
		return unix.CPUSet{}, c.unread
	}
	others := c.may
	if others.Clear(cpu); others.Count() == 0 {
		return others, errors.New("there is no other CPU")
	}
	return others, nil
}

// leave moves the sender thread. From the first line to the last no goroutine may be
// waited for: their threads may starve.
func (c *cpus) leave(cpu int) error {
	others, err := c.others(cpu)
	if err != nil {
		return err
	}
	if err := unix.SchedSetaffinity(c.sender, &others); err != nil {
		return err
	}
	c.wake() // if it sleeps it goes where it may with its next step
	pause(stepTime)
	return unix.SchedSetaffinity(c.sender, &c.may)
}

// pause sleeps as a thread does: a goroutine that slept would need another thread to
// wake it.
func pause(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_, _, _ = unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0) // a signal ends it: a shorter step
}

// onCPU is the CPU that the caller is on.
func onCPU() (int, error) {
	var cpu uint32
	if _, _, errno := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); errno != 0 {
		return 0, fmt.Errorf("read the CPU: %w", errno)
	}
	return int(cpu), nil
}
