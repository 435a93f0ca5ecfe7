package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxText is far more than a configuration needs, in bytes.
const maxText = 256 << 10

// Load reads the configuration in path and the files with secrets that it
// names. The error joins a *Problem for everything that was found; see Problems.
// env looks up a variable of the environment; nil means os.Getenv.
func Load(path string, env func(string) string) (*Config, error) {
	if env == nil {
		env = os.Getenv
	}
	text, mode, err := readText(path)
	if err != nil {
		return nil, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("read the host name: %w", err)
	}
	r := &reader{
		source:   &source{path: path, text: string(text), places: map[string]*node{}},
		env:      env,
		hostname: hostname,
	}
	c := r.read()
	if r.inline != nil && mode&0o077 != 0 {
		r.failf(r.inline, fmt.Sprintf("chmod 600 %s, or use pass_file", path),
			"a password in a file that others can read (mode %04o)", mode)
	}
	r.readSecrets(c)
	if len(r.problems) > 0 {
		return nil, join(r.problems)
	}
	c.Warnings = r.warnings
	c.Hash = c.hash()
	return c, nil
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
		return refuse("no such file", "write one; docs/example.yaml is a commented one")
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
	c := &Config{Path: r.path, XDP: XDPAuto, Log: Log{Level: "info"}, problem: r.source.at}
	top, err := parse([]byte(r.text))
	var se *syntax
	switch {
	case errors.As(err, &se):
		r.fail(&node{line: se.line, column: se.column, width: 1}, se.message, se.fix)
		return c
	case top == nil || top.kind == nothing && top.text == "":
		r.fail(nil, "is empty", "write a configuration; docs/example.yaml is a commented one")
		return c
	case top.kind != mapping:
		r.failf(top, "write key: value", "a configuration must be a mapping, not %s", top.what())
		return c
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
	c.Split = r.split(keys, SplitHold)
	c.Auth, c.Trailer = r.auth(keys, AuthCompat), r.trailer(keys, r.keyFile != nil)
	var skew *uint8
	if k, ok := keys["advskew"]; ok {
		n := r.skews(k, c.Node)
		skew = &n
	}
	if k, ok := keys["groups"]; ok {
		r.groups(c, k, skew)
	} else if !misspelt(top, root, "groups") {
		r.fail(nil, "no groups", "add groups: {name: {vhid: 1, carpdev: eth0, addresses: [10.0.0.1/24]}}")
	}
	if k, ok := keys["bundle"]; ok {
		r.bundles(c, k)
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
		b, err := readSecret(path)
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
