package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cpus are those that the process may use: what the caller of newCPUs might.
//
// The sender thread asks to leave one, and another thread of the same priority does it.
// Who moves itself has to run where it goes before it may use all again; if the flood is
// there by then it waits behind who handles that (measured: 2 s), and so does who waits
// for the kernel to move the rest.
type cpus struct {
	may    unix.CPUSet
	unread error
	ask    chan int // the CPU to leave, or everyCPU
	left   int      // what was asked for last: the sender thread's own
	sender int      // the thread that asks; set before Run
	wake   func()   // wakes it

	mu   sync.Mutex
	kept bool
}

// stepTime is what the sender thread gets to take a step on another CPU.
const stepTime = 10 * time.Millisecond

// everyCPU is asked for to come back.
const everyCPU = -1

// newCPUs is given what wakes the thread that will ask.
func newCPUs(wake func()) *cpus {
	c := cpus{left: everyCPU, ask: make(chan int, 1), wake: wake}
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

// Leave asks for all threads of the process to be moved to other CPUs than the caller's,
// who may use all from there.
func (c *cpus) Leave() error {
	cpu, err := onCPU()
	if err != nil {
		return err
	}
	if _, err := c.others(cpu); err != nil {
		return err
	}
	return c.want(cpu)
}

// Return asks for all threads to be let use all again.
func (c *cpus) Return() error { return c.want(everyCPU) }

func (c *cpus) want(cpu int) error {
	select {
	case c.ask <- cpu:
		c.left = cpu
		return nil
	default:
		return errors.New("the threads are being moved")
	}
}

// others are all CPUs but one.
func (c *cpus) others(cpu int) (unix.CPUSet, error) {
	if c.unread != nil {
		return unix.CPUSet{}, c.unread
	}
	others := c.may
	if cpu != everyCPU {
		others.Clear(cpu)
	}
	if others.Count() == 0 {
		return others, errors.New("there is no other CPU")
	}
	return others, nil
}

// leave moves all threads but the caller.
func (c *cpus) leave(cpu int) error {
	others, err := c.others(cpu)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept && cpu != everyCPU {
		return errors.New("the process stays where it is")
	}
	if cpu == everyCPU {
		return use(&others)
	}
	err = use(&others, unix.Gettid(), c.sender)
	// From here no goroutine may be waited for: those that have just been moved starve.
	_ = unix.SchedSetaffinity(c.sender, &others)
	c.wake() // one that sleeps goes where it may with its next step
	pause(stepTime)
	return errors.Join(err, unix.SchedSetaffinity(c.sender, &c.may))
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

// Back reports whether the caller, who left a CPU, is on it: the kernel has moved it there.
func (c *cpus) Back() bool {
	cpu, err := onCPU()
	return err == nil && cpu == c.left
}

// Keep lets all threads use all, and no Leave is followed until it is called with false.
func (c *cpus) Keep(on bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept = on; !on {
		return nil
	}
	if c.unread != nil {
		return c.unread
	}
	return use(&c.may)
}

// use lets all threads of the process but some use some CPUs alone: each does work for
// the kernel where it runs. One that is made meanwhile has the CPUs of its maker, so all
// are listed twice.
func use(cpus *unix.CPUSet, but ...int) error {
	for range 2 {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list the threads: %w", err)
		}
		for _, t := range threads {
			if tid, err := strconv.Atoi(t.Name()); err == nil && !slices.Contains(but, tid) {
				_ = unix.SchedSetaffinity(tid, cpus) // it may have ended
			}
		}
	}
	return nil
}
