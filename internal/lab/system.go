package lab

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// System is what makes two routers a pair.
type System struct {
	Name    string
	Profile string // which of its settings; empty: the demo's
	Mirrors bool   // the connections of one router are known to the other

	// Check says what is missing on this machine, in one line with its remedy.
	Check func() error

	// Prepare writes the configuration of both routers.
	Prepare func(ctx context.Context, n *Net) error

	// Start starts the system on a router. It is also how a router that was
	// switched off, or whose daemon died, comes back.
	Start func(ctx context.Context, r *Node) error

	// Status asks the system on a router where it stands.
	Status func(ctx context.Context, r *Node) (Status, error)

	// Transitions returns what the router did, as its log has it. Optional.
	Transitions func(r *Node) ([]Transition, error)

	// Handover makes the router give its role away while it lives, Takeback lets
	// it have it again, Restart is what its operator does for a new version.
	// Optional.
	Handover, Takeback, Restart func(ctx context.Context, r *Node) error

	// Masters reads from a log how often a group became master.
	Masters func(log []byte) int

	// Version is what the programs say they are.
	Version func() string

	// Files are the configuration files of a router, by name in its directory.
	Files []string

	// MasterDown is how long a backup waits before it takes over.
	MasterDown time.Duration

	// show reads the counters of a router's LAN group. Optional.
	show func(ctx context.Context, r *Node) (floodShow, error)
}

// Label is the system with its profile.
func (s System) Label() string { return strings.TrimSpace(s.Name + " " + s.Profile) }

// Role is where a group stands; the words of carp(4).
type Role string

// The roles that the lab waits for.
const (
	Master Role = "MASTER"
	Backup Role = "BACKUP"

	half Role = "MASTER of one family" // no role: it is on its way, or it is no pair
)

// Status is where a router stands.
type Status struct {
	Groups  map[string]Role // by name
	InSync  bool            // the connection table equals the peer's
	Flows   int             // in the table
	XDPMode string          // native, generic, or none
}

// all reports whether every group has the role.
func (s Status) all(r Role) bool {
	for _, g := range s.Groups {
		if g != r {
			return false
		}
	}
	return len(s.Groups) > 0
}

// Transition is one change of a group's role.
type Transition struct {
	Node   string  `json:"node"`
	VHID   int     `json:"vhid"`
	From   string  `json:"from"`
	To     string  `json:"to"`
	Reason string  `json:"reason,omitempty"`
	AtMS   float64 `json:"at_ms"` // relative to the fault
	at     time.Time
}

// holds is the status of a system that gives the shared addresses to a link of
// the router: master is who has all of a side's on a link that is up.
func holds(_ context.Context, r *Node) (Status, error) {
	if !r.running() {
		return Status{}, fmt.Errorf("the daemon of %s is not running", r.Name)
	}
	const up = uint32(unix.IFF_UP | unix.IFF_LOWER_UP)
	usable := map[string]bool{}
	links, err := r.h.LinkList()
	if err != nil {
		return Status{}, fmt.Errorf("list the links of %s: %w", r.Name, err)
	}
	for _, l := range links {
		if l.Attrs().RawFlags&up != up {
			continue
		}
		addrs, err := r.h.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return Status{}, fmt.Errorf("list the addresses of %s: %w", r.Name, err)
		}
		for _, a := range addrs {
			usable[a.IP.String()] = true
		}
	}
	role := func(v4, v6 string) Role {
		switch {
		case usable[v4] && usable[v6]:
			return Master
		case usable[v4] || usable[v6]:
			return half
		}
		return Backup
	}
	return Status{Groups: map[string]Role{
		"lan": role(SharedLAN, SharedLAN6), "wan": role(SharedWAN, SharedWAN6),
	}, InSync: true}, nil
}

// needs checks that programs are there; each comes with the package that has it.
func needs(programs ...[2]string) func() error {
	return func() error {
		var missing, packages []string
		for _, p := range programs {
			if _, err := exec.LookPath(p[0]); err != nil {
				missing, packages = append(missing, p[0]), append(packages, p[1])
			}
		}
		if len(missing) == 0 {
			return nil
		}
		return fmt.Errorf("needs %s: apt-get install %s", strings.Join(missing, ", "), strings.Join(packages, " "))
	}
}

// firstLine runs a program that says what it is, and returns the first line.
func firstLine(program string, args ...string) string {
	out, err := exec.Command(program, args...).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if line == "" && err != nil {
		return "unknown"
	}
	return line
}

// packageVersion is what the distribution says of a program that does not tell.
func packageVersion(name string) string {
	return firstLine("dpkg-query", "-W", "-f", "${Version}", name)
}

// stopAndStart is how most systems are restarted.
func stopAndStart(start func(context.Context, *Node) error) func(context.Context, *Node) error {
	return func(ctx context.Context, r *Node) error {
		r.Stop(5 * time.Second)
		return errors.Join(context.Cause(ctx), start(ctx, r))
	}
}
