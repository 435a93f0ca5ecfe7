package loader

import (
	"strings"

	"github.com/cilium/ebpf"
)

// kit is what a device gets.
type kit struct {
	load  func() (*ebpf.CollectionSpec, error) // the object of the XDP programs, which has all maps
	xdp   []string                             // programs, the best one first
	hooks []hook
	links []string // the names of pinned links, in the order in which they are taken off

	// Where somebody else's XDP program is attached tc ingress will do.
	yields bool
}

// A carpdev's fence is taken off last.
var carpdev = &kit{
	load:  loadXdp,
	xdp:   []string{xdpProgCarpXdp, xdpProgCarpXdpFrags, xdpProgCarpXdpLight, xdpProgCarpXdpLightFrags},
	hooks: hooks,
	links: []string{pinXDP, pinIngress, pinEgress},
}

// mapSpecs are the maps of a device as this build wants them, without those of the
// node.
func (k *kit) mapSpecs() (map[string]*ebpf.MapSpec, error) {
	return specs(k.load, false)
}

// nodeSpecs are the maps that all devices of a node have in common.
func nodeSpecs() (map[string]*ebpf.MapSpec, error) { return specs(loadXdp, true) }

func specs(load func() (*ebpf.CollectionSpec, error), node bool) (map[string]*ebpf.MapSpec, error) {
	spec, err := load()
	if err != nil {
		return nil, err
	}
	some := map[string]*ebpf.MapSpec{}
	for name, m := range spec.Maps {
		if strings.HasPrefix(name, "pulse_") == node {
			some[name] = m
		}
	}
	return some, nil
}
