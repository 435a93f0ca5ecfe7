package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxText is far more than a configuration needs, in bytes.
const maxText = 256 << 10

// Load reads the configuration in path and the files with secrets that it
// names. The error joins a *Problem for everything that was found; see Problems.
// env looks up a variable of the environment; nil means os.Getenv.
func Load(path string, env func(string) string) (*Config, error) {
	return Source{Path: path, Env: env}.Load()
}

// Source is where a configuration comes from.
type Source struct {
	Path     string
	Optional bool                // a file that is not there says nothing
	Env      func(string) string // looks up a variable of the environment; nil: os.Getenv
	Lines    *Lines              // laid over what the file says; may be nil
}

// origin is what a Config was made of: its Source, and what was read of it.
type origin struct {
	Source
	text     string
	mode     uint32
	hostname string
	secrets  map[string][]byte // by path
	named    []string          // groups that the text has
}

// noSuchFile is the Message of a Problem with a file that does not exist.
const noSuchFile = "no such file"

// Load is Load of this Source.
func (s Source) Load() (*Config, error) {
	o, err := s.open()
	if err != nil {
		return nil, err
	}
	return o.load()
}

// Examine loads the Source and holds it against the machine: what Load and Check
// have to say, all at once, in the order of the text. A text with mistakes is held
// against the machine as far as it could be read, and the Config is nil. The
// warnings among the problems are those of the Config.
func (s Source) Examine(sys System) (*Config, []*Problem) {
	o, err := s.open()
	if err != nil {
		return nil, Problems(err)
	}
	c, problems := o.read()
	wrong := len(problems) > 0
	for _, p := range check(c, sys, wrong) {
		problems = append(problems, &p)
	}
	sortProblems(problems)
	if wrong {
		return nil, problems
	}
	c.Warnings = nil
	for _, p := range problems {
		if p.Warning {
			c.Warnings = append(c.Warnings, p)
		}
	}
	return c, problems
}

// open reads the file.
func (s Source) open() (*origin, error) {
	o := &origin{Source: s, secrets: map[string][]byte{}}
	if o.Env == nil {
		o.Env = os.Getenv
	}
	text, mode, err := readText(s.Path)
	var p *Problem
	if err != nil && (!s.Optional || !errors.As(err, &p) || p.Message != noSuchFile) {
		return nil, err
	}
	o.text, o.mode = string(text), mode
	if o.hostname, err = os.Hostname(); err != nil {
		return nil, fmt.Errorf("read the host name: %w", err)
	}
	return o, nil
}

// With makes the Config anew of what was read for this one, with other lines.
func (c *Config) With(l *Lines) (*Config, error) {
	o := *c.origin()
	o.Lines = l.Clone()
	return o.load()
}

// Source returns where the Config came from.
func (c *Config) Source() Source { return c.origin().Source }

// InFile reports whether the text itself has a group of that name.
func (c *Config) InFile(group string) bool { return slices.Contains(c.origin().named, group) }

func (o *origin) load() (*Config, error) {
	c, problems := o.read()
	if len(problems) > 0 {
		return nil, join(problems)
	}
	return c, nil
}

// read makes a Config of the text, and of the files with secrets that it names.
// With problems it is what could be read.
func (o *origin) read() (*Config, []*Problem) {
	r := &reader{
		source:   &source{path: o.Path, text: o.text, places: map[string]*node{}},
		env:      o.Env,
		hostname: o.hostname,
		lines:    o.Lines,
	}
	c := r.read()
	if r.inline != nil && o.mode&0o077 != 0 {
		r.failf(r.inline, fmt.Sprintf("chmod 600 %s, or use pass_file", o.Path),
			"a password in a file that others can read (mode %04o)", o.mode)
	}
	r.known = o.secrets
	r.readSecrets(c)
	o.named = r.named
	c.origin = func() *origin { return o }
	c.Warnings = r.warnings
	c.Hash = c.hash()
	return c, r.problems
}

// readText reads the file and its permission bits.
func readText(path string) ([]byte, uint32, error) {
	refuse := func(what, fix string) ([]byte, uint32, error) {
		return nil, 0, &Problem{File: path, Message: what, Fix: fix}
	}
	// Not blocking: a pipe in that place must not hold up the daemon.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return refuse(noSuchFile, "write one; docs/example.yaml is a commented one")
	case errors.Is(err, unix.EACCES):
		return refuse("permission denied", "run as root")
	case err != nil:
		return refuse(fmt.Sprintf("cannot be opened: %v", err), "name the configuration file")
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return refuse(fmt.Sprintf("cannot be examined: %v", err), "check the file system")
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return refuse("is a directory", "name the file in it: "+filepath.Join(path, "xcarp.yaml"))
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return refuse("is not a regular file", "name a file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxText+1))
	switch {
	case err != nil:
		return refuse(fmt.Sprintf("cannot be read: %v", err), "check the file system")
	case len(text) > maxText:
		return refuse(fmt.Sprintf("is larger than %d KiB", maxText>>10), "is this the right file?")
	}
	return text, st.Mode & 0o7777, nil
}

// read makes a Config of the text. It opens no files.
func (r *reader) read() *Config {
	c := &Config{
		Path: r.path, DSCP: defaultDSCP, SendErr: defaultFactor, IfDown: defaultFactor,
		XDP: XDPAuto, Log: Log{Level: "info"}, Ready: Ready{Settle: time.Second}, problem: r.source.at,
	}
	top, err := parse([]byte(r.text))
	var se *syntax
	switch {
	case errors.As(err, &se):
		r.fail(&node{line: se.line, column: se.column, width: 1}, se.message, se.fix)
		return c
	case top == nil || top.kind == nothing && top.text == "":
		top = &node{kind: mapping, line: 1, column: 1, width: 1} // all may come from lines
	case top.kind != mapping:
		r.failf(top, "write key: value", "a configuration must be a mapping, not %s", top.what())
		return c
	}
	r.named = namesIn(top)
	if !r.lines.Empty() {
		r.gone = map[string]bool{}
		top = r.edit(c, top, r.lines)
	}
	keys := r.section(top, root)

	if k, ok := keys["key_file"]; ok {
		r.keyFile = k.value
		if path, ok := r.file(k); ok {
			r.secrets = append(r.secrets, secretFile{key: "key_file", path: path, at: k.value})
		}
	}
	r.node(c, keys)
	if k, ok := keys["sync"]; ok {
		r.sync(c, k)
	}
	if k, ok := keys["preempt"]; ok {
		c.Preempt = r.truth(k)
	}
	r.delays(keys, &r.startupDelay, &r.preemptDelay)
	r.carp(c, keys)
	watch := DetectOff
	if c.Sync != nil {
		watch = DetectDefault
	}
	c.Split, c.Detect = r.split(keys, SplitHold), r.detect(c, keys, watch)
	c.Auth, c.Trailer = r.auth(keys, AuthCompat), r.trailer(keys, r.keyFile != nil)
	var skew *uint8
	if k, ok := keys["advskew"]; ok {
		n := r.skews(k, c.Node)
		skew = &n
	}
	if k, ok := keys["groups"]; ok {
		r.groups(c, k, skew)
	}
	if len(c.Groups)+len(c.Drafts) == 0 && len(r.problems) == 0 {
		r.warn(nil, "no groups", "this node shares nothing until xcarp ifconfig makes one, or groups: has one")
	}
	if l := r.lines.Group(SyncName); l != nil {
		r.lineSync(c, l)
	}
	if k, ok := keys["bundle"]; ok {
		r.bundles(c, k)
	}
	if k, ok := keys["track"]; ok {
		r.tracks(c, k)
	}
	if k, ok := keys["hooks"]; ok {
		r.hooks(c, k)
	}
	if k, ok := keys["ready"]; ok {
		r.ready(c, k)
	}
	if k, ok := keys["xdp"]; ok {
		c.XDP = XDP(r.word(k, string(XDPAuto), string(XDPNative), string(XDPGeneric)))
	}
	if k, ok := keys["metrics"]; ok && r.want(k, mapping, "metrics: {listen: 127.0.0.1:9112}") {
		if l, ok := r.section(k.value, metricsSection)["listen"]; ok {
			c.Metrics.Listen = r.listen(l)
		}
	}
	if k, ok := keys["log"]; ok && r.want(k, mapping, "log: {level: info}") {
		if l, ok := r.section(k.value, logSection)["level"]; ok {
			c.Log.Level = r.word(l, "info", "debug", "warn", "error")
		}
	}
	return c
}

// readSecrets reads the files that hold them.
func (r *reader) readSecrets(c *Config) {
	for _, s := range r.secrets {
		path := s.path
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(r.path), path)
		}
		b, err := r.readOnce(path)
		if err != nil {
			what, fix := err.Error(), ""
			var se *secretError
			if errors.As(err, &se) {
				what, fix = se.what, se.fix
			}
			if s.group != "" && strings.HasPrefix(fix, "make one") {
				fix = "write the password into it, mode 0600"
			}
			r.failf(s.at, fix, "%s %s %s", s.key, path, what)
			continue
		}
		if s.group == "" {
			if c.Keys, err = ParseKeys(b); err != nil {
				r.failf(s.at, "make one: (umask 077; xcarp keygen > "+path+")", "key_file %s %v", path, err)
				continue
			}
			c.Key, c.HasKey, c.KeyFile = c.Keys[0], true, path
			continue
		}
		pass := strings.TrimRight(string(b), "\r\n")
		switch {
		case pass == "":
			r.failf(s.at, "write the password into it", "pass_file %s is empty", path)
			continue
		case strings.ContainsAny(pass, "\r\n\x00"):
			r.failf(s.at, "write the password alone", "pass_file %s has more than one line", path)
			continue
		}
		r.checkLength(s.at, "the password in pass_file", len(pass))
		if g := c.Group(s.group); g != nil {
			g.Password = Secret(pass)
		}
	}
}

// readOnce reads a file with a secret, unless that was done for the Config before.
func (r *reader) readOnce(path string) ([]byte, error) {
	if b, ok := r.known[path]; ok {
		return b, nil
	}
	b, err := readSecret(path)
	if err == nil && r.known != nil {
		r.known[path] = b
	}
	return b, err
}

// namesIn lists the groups of the text, right or wrong.
func namesIn(top *node) []string {
	var names []string
	for _, e := range top.entries {
		if e.key.text != "groups" {
			continue
		}
		for _, g := range e.value.entries {
			names = append(names, g.key.text)
		}
	}
	return names
}
