package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"

	"github.com/xcarp/xcarp/internal/loader"
)

// ErrMaster says that this node still answers for an address, ErrVersion that it may.
var (
	ErrMaster  = loader.ErrMaster
	ErrVersion = loader.ErrVersion
)

// Detach takes everything of xcarp off the box, in the caller's network
// namespace, and returns what that was. It refuses while a daemon runs, and
// with ErrMaster while a lease holds, or ErrVersion where nobody knows, unless forced.
func Detach(paths Paths, force bool) (removed []string, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("not root: only root can take programs off: run it as root")
	}
	if Running(paths.Run) {
		return nil, fmt.Errorf("a daemon runs with run-dir %s: stop it first", paths.Run)
	}
	ports, err := loader.Pinned(paths.Pin)
	if err != nil {
		return nil, err
	}
	for _, p := range ports {
		if p.Ifindex != 0 { // else there is nothing that a daemon could run on
			lock, err := lockCarpdev(p.Ifname, p.Ifindex)
			if err != nil {
				return nil, err
			}
			defer lock.Close()
		}
		if err := p.Held(); err != nil && !force {
			return nil, err
		}
	}
	// The addresses go while the fence still stands: without it the kernel would
	// answer for them with the NIC's own MAC.
	h, err := netlink.NewHandle(unixNetlinkRoute)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	defer h.Close()
	for _, p := range ports {
		if err := removeHostAddrs(h, p.Ifindex, p.Addrs); err != nil {
			return nil, err
		}
	}
	if removed, err = loader.Detach(paths.Pin, force); err != nil {
		return removed, err
	}
	// What follows is there without pins, too: a mount namespace that has ended took
	// them along.
	_ = os.Remove(filepath.Join(paths.Run, SocketName)) // of a daemon that was killed
	restored, err := paths.restoreSysctls()
	removed = append(removed, restored...)
	trap, unable := newRSTTrap()
	if unable != nil {
		return removed, err // without nftables there is no table of ours either
	}
	defer trap.Close()
	if there, unsure := trap.There(); there || unsure != nil {
		removed = append(removed, "nftables table inet "+trapTable)
		err = errors.Join(err, trap.Remove())
	}
	return removed, err
}
