package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/config"
	"github.com/xcarp/xcarp/internal/daemon"
)

func keyCommand(o *options) *cobra.Command {
	k := &keyFile{paths: &o.paths}
	cmd := &cobra.Command{
		Use:   "key",
		Short: "List, add, use and retire keys of the key_file",
		Long: `List the keys of the key_file by their ids. The first one signs adverts and opens
sync sessions, all are accepted. A key is replaced without a break when every
node accepts the new one before any uses it:

	xcarp key add          on one node; copy its key_file to the others, and there
	                       xcarp key reload
	xcarp key use ID       on every node
	xcarp key retire OLD   on every node

A running daemon takes up the change at once. Peers on the sync link say which keys
they have: use refuses a key that one of them lacks, retire one that it signs with.`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			keys, err := k.read(cmd)
			if err != nil {
				return err
			}
			return listKeys(cmd.OutOrStdout(), keys, asJSON)
		},
	}
	o.outputFlag(cmd)
	cmd.PersistentFlags().StringVar(&k.path, "key-file", "", "the file (default: that of the running daemon, or key_file of the configuration)")
	configFlag(cmd, &k.config, "the configuration that names it")
	var force bool
	change := func(use, short string, n cobra.PositionalArgs, do func(keys []config.Key, a []string) ([]config.Key, error)) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Args: n, RunE: func(cmd *cobra.Command, a []string) error {
			asJSON, err := o.json()
			if err != nil {
				return err
			}
			keys, err := k.read(cmd)
			if err != nil {
				return err
			}
			next, err := do(slices.Clone(keys), a)
			if err != nil {
				return err
			}
			if !slices.Equal(keys, next) {
				if err := k.agreed(cmd, keys, next, force); err != nil {
					return err
				}
				if err := k.write(next); err != nil {
					return err
				}
			}
			if err := listKeys(cmd.OutOrStdout(), next, asJSON); err != nil {
				return err
			}
			told := cmd.OutOrStdout()
			if asJSON {
				told = io.Discard
			}
			return k.tell(cmd.Context(), told)
		}}
		cmd.AddCommand(c)
		return c
	}
	const forced = "also when a peer is not ready for it, which then hears us no longer"
	change("add", "Make a key that is accepted and does not sign yet", cobra.NoArgs, addKey)
	change("use ID", "Sign with a key from now on", words(1, 1), useKey).Flags().BoolVar(&force, "force", false, forced)
	change("retire ID", "Accept a key no longer", words(1, 1), retireKey).Flags().BoolVar(&force, "force", false, forced)
	change("reload", "Let the daemon read a key_file that was copied here", cobra.NoArgs,
		func(keys []config.Key, _ []string) ([]config.Key, error) { return keys, nil })
	return cmd
}

// keyFile is the file that the commands change.
type keyFile struct {
	paths        *daemon.Paths
	path, config string
}

// read reads the file: the one that was named, or that of the configuration that
// was named, or that of the daemon.
func (k *keyFile) read(cmd *cobra.Command) ([]config.Key, error) {
	if k.path == "" && !cmd.Flags().Changed("config") {
		if s, err := daemon.GetStatus(cmd.Context(), k.paths.Run); err == nil {
			k.path = s.KeyFile
		}
	}
	if k.path == "" {
		cfg, err := config.Load(k.config, os.Getenv)
		if err != nil {
			return nil, err
		}
		if k.path = cfg.KeyFile; k.path == "" {
			return nil, fmt.Errorf("%s: no key_file: set it, or give --key-file", k.config)
		}
	}
	return config.ReadKeys(k.path)
}

// peersWait is how long a peer has to say that it is ready for a change: it may have
// been told a moment ago.
const peersWait = 3 * time.Second

// agreed holds a change against what the peers say of their keys. A peer that says
// nothing is warned of.
func (k *keyFile) agreed(cmd *cobra.Command, old, next []config.Key, force bool) error {
	for deadline := time.Now().Add(peersWait); ; {
		s, err := daemon.GetStatus(cmd.Context(), k.paths.Run)
		if errors.Is(err, daemon.ErrNoDaemon) {
			return nil // tell says so
		}
		if err != nil && !force {
			return fmt.Errorf("whether the peers are ready is not known: %w: give --force to go on without", err)
		}
		if err != nil {
			return nil
		}
		unready := notReady(s.Sync, old, next)
		if len(unready) == 0 {
			for _, p := range s.Sync {
				if len(next) <= len(old) && (!p.Up || len(p.Keys) == 0) {
					fmt.Fprintf(cmd.ErrOrStderr(), "xcarp: warning: %s does not say which keys it has: see that it has %s\n", p.Peer, keyID(next[0]))
				}
			}
			return nil
		}
		switch {
		case force:
			fmt.Fprintf(cmd.ErrOrStderr(), "xcarp: warning: %v\n", unready[0])
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%w, or give --force", unready[0])
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		}
	}
}

// notReady says of each peer that is heard why a change would cut it off.
func notReady(peers []daemon.SyncStatus, old, next []config.Key) (all []error) {
	for _, p := range peers {
		switch {
		case !p.Up || len(p.Keys) == 0: // nobody knows
		case keyID(next[0]) != keyID(old[0]) && !slices.Contains(p.Keys, keyID(next[0])):
			all = append(all, fmt.Errorf("%s does not have key %s: copy the key_file there and run `xcarp key reload`", p.Peer, keyID(next[0])))
		case findKey(old, p.Keys[0]) >= 0 && findKey(next, p.Keys[0]) < 0:
			all = append(all, fmt.Errorf("%s still signs with key %s: run `xcarp key use %s` there", p.Peer, p.Keys[0], keyID(next[0])))
		}
	}
	return all
}

// write replaces the file in one step, with its owner and mode.
func (k *keyFile) write(keys []config.Key) error {
	var b bytes.Buffer
	for _, key := range keys {
		fmt.Fprintln(&b, key.Text())
	}
	var st unix.Stat_t
	if err := unix.Stat(k.path, &st); err != nil {
		return fmt.Errorf("key_file %s: %w", k.path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(k.path), ".key-*") // mode 0600
	if err != nil {
		return fmt.Errorf("replace key_file %s: %w", k.path, err)
	}
	defer os.Remove(f.Name()) // no longer there once it is renamed
	_, err = f.Write(b.Bytes())
	err = errors.Join(err, f.Chown(int(st.Uid), int(st.Gid)), f.Chmod(os.FileMode(st.Mode&0o777)), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), k.path)
	}
	if err != nil {
		return fmt.Errorf("replace key_file %s: %w", k.path, err)
	}
	return nil
}

// tell lets the daemon read the file again, if one runs.
func (k *keyFile) tell(ctx context.Context, w io.Writer) error {
	switch err := daemon.ReloadKeys(ctx, k.paths.Run); {
	case errors.Is(err, daemon.ErrNoDaemon):
		_, err := fmt.Fprintln(w, "no daemon runs here: the next one takes up the keys")
		return err
	case err != nil:
		return fmt.Errorf("the key_file is written, but the daemon goes on with its keys: %w", err)
	}
	_, err := fmt.Fprintln(w, "the daemon has taken up the keys")
	return err
}

func addKey(keys []config.Key, _ []string) ([]config.Key, error) {
	for range 100 { // an id is one byte
		k, err := config.ParseKeys([]byte(config.GenerateKey()))
		if err != nil {
			return nil, err
		}
		if findKey(keys, keyID(k[0])) < 0 {
			return append(keys, k[0]), nil
		}
	}
	return nil, errors.New("too many keys: retire some")
}

func useKey(keys []config.Key, a []string) ([]config.Key, error) {
	i := findKey(keys, a[0])
	if i < 0 {
		return nil, noKey(keys, a[0])
	}
	k := keys[i]
	return slices.Insert(slices.Delete(keys, i, i+1), 0, k), nil
}

func retireKey(keys []config.Key, a []string) ([]config.Key, error) {
	switch i := findKey(keys, a[0]); {
	case i < 0:
		return nil, noKey(keys, a[0])
	case i == 0:
		return nil, fmt.Errorf("key %s signs: `xcarp key use` another one first", a[0])
	default:
		return slices.Delete(keys, i, i+1), nil
	}
}

func findKey(keys []config.Key, id string) int {
	return slices.IndexFunc(keys, func(k config.Key) bool { return keyID(k) == strings.ToLower(id) })
}

// keyID is how a key is called.
func keyID(k config.Key) string { return fmt.Sprintf("%02x", k.ID()) }

func noKey(keys []config.Key, id string) error {
	var ids []string
	for _, k := range keys {
		ids = append(ids, keyID(k))
	}
	return fmt.Errorf("no key %s: known by id: %s", id, strings.Join(ids, ", "))
}

func listKeys(w io.Writer, keys []config.Key, asJSON bool) error {
	type row struct {
		ID    string `json:"id"`
		Signs bool   `json:"signs"`
	}
	var rows []row
	for i, k := range keys {
		rows = append(rows, row{keyID(k), i == 0})
	}
	if asJSON {
		return json.NewEncoder(w).Encode(rows)
	}
	for _, r := range rows {
		what := "accepted"
		if r.Signs {
			what = "signs, accepted"
		}
		if _, err := fmt.Fprintf(w, "%s  %s\n", r.ID, what); err != nil {
			return err
		}
	}
	return nil
}
