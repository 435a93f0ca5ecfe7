package smoke

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
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
