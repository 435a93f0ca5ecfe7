package config

import "time"

// Hook is a program that is told of every change of state.
type Hook struct {
	Name    string
	Command []string      // the first is an absolute path
	User    string        // it runs as
	On      []string      // the states entered that it is told of
	Groups  []string      // sorted; of which it is told
	Timeout time.Duration // of one run
	Retries int           // how often it is run again after a failure
}

// states are those that a hook can be told of, as `xcarp show` prints them.
var states = []string{"MASTER", "BACKUP", "INIT", "DRAIN"}

const hookExample = "hooks: {dns: {command: [/usr/local/sbin/move-dns]}}"

// hooks reads the section of that name, in the order of the file, which is the
// order in which the hooks run.
func (r *reader) hooks(c *Config, e entry) {
	if !r.want(e, mapping, hookExample) {
		return
	}
	for _, h := range r.mapping(e.value) {
		if r.name("hook", h.key) {
			c.Hooks = append(c.Hooks, r.hook(c, h))
		}
	}
}

func (r *reader) hook(c *Config, e entry) Hook {
	h := Hook{Name: e.key.text, User: nobody, On: []string{"MASTER", "BACKUP"}, Groups: groupNames(c), Timeout: 10 * time.Second}
	if e.value.kind != mapping {
		r.failf(e.value, "write "+hookExample, "hook %q must be a mapping, not %s", h.Name, e.value.what())
		return h
	}
	place := "hooks/" + h.Name
	r.places[place] = e.key
	keys := r.section(e.value, hookSection)
	if k, ok := keys["command"]; ok {
		h.Command = r.argv(k)
		r.places[place+"/check"], r.places[place+"/user"] = k.value, k.value
	} else if !misspelt(e.value, hookSection, "command") {
		r.failf(e.key, "add command: [/usr/local/sbin/move-dns]", "hook %q has no command", h.Name)
	}
	if k, ok := keys["user"]; ok {
		h.User = r.userName(k, place)
	}
	if k, ok := keys["on"]; ok && r.want(k, list, "[MASTER, BACKUP]") {
		h.On = nil
		for _, n := range k.value.items {
			h.On = append(h.On, r.word(entry{k.key, n}, states...))
		}
		if len(h.On) == 0 {
			r.failf(k.value, "write [MASTER, BACKUP]", "on is empty")
		}
	}
	if k, ok := keys["groups"]; ok {
		h.Groups = r.someGroups(c, k)
	}
	if k, ok := keys["timeout"]; ok {
		if d, ok := r.duration(k, 100*time.Millisecond, 10*time.Minute); ok {
			h.Timeout = d
		}
	}
	if k, ok := keys["retries"]; ok {
		if n, ok := r.number(k, 0, 10, ""); ok {
			h.Retries = int(n)
		}
	}
	return h
}
