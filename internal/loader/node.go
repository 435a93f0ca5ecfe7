package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
)

// nodePrefix begins the names of folders for what all devices of a node have in
// common; the layout follows, so that programs of another build keep their maps
// until they are replaced. No interface's folder has a % before a letter.
const nodePrefix = "%pulse"

func nodeDir(root string) string {
	return filepath.Join(root, nodePrefix+strconv.Itoa(int(xdpLayoutLAYOUT)))
}

func syncDir(root, ifname string) string { return portDir(nodeDir(root), ifname) }

// kitOf is that of the device whose pins are in the folder.
func kitOf(dir string) *kit {
	if strings.HasPrefix(filepath.Base(filepath.Dir(dir)), nodePrefix) {
		return syncdev
	}
	return carpdev
}

// openNode opens the node's maps, and makes what is missing.
func (m *maps) openNode(dir string) error {
	specs, err := nodeSpecs()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make pin directory: %w", err)
	}
	for name, spec := range specs {
		if m.byName[name], err = openMap(filepath.Join(dir, name), spec); err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
	}
	return nil
}

// slotOf finds the slot that a carpdev's map of vhids has, or else the first free one.
func slotOf(ports, vhids *ebpf.Map) (slot uint32, taken bool, err error) {
	info, err := vhids.Info()
	if err != nil {
		return 0, false, fmt.Errorf("read map %s: %w", xdpMapVhids, err)
	}
	own, _ := info.ID()
	free := int64(-1)
	for i := range ports.MaxEntries() {
		var id ebpf.MapID
		err := ports.Lookup(i, &id)
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			if free < 0 {
				free = int64(i)
			}
		case err != nil:
			return 0, false, fmt.Errorf("read map %s: %w", xdpMapPulsePorts, err)
		case id == own:
			return i, true, nil
		}
	}
	if free < 0 {
		return 0, false, fmt.Errorf("there are pulses for %d carpdevs at most", ports.MaxEntries())
	}
	return uint32(free), false, nil
}

// leaveNode takes a carpdev that goes out of the node's maps, if there are any.
func leaveNode(dir string, vhids *ebpf.Map) error {
	ports, err := ebpf.LoadPinnedMap(filepath.Join(dir, xdpMapPulsePorts), nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open map %s: %w", xdpMapPulsePorts, err)
	}
	defer ports.Close()
	slot, taken, err := slotOf(ports, vhids)
	if err != nil || !taken {
		return err
	}
	groups, err := ebpf.LoadPinnedMap(filepath.Join(dir, xdpMapPulseGroups), nil)
	if err != nil {
		return fmt.Errorf("open map %s: %w", xdpMapPulseGroups, err)
	}
	defer groups.Close()
	var gone []uint32
	var group uint32
	var g xdpPulseGroup
	it := groups.Iterate()
	for it.Next(&group, &g) {
		if g.Slot == slot {
			gone = append(gone, group)
		}
	}
	errs := []error{it.Err()}
	for _, group := range gone {
		errs = append(errs, remove(groups, group))
	}
	return errors.Join(append(errs, remove(ports, slot))...)
}

// remove deletes the key; it may be gone already.
func remove(m *ebpf.Map, key uint32) error {
	err := m.Delete(key)
	if err == nil || errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return fmt.Errorf("remove %d from map %s: %w", key, m, err)
}

// detachNode takes the sync devices' programs and the node's maps off the box: all of
// them, but for the folder to keep.
func detachNode(pinDir, keep string) (removed []string, err error) {
	root, err := findRoot(pinDir)
	if root == "" {
		return nil, err
	}
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		if !strings.HasPrefix(e.Name(), nodePrefix) || dir == keep {
			continue
		}
		r, err := detachNodeDir(dir)
		removed = append(removed, r...)
		if err != nil {
			return removed, err
		}
	}
	_ = os.Remove(root) // stays while a carpdev is pinned there
	return removed, nil
}

// dropNode removes the node's maps if no device is pinned beside them.
func dropNode(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	ports, err := portDirs(filepath.Dir(dir))
	if err != nil || len(ports) > 0 || slices.ContainsFunc(entries, os.DirEntry.IsDir) {
		return err
	}
	if _, err := detachNodeDir(dir); err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(dir))
	return nil
}

func detachNodeDir(dir string) (removed []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	// The devices first: their programs use the maps.
	slices.SortStableFunc(entries, func(a, b os.DirEntry) int {
		switch {
		case a.IsDir() == b.IsDir():
			return 0
		case a.IsDir():
			return -1
		}
		return 1
	})
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			r, err := detachPort(path)
			removed = append(removed, r...)
			if err != nil {
				return removed, fmt.Errorf("detach %s: %w", unescape.Replace(e.Name()), err)
			}
			continue
		}
		if err := os.Remove(path); err != nil {
			return removed, fmt.Errorf("remove pin: %w", err)
		}
		removed = append(removed, "node "+e.Name()+" map")
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return removed, fmt.Errorf("remove pin directory: %w", err)
	}
	return removed, nil
}
