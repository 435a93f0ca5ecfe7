//go:build guest

package smoke

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// guestNIC returns a NIC of the guest. Elsewhere eth0 is somebody's uplink.
func guestNIC(t *testing.T) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatalf("the guest's NIC: %v", err)
	}
	return l
}

func TestNativeAttachOnRealDriver(t *testing.T) {
	nic := guestNIC(t)
	l, err := link.AttachXDP(link.XDPOptions{
		Program:   program(t, xdpPass),
		Interface: nic.Attrs().Index,
		Flags:     link.XDPDriverMode,
	})
	if err != nil {
		t.Fatalf("attach in native mode: %v", err)
	}
	defer l.Close()
	_, err = link.AttachXDP(link.XDPOptions{Program: program(t, xdpPass), Interface: nic.Attrs().Index})
	if !errors.Is(err, unix.EBUSY) {
		t.Errorf("a second owner: got %v, want %v", err, unix.EBUSY)
	}
}

func TestPinnedLinkOutlivesItsDescriptor(t *testing.T) {
	nic := guestNIC(t)
	l, err := link.AttachXDP(link.XDPOptions{Program: program(t, xdpPass), Interface: nic.Attrs().Index})
	if err != nil {
		t.Fatalf("attach: %v", err)
	}
	pin := filepath.Join("/sys/fs/bpf", "smoke")
	if err := l.Pin(pin); err != nil {
		t.Fatalf("pin: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		t.Fatalf("load the pin: %v", err)
	}
	defer p.Close()
	if err := p.Update(program(t, xdpDrop)); err != nil {
		t.Errorf("replace the program: %v", err)
	}
	if err := p.Unpin(); err != nil {
		t.Error(err)
	}
}
