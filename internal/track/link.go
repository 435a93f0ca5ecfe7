package track

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link asks whether an interface is up and has carrier. As in CARP, a driver that
// does not tell counts as up (ip_carp.c of OpenBSD reacts to DOWN only).
type Link struct{ Name string }

// Check implements Probe.
func (l Link) Check(context.Context) (Reading, error) {
	i, err := netlink.LinkByName(l.Name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return Reading{}, fmt.Errorf("no interface %s", l.Name)
	case err != nil:
		return Reading{}, fmt.Errorf("ask for interface %s: %w", l.Name, err)
	}
	a := i.Attrs()
	switch {
	case a.RawFlags&unix.IFF_UP == 0:
		return Reading{}, fmt.Errorf("%s is switched off", l.Name)
	case a.OperState != netlink.OperUp && a.OperState != netlink.OperUnknown:
		return Reading{}, fmt.Errorf("%s is %s", l.Name, a.OperState)
	}
	return Reading{}, nil
}
