package smoke

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/nstest"
)

// Actions of an XDP program, as in linux/bpf.h.
const (
	xdpDrop = 1
	xdpPass = 2
)

// program loads an XDP program that returns one action for every frame.
func program(t *testing.T, action int32) *ebpf.Program {
	t.Helper()
	nstest.RequireRoot(t)
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "smoke",
		Type:         ebpf.XDP,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, action), asm.Return()},
		License:      "Dual BSD/GPL",
	})
	if err != nil {
		t.Fatalf("load: %+v", err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// guestNIC returns a NIC of the guest. Elsewhere eth0 is somebody's uplink.
func guestNIC(t *testing.T) netlink.Link {
	t.Helper()
	if os.Getenv("XCARP_TEST_GUEST") != "1" {
		t.Skip("needs the NIC of a matrix guest")
	}
	l, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatalf("the guest's NIC: %v", err)
	}
	return l
}

func TestProgramRuns(t *testing.T) {
	for _, want := range []uint32{xdpDrop, xdpPass} {
		got, err := program(t, int32(want)).Run(&ebpf.RunOptions{Data: make([]byte, 60)})
		if err != nil {
			t.Fatalf("run: %v", err)
		}
		if got != want {
			t.Errorf("verdict: got %d, want %d", got, want)
		}
	}
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

func TestMmapableArray(t *testing.T) {
	nstest.RequireRoot(t)
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.Array, KeySize: 4, ValueSize: 64, MaxEntries: 256, Flags: unix.BPF_F_MMAPABLE,
	})
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	defer m.Close()
	mem, err := m.Memory()
	if err != nil {
		t.Fatalf("map: %v", err)
	}
	if got := mem.Size(); got < 256*64 {
		t.Errorf("size: got %d, want at least %d", got, 256*64)
	}
}

func TestConntrackIsReadable(t *testing.T) {
	ns := nstest.New(t, "ct")
	ns.Must(func() error {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		if len(flows) != 0 {
			t.Errorf("flows in a new namespace: got %d, want 0", len(flows))
		}
		return nil
	})
}
