package daemon

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// capable says what this process may not do that a daemon must, before it has
// done anything.
func capable() error {
	var caps [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0]); err != nil {
		return fmt.Errorf("read own capabilities: %w", err)
	}
	has := func(c uint) bool { return caps[c/32].Effective&(1<<(c%32)) != 0 }
	for _, need := range []struct {
		cap  uint
		name string
		why  string
	}{
		{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "to set addresses and attach programs"},
		{unix.CAP_NET_RAW, "CAP_NET_RAW", "to send adverts"},
		{unix.CAP_BPF, "CAP_BPF", "to load BPF programs"},
		{unix.CAP_PERFMON, "CAP_PERFMON", "to load BPF programs on Linux 6.1"},
	} {
		if !has(need.cap) && !(need.cap >= unix.CAP_PERFMON && has(unix.CAP_SYS_ADMIN)) {
			return fmt.Errorf("not allowed to: the daemon needs %s %s: run it as root, or grant that", need.name, need.why)
		}
	}
	return nil
}
