package daemon

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"

	"go.uber.org/zap"

	"github.com/xcarp/xcarp/internal/carp"
	"github.com/xcarp/xcarp/internal/config"
)

// digestKey is the key of the group's CARP digest.
func digestKey(secret config.Key, g *config.Group) *carp.Key {
	addrs := make([]netip.Addr, len(g.Addresses))
	for i, p := range g.Addresses {
		addrs[i] = p.Addr()
	}
	variant := carp.OpenBSD
	if g.HMAC == config.HMACFreeBSD {
		variant = carp.FreeBSD
	}
	return carp.NewKey(groupPassword(secret, g), g.VHID, addrs, variant, g.LLAddr...)
}

func groupPassword(key config.Key, g *config.Group) string {
	if g.FromKey {
		return carp.DerivePassword(key, g.VHID)
	}
	return string(g.Password)
}

// trailerKeys derives the group's keys from those of the node.
func trailerKeys(keys []config.Key, g *config.Group) []*carp.TrailerKey {
	var all []*carp.TrailerKey
	for _, k := range keys {
		all = append(all, carp.NewTrailerKey(k, g.Name, g.VHID))
	}
	return all
}

// syncKeys derives those of the sync link.
func syncKeys(keys []config.Key) ([][32]byte, error) {
	var all [][32]byte
	for _, k := range keys {
		b, err := hkdf.Key(sha256.New, k[:], nil, "sync", 32)
		if err != nil {
			return nil, fmt.Errorf("derive the key of the sync link: %w", err)
		}
		all = append(all, [32]byte(b))
	}
	return all, nil
}

// reloadKeys reads the key_file again and puts its keys to use: nothing else
// changes, and nobody notices as long as every node accepts what the others sign
// with.
func (d *Daemon) reloadKeys() error {
	if d.cfg.KeyFile == "" {
		return nil
	}
	d.change.Lock() // or a group that enters meanwhile would keep the keys of before
	defer d.change.Unlock()
	keys, err := config.ReadKeys(d.cfg.KeyFile)
	if err != nil {
		return err
	}
	forSync, err := syncKeys(keys)
	if err != nil {
		return err
	}
	if d.mirror != nil {
		d.mirror.SetKeys(forSync)
		d.mirror.SetKeyIDs(idsOf(keys))
	}
	for _, m := range d.members() {
		var digest *carp.Key
		if m.cfg.FromKey {
			digest = digestKey(keys[0], m.cfg)
		}
		trailer := trailerKeys(keys, m.cfg)
		m.group.SetKeys(trailer, digest)
		if err := d.setShield(m, digestKey(keys[0], m.cfg), trailer); err != nil {
			return err
		}
		m.clues.setPassword(groupPassword(keys[0], m.cfg), idsOf(keys))
	}
	d.mu.Lock()
	d.keys, d.keyIDs = keys, keyIDs(keys)
	d.mu.Unlock()
	d.log.Info("keys", zap.Strings("accepted", keyIDs(keys)), zap.String("signing", keyIDs(keys)[0]))
	return nil
}

// ReloadKeys is what the control API does for `xcarp key`. It returns the ids of
// the keys that are in use now, the signing one first.
func (d *Daemon) ReloadKeys() ([]string, error) {
	if d.cfg.KeyFile == "" {
		return nil, errors.New("the running configuration has no key_file")
	}
	if err := d.reloadKeys(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keyIDs, nil
}

// keysNow returns the keys in use, the signing one first.
func (d *Daemon) keysNow() []config.Key {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keys
}

// signingKey is the first of them; zero without a key_file.
func (d *Daemon) signingKey() config.Key {
	if k := d.keysNow(); len(k) > 0 {
		return k[0]
	}
	return config.Key{}
}

func keyIDs(keys []config.Key) []string { return hexIDs(idsOf(keys)) }

func idsOf(keys []config.Key) (ids []byte) {
	for _, k := range keys {
		ids = append(ids, k.ID())
	}
	return ids
}

// hexIDs writes ids as `xcarp key` does.
func hexIDs(ids []byte) []string {
	all := make([]string, len(ids))
	for i, id := range ids {
		all[i] = fmt.Sprintf("%02x", id)
	}
	return all
}
