package lab

import (
	"fmt"
	"slices"
	"strings"
)

// Systems lists everything that can be measured, in the order of tables. xcarp
// is the program of that name; the others are found where packages put them.
func Systems(xcarp string) []System {
	return []System{
		XCarpProfile(xcarp, "fast"),
		XCarpProfile(xcarp, "default"),
		XCarpProfile(xcarp, "classic"),
		Keepalived("10ms", false),
		Keepalived("100ms", false),
		Keepalived("1s", false),
		Keepalived("10ms", true),
		FRR(),
		UCARPPair("skew4"),
		UCARPPair("1s"),
	}
}

// DemoSystems lists what the demo can show: each with the timers that it has by
// itself, an advert a second; FRR's are always what they are.
func DemoSystems(xcarp string, sync bool) []System {
	return []System{XCarp(xcarp, sync), Keepalived("1s", true), Keepalived("1s", false), FRR(), UCARPPair("1s")}
}

// SystemNames are the names of all systems, each once.
func SystemNames() []string {
	var names []string
	for _, s := range Systems("") {
		if !slices.Contains(names, s.Name) {
			names = append(names, s.Name)
		}
	}
	return names
}

// Select picks systems by name and profile; none given means all. A profile
// picks among the systems that have it; a system none of whose profiles is named
// keeps them all. What is not installed is left out, with a line that says so,
// unless it was asked for by name.
func Select(all []System, names, profiles []string) (chosen []System, absent []string, err error) {
	known, has := map[string]bool{}, map[string]bool{} // has: systems that have one of the profiles
	for _, s := range all {
		known["system "+s.Name], known["profile "+s.Profile] = true, true
		if slices.Contains(profiles, s.Profile) {
			has[s.Name] = true
		}
	}
	for _, n := range names {
		if !known["system "+n] {
			return nil, nil, fmt.Errorf("system %q is unknown, there are %s", n, strings.Join(SystemNames(), ", "))
		}
	}
	for _, p := range profiles {
		if !known["profile "+p] {
			return nil, nil, fmt.Errorf("no system has a profile %q", p)
		}
	}
	for _, s := range all {
		if len(names) > 0 && !slices.Contains(names, s.Name) || has[s.Name] && !slices.Contains(profiles, s.Profile) {
			continue
		}
		if err := s.Check(); err != nil {
			absent = append(absent, fmt.Sprintf("%s: %v", s.Label(), err))
			continue
		}
		chosen = append(chosen, s)
	}
	if len(chosen) == 0 {
		return nil, absent, fmt.Errorf("none of these systems can be measured: %s", strings.Join(absent, "; "))
	}
	return chosen, absent, nil
}
