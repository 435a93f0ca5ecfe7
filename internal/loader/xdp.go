package loader

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"go.uber.org/zap"
)

// attachXDP attaches XDP in the mode that was asked for, or gives an attached link
// the new program.
func (p *Port) attachXDP(o Options) error {
	path := p.dir + "/" + pinXDP
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open pinned link %s: %w", path, err)
	}
	if l != nil {
		mode, err := attachedMode(p.index)
		if err != nil {
			l.Close()
			return err
		}
		if mode != TC && (o.Mode == Auto || o.Mode == mode) {
			p.links = append(p.links, l)
			p.mode = mode
			return p.eachXDP(func(prog *ebpf.Program) error {
				if err := l.Update(prog); err != nil {
					return fmt.Errorf("replace xdp program: %w", err)
				}
				return nil
			})
		}
		if err := errors.Join(l.Detach(), l.Unpin(), l.Close()); err != nil {
			return fmt.Errorf("detach xdp to change its mode: %w", err)
		}
	}
	if p.mode = TC; o.Mode == TC {
		return nil
	}
	if err := foreignXDP(p.index); err != nil {
		if p.kit.yields && o.Mode == Auto {
			p.log.Info("tc ingress does what XDP would", zap.Error(err))
			return nil
		}
		return err
	}
	for _, try := range []struct {
		mode  Mode
		flags link.XDPAttachFlags
	}{{Native, link.XDPDriverMode}, {Generic, link.XDPGenericMode}} {
		if o.Mode != Auto && o.Mode != try.mode {
			continue
		}
		err := p.eachXDP(func(prog *ebpf.Program) error {
			l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: p.index, Flags: try.flags})
			if err != nil {
				return err
			}
			p.links = append(p.links, l)
			return l.Pin(path)
		})
		if err == nil {
			p.mode = try.mode
			return nil
		}
		err = fmt.Errorf("attach xdp, mode %s: %w", try.mode, err)
		if o.Mode != Auto || transient(err) {
			return err
		}
		p.log.Warn("xdp", zap.Error(err))
	}
	return nil
}

// eachXDP calls do with the plain program and, if that is refused (a driver whose
// buffers are smaller than its MTU), with the one for frames of several buffers.
// A kernel whose verifier refuses both gets those without cryptography.
func (p *Port) eachXDP(do func(*ebpf.Program) error) error {
	var errs []error
	for _, name := range p.kit.xdp {
		spec, err := p.kit.load()
		if err != nil {
			return err
		}
		prog, err := p.load(spec, name)
		if transient(err) {
			return err
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		err = do(prog)
		prog.Close()
		if err == nil {
			p.shield = Verify
			if name == xdpProgCarpXdpLight || name == xdpProgCarpXdpLightFrags {
				p.limited(errors.Join(errs...))
			}
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", name, err))
	}
	return errors.Join(errs...)
}

// attachedMode is the mode of the XDP program on the interface, TC for none.
func attachedMode(index int) (Mode, error) {
	dev, err := netlink.LinkByIndex(index)
	if err != nil {
		return "", err
	}
	x := dev.Attrs().Xdp
	switch {
	case x == nil || !x.Attached:
		return TC, nil
	case x.AttachMode == nl.XDP_ATTACHED_SKB:
		return Generic, nil
	}
	return Native, nil
}

// foreignXDP refuses an interface that already has an XDP program: not ours, or the
// link would have been pinned.
func foreignXDP(index int) error {
	dev, err := netlink.LinkByIndex(index)
	if err != nil {
		return err
	}
	x := dev.Attrs().Xdp
	if x == nil || !x.Attached {
		return nil
	}
	name := "?"
	if prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(x.ProgId)); err == nil {
		if info, err := prog.Info(); err == nil {
			name = info.Name
		}
		prog.Close()
	}
	return fmt.Errorf("another XDP program is attached: %q, id %d; stop its owner, or take it off with `ip link set dev %s xdp off`",
		name, x.ProgId, dev.Attrs().Name)
}

// AttachPass puts a program that passes everything onto the interface, so that
// XDP_TX at the far end of a veth is delivered at once. It stays until the
// interface goes or `ip link set dev … xdp off`.
func AttachPass(ifname string) error {
	dev, err := netlink.LinkByName(ifname)
	if err != nil {
		return fmt.Errorf("attach pass program to %q: %w", ifname, err)
	}
	var objs passObjects
	if err := loadPassObjects(&objs, nil); err != nil {
		return fmt.Errorf("load pass program: %w", err)
	}
	defer objs.Close()
	if err := netlink.LinkSetXdpFdWithFlags(dev, objs.Pass.FD(), nl.XDP_FLAGS_DRV_MODE); err != nil {
		return fmt.Errorf("attach pass program to %q: %w", ifname, err)
	}
	return nil
}
