package loader

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// filterPriority and filterHandle are how our clsact filters are found again.
const (
	filterPriority = 1
	filterHandle   = 0xca47
)

// hook is one of the two places of tc.
type hook struct {
	pin    string
	prog   string
	light  string // without cryptography
	load   func() (*ebpf.CollectionSpec, error)
	attach ebpf.AttachType
	anchor link.Anchor
	parent uint32
}

// Both are the first to see a frame: a program or filter of somebody else that lets
// a frame go would end the walk before a fence that comes later. So what others
// rewrite on egress is theirs to answer for.
var hooks = []hook{
	{pinEgress, egressProgCarpEgress, "", loadEgress, ebpf.AttachTCXEgress, link.Head(), netlink.HANDLE_MIN_EGRESS},
	{pinIngress, ingressProgCarpIngress, ingressProgCarpIngressLight, loadIngress, ebpf.AttachTCXIngress, link.Head(), netlink.HANDLE_MIN_INGRESS},
}

// attachTC attaches the fence and the ingress program by tcx links where the kernel
// has them (6.6), else by filters of a clsact qdisc.
func (p *Port) attachTC(o Options) error {
	p.shield = Verify
	for _, h := range p.kit.hooks {
		spec, err := h.load()
		if err != nil {
			return err
		}
		prog, err := p.load(spec, h.prog)
		if err != nil && h.light != "" && !transient(err) {
			p.log.Warn("this kernel refuses to check digests in tc: adverts are limited in number only", zap.Error(err))
			prog, err = p.loadLight(h)
		}
		if err != nil {
			return err
		}
		err = p.attachHook(h, prog, o.clsact)
		prog.Close()
		if err != nil {
			return fmt.Errorf("attach %s to tc: %w", h.pin, err)
		}
	}
	return nil
}

// transient reports whether an error is about the moment and not about what the kernel
// can: less than what it can would be for good.
func transient(err error) bool {
	for _, of := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EAGAIN, unix.EINTR} {
		if errors.Is(err, of) {
			return true
		}
	}
	return false
}

// loadLight loads what a kernel gets that refuses the whole program.
func (p *Port) loadLight(h hook) (*ebpf.Program, error) {
	spec, err := h.load()
	if err != nil {
		return nil, err
	}
	p.shield = Limit
	return p.load(spec, h.light)
}

func (p *Port) attachHook(h hook, prog *ebpf.Program, clsact bool) error {
	path := p.dir + "/" + h.pin
	l, err := link.LoadPinnedLink(path, nil)
	if err == nil {
		p.links = append(p.links, l)
		return l.Update(prog)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open pinned link: %w", err)
	}
	if clsact {
		return p.attachFilter(h, prog)
	}
	l, err = link.AttachTCX(link.TCXOptions{Interface: p.index, Program: prog, Attach: h.attach, Anchor: h.anchor})
	if errors.Is(err, link.ErrNotSupported) {
		return p.attachFilter(h, prog)
	}
	if err != nil {
		return err
	}
	p.links = append(p.links, l)
	return l.Pin(path)
}

// attachFilter adds or replaces our filter of a clsact qdisc.
func (p *Port) attachFilter(h hook, prog *ebpf.Program) error {
	err := p.nl.QdiscAdd(clsactOf(p.index))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact qdisc: %w", err)
	}
	err = p.nl.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: p.index,
			Parent:    h.parent,
			Handle:    filterHandle,
			Protocol:  unix.ETH_P_ALL,
			Priority:  filterPriority,
		},
		Fd:           prog.FD(),
		Name:         h.prog,
		DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("add filter: %w", err)
	}
	return nil
}

// hasFilter reports whether our filter is attached to the hook by clsact.
func hasFilter(nl *netlink.Handle, index int, pin string) bool {
	for _, h := range hooks {
		if h.pin != pin {
			continue
		}
		filters, err := nl.FilterList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, h.parent)
		return err == nil && slices.ContainsFunc(filters, isOurs)
	}
	return false
}

func isOurs(f netlink.Filter) bool {
	b, ok := f.(*netlink.BpfFilter)
	return ok && b.Priority == filterPriority && b.Handle == filterHandle
}

func clsactOf(index int) netlink.Qdisc {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
}

// removeFilters takes our clsact filters off, and the qdisc when it is left empty.
func removeFilters(nl *netlink.Handle, dev netlink.Link) (removed []string, err error) {
	qdiscs, err := nl.QdiscList(dev)
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	clsact := false
	for _, q := range qdiscs {
		clsact = clsact || q.Type() == "clsact"
	}
	if !clsact {
		return nil, nil
	}
	others := 0
	for _, h := range hooks {
		filters, err := nl.FilterList(dev, h.parent)
		if err != nil {
			return removed, fmt.Errorf("list filters: %w", err)
		}
		for _, f := range filters {
			if !isOurs(f) {
				others++
				continue
			}
			if err := nl.FilterDel(f); err != nil {
				return removed, fmt.Errorf("remove filter: %w", err)
			}
			removed = append(removed, dev.Attrs().Name+" "+h.pin+" filter")
		}
	}
	if len(removed) > 0 && others == 0 {
		if err := nl.QdiscDel(clsactOf(dev.Attrs().Index)); err != nil {
			return removed, fmt.Errorf("remove clsact qdisc: %w", err)
		}
	}
	return removed, nil
}
