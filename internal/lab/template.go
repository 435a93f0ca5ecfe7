package lab

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
)

// systemFiles are the configurations of all systems: templates over setting.
//
//go:embed systems
var systemFiles embed.FS

// setting is what the configuration of one router of one system may say.
type setting struct {
	Node, Dir         string
	SyncOwn, SyncPeer string

	// xcarp
	Sync             bool
	Detect           string
	Classic          bool
	AdvBase, AdvSkew int

	Own map[string]string // address by interface

	// VRRP
	State      string
	Priority   int
	Version    int
	Interval   string // s
	RealTime   bool
	Conntrackd bool
}

// settingOf is what all systems say of a router.
func settingOf(r *Node) setting {
	s := setting{Node: r.Name, Dir: r.Dir, SyncOwn: "172.30.0.1", SyncPeer: "172.30.0.2", State: "MASTER", Priority: 200}
	if r == r.lab.B {
		s.SyncOwn, s.SyncPeer, s.State, s.Priority = s.SyncPeer, s.SyncOwn, "BACKUP", 100
	}
	return s
}

// write renders configurations into the router's directory.
func (s setting) write(files ...string) error {
	for _, f := range files {
		t, err := template.ParseFS(systemFiles, "systems/"+f)
		if err != nil {
			return fmt.Errorf("read the template %s: %w", f, err)
		}
		var b bytes.Buffer
		if err := t.Execute(&b, s); err != nil {
			return fmt.Errorf("fill in the template %s: %w", f, err)
		}
		mode := os.FileMode(0o600)
		if filepath.Ext(f) == ".sh" {
			mode = 0o700
		}
		if err := os.WriteFile(filepath.Join(s.Dir, f), b.Bytes(), mode); err != nil {
			return fmt.Errorf("write %s of %s: %w", f, s.Node, err)
		}
	}
	return nil
}
