package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"github.com/lode-node/lode/node"
)

// nodeKey is the name of the home's own key: a node is an account too (spec §1.2).
const nodeKey = "node"

// keyName is what a key may be called: it becomes a file name.
var keyName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

type keyInfo struct {
	Name    string `json:"name"`
	Account string `json:"account"`
	File    string `json:"file"`
}

// keyFile returns where the key called name is kept in home.
func keyFile(home, name string) (string, error) {
	if name == nodeKey {
		return filepath.Join(home, "key"), nil
	}
	if !keyName.MatchString(name) {
		return "", usage("key name %q: want letters, digits, dots, dashes and underscores, at most 64", name)
	}
	return filepath.Join(home, "keys", name), nil
}

// loadKey returns the key called name.
func loadKey(home, name string) (crypto.PrivKey, error) {
	path, err := keyFile(home, name)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if name == nodeKey {
			return nil, notFound("no node key in %s: make the home with `lode init --home %s`", home, home)
		}
		return nil, notFound("no key called %q in %s: make it with `lode key new %s`, or see `lode key list`", name, home, name)
	}
	return node.LoadKey(path)
}

// infoOf describes the key called name.
func infoOf(home, name string) (keyInfo, error) {
	key, err := loadKey(home, name)
	if err != nil {
		return keyInfo{}, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return keyInfo{}, err
	}
	path, err := keyFile(home, name)
	return keyInfo{Name: name, Account: id.String(), File: path}, err
}

// keyNames lists the users' keys of home in order of name.
func keyNames(home string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(home, "keys"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if keyName.MatchString(e.Name()) && e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// signer returns the key that signs: the named one, else the home's only user key, else the node's own.
func (c *cli) signer(from string) (crypto.PrivKey, string, error) {
	home, err := c.homeDir()
	if err != nil {
		return nil, "", err
	}
	if from == "" {
		names, err := keyNames(home)
		if err != nil {
			return nil, "", err
		}
		switch len(names) {
		case 0:
			from = nodeKey
			if _, err := os.Stat(filepath.Join(home, "key")); errors.Is(err, fs.ErrNotExist) {
				return nil, "", notFound("no key in %s: make one with `lode key new NAME --home %s`", home, home)
			}
		case 1:
			from = names[0]
		default:
			return nil, "", usage("%s holds the keys %s: say which one signs with --from", home, strings.Join(names, ", "))
		}
	}
	key, err := loadKey(home, from)
	return key, from, err
}

func (c *cli) keyCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "key", Short: "make, show and carry keys; a key is an account"})
	cmd.AddCommand(
		&cobra.Command{Use: "new NAME", Short: "make a key", Args: nargs(1, 1), RunE: func(_ *cobra.Command, args []string) error {
			home, path, err := c.keyTarget(args[0])
			if err != nil {
				return err
			}
			if _, err := node.NewKey(path); err != nil {
				return err
			}
			return c.showKey(home, args[0])
		}},
		&cobra.Command{Use: "show [NAME]", Short: "show the account of a key (default: the one that signs)", Args: nargs(0, 1), RunE: func(_ *cobra.Command, args []string) error {
			home, err := c.homeDir()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return c.showKey(home, args[0])
			}
			_, name, err := c.signer("")
			if err != nil {
				return err
			}
			return c.showKey(home, name)
		}},
		&cobra.Command{Use: "list", Short: "list the keys of a home", Args: nargs(0, 0), RunE: func(*cobra.Command, []string) error { return c.listKeys() }},
		&cobra.Command{Use: "import NAME FILE", Short: "take in a key that `lode key export` wrote", Args: nargs(2, 2), RunE: func(_ *cobra.Command, args []string) error {
			home, path, err := c.keyTarget(args[0])
			if err != nil {
				return err
			}
			if _, err := os.Stat(args[1]); err != nil {
				return err // LoadKey would speak of a home
			}
			key, err := node.LoadKey(args[1])
			if err != nil {
				return err
			}
			if _, err := os.Lstat(path); err == nil {
				return usage("import key: %s exists; a key is never overwritten", path)
			}
			if err := node.SaveKey(path, key); err != nil {
				return err
			}
			return c.showKey(home, args[0])
		}},
		&cobra.Command{Use: "export NAME FILE", Short: "write a key to a file of mode 0600; who has it has the money", Args: nargs(2, 2), RunE: func(_ *cobra.Command, args []string) error {
			home, err := c.homeDir()
			if err != nil {
				return err
			}
			key, err := loadKey(home, args[0])
			if err != nil {
				return err
			}
			if _, err := os.Lstat(args[1]); err == nil {
				return usage("export key: %s exists; nothing is overwritten", args[1])
			}
			if err := node.SaveKey(args[1], key); err != nil {
				return err
			}
			c.say("key %s written to %s; keep it secret", args[0], args[1])
			return nil
		}},
	)
	return cmd
}

// keyTarget returns where a new key goes. The node's own key is made by init, so that nobody swaps a node's identity by typo.
func (c *cli) keyTarget(name string) (home, path string, err error) {
	if name == nodeKey {
		return "", "", usage("%q is the name of a home's own key: `lode init` makes it", nodeKey)
	}
	if home, err = c.homeDir(); err != nil {
		return "", "", err
	}
	path, err = keyFile(home, name)
	return home, path, err
}

func (c *cli) showKey(home, name string) error {
	k, err := infoOf(home, name)
	if err != nil {
		return err
	}
	return c.show(k, func(w io.Writer) { fields(w, "name", k.Name, "account", k.Account, "file", k.File) })
}

func (c *cli) listKeys() error {
	home, err := c.homeDir()
	if err != nil {
		return err
	}
	names, err := keyNames(home)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(home, "key")); err == nil {
		names = append([]string{nodeKey}, names...)
	}
	keys := []keyInfo{}
	for _, n := range names {
		k, err := infoOf(home, n)
		if err != nil {
			return err
		}
		keys = append(keys, k)
	}
	return c.show(keys, func(w io.Writer) {
		if len(keys) == 0 {
			c.say("no keys in %s: make one with `lode key new NAME`", home)
			return
		}
		var t table
		t.row("NAME", "ACCOUNT")
		for _, k := range keys {
			t.row(k.Name, k.Account)
		}
		t.print(w)
	})
}
