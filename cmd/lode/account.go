package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"github.com/lode-node/lode/chain"
)

func (c *cli) accountCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "account", Short: "balances, and accounts of several keys of which some have to sign"})
	var need int
	join := &cobra.Command{
		Use: "threshold NAME KEY|ACCOUNT...", Short: "name the account of several keys; the chain need not be told",
		Long: `Name the account that --need of the keys can sign for: an owner of nodes or a treasury. Its members are keys of this home or
accounts of others. What is kept under HOME/accounts/NAME.json is no secret, and each member should keep a copy.

Sign with --from NAME. Where this home has too few of the keys, add --draft FILE, have the others add their signatures with
'lode account sign FILE --from KEY', and hand it in with 'lode account send FILE'.`,
		Args: nargs(3, chain.MaxKeys+1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.newThreshold(args[0], need, args[1:]) },
	}
	join.Flags().IntVar(&need, "need", 2, "how many have to sign")
	var from string
	sign := &cobra.Command{Use: "sign FILE", Short: "look at a draft and add a signature to it", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
		d, err := readDraft(args[0])
		if err != nil {
			return err
		}
		key, name, err := c.signer(from)
		if err != nil {
			return err
		}
		if err := d.Sign(key); err != nil {
			return err
		}
		if err := writeJSONFile(args[0], d); err != nil {
			return err
		}
		return c.showDraft(args[0], d, "signed as "+name)
	}}
	sign.Flags().StringVar(&from, "from", "", "key that signs (default: the only one under HOME/keys, else the node's own)")
	var replace txFlags
	send := &cobra.Command{Use: "send FILE", Short: "hand in a draft that enough keys have signed", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
		d, err := readDraft(args[0])
		if err != nil {
			return err
		}
		x, err := replace.pay()
		if err != nil {
			return err
		}
		ctx, cancel := c.within(cmd.Context(), blockTime)
		defer cancel()
		cl, err := c.client()
		if err != nil {
			return err
		}
		s, err := cl.submitDraft(ctx, d, x.replace)
		if err != nil {
			return err
		}
		return c.show(s, func(w io.Writer) {
			fields(w, "account", s.From, "height", s.Height, "fee", s.Fee, "transaction", s.Hash)
		})
	}}
	send.Flags().StringVar(&replace.replace, "replace", "", "hash of a transaction of the account that waits with the nonce of the draft, and gives way to it (see `lode tx pending`)")
	cmd.AddCommand(join, sign, send,
		&cobra.Command{Use: "show [ACCOUNT|NAME]", Short: "show a balance (default: of the signing key)", Args: nargs(0, 1), RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.accountOf(args)
			if err != nil {
				return err
			}
			return ask(c, cmd, "/accounts/"+id.String(), func(w io.Writer, a accountAnswer) {
				fields(w, "account", a.ID, "free", a.Free, "transactions", a.Nonce, "height", a.Height)
			})
		}},
		&cobra.Command{Use: "draft FILE", Short: "look at a draft", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
			d, err := readDraft(args[0])
			if err != nil {
				return err
			}
			return c.showDraft(args[0], d, "nothing changed")
		}},
	)
	return cmd
}

// accountFile is where the members of the account called name are kept.
func accountFile(home, name string) (string, error) {
	if !keyName.MatchString(name) {
		return "", usage("account name %q: want letters, digits, dots, dashes and underscores, at most 64", name)
	}
	return filepath.Join(home, "accounts", name+".json"), nil
}

// threshold returns the account of several keys called name, and whether there is one.
func (c *cli) threshold(name string) (t chain.Threshold, ok bool, err error) {
	if name == "" || !keyName.MatchString(name) {
		return t, false, nil
	}
	home, err := c.homeDir()
	if err != nil {
		return t, false, err
	}
	path, err := accountFile(home, name)
	if err != nil {
		return t, false, err
	}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, false, nil
	}
	if err == nil {
		if err = json.Unmarshal(raw, &t); err == nil {
			err = t.Check()
		}
	}
	if err != nil {
		return t, false, fmt.Errorf("account %s: %w", path, err)
	}
	return t, true, nil
}

// accountOf reads an account from an argument: its ID, or the name of a key or threshold of this home; without one, of the
// key that signs.
func (c *cli) accountOf(args []string) (peer.ID, error) {
	if len(args) == 0 {
		ids, err := c.nodesOf(nil, txFlags{})
		if err != nil {
			return "", err
		}
		return ids[0], nil
	}
	if id, err := peer.Decode(args[0]); err == nil {
		return id, nil
	}
	if t, ok, err := c.threshold(args[0]); err != nil || ok {
		return t.Account(), err
	}
	home, err := c.homeDir()
	if err != nil {
		return "", err
	}
	key, err := loadKey(home, args[0])
	if err != nil {
		return "", err
	}
	return peer.IDFromPrivateKey(key)
}

func (c *cli) newThreshold(name string, need int, members []string) error {
	home, err := c.homeDir()
	if err != nil {
		return err
	}
	path, err := accountFile(home, name)
	if err != nil {
		return err
	}
	for _, taken := range []string{path, filepath.Join(home, "keys", name)} {
		if _, err := os.Lstat(taken); err == nil || name == nodeKey {
			return usage("account %q: %s exists; nothing is overwritten", name, taken)
		}
	}
	var keys []peer.ID
	for _, m := range members {
		id, err := c.accountOf([]string{m})
		if err != nil {
			return err
		}
		keys = append(keys, id)
	}
	t, err := chain.NewThreshold(need, keys...)
	if err != nil {
		return usage("%v", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := writeJSONFile(path, t); err != nil {
		return err
	}
	out := map[string]any{"name": name, "account": t.Account().String(), "need": t.Need, "keys": t.Keys, "file": path}
	return c.show(out, func(w io.Writer) {
		fields(w, "name", name, "account", t.Account(), "signatures needed", fmt.Sprintf("%d of %d", t.Need, len(t.Keys)), "file", path)
	})
}

func writeJSONFile(path string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o600)
}

func readDraft(path string) (*chain.Draft, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d := new(chain.Draft)
	if err := json.Unmarshal(raw, d); err != nil {
		return nil, usage("draft %s: %v", path, err)
	}
	_, err = d.Decoded()
	return d, err
}

// showDraft prints what a draft says and who is missing.
func (c *cli) showDraft(path string, d *chain.Draft, did string) error {
	b, err := d.Decoded()
	if err != nil {
		return err
	}
	out := map[string]any{"file": path, "body": b, "missing": d.Missing()}
	return c.show(out, func(w io.Writer) {
		says, _ := json.Marshal(b.Msg) // it came out of CBOR: plain values
		fields(w, "draft", path, "account", b.Sender, "chain", b.ChainID, "nonce", b.Nonce, "most to pay", b.Fee, "bid", b.Bid, "says", string(says), "done", did, "signatures missing", d.Missing())
	})
}

// draft builds a transaction of an account of several keys, and signs it with those of them that this home has.
func (c *cli) draft(ctx ctxt, cl *client, t chain.Threshold, x pay, m chain.Msg) (*chain.Draft, error) {
	// What it costs depends on how many sign, not on who.
	sample := func(b chain.Body) ([]byte, error) {
		d, err := chain.NewDraft(t, b)
		if err != nil {
			return nil, err
		}
		for i := range t.Keys {
			d.Sigs[i] = make([]byte, 64)
		}
		return d.Tx()
	}
	b, err := cl.body(ctx, t.Account(), x, m, sample)
	if err != nil {
		return nil, err
	}
	d, err := chain.NewDraft(t, b)
	if err != nil {
		return nil, err
	}
	home, err := c.homeDir()
	if err != nil {
		return nil, err
	}
	names, err := keyNames(home)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		key, err := loadKey(home, name)
		if err != nil {
			return nil, err
		}
		if d.Missing() > 0 {
			_ = d.Sign(key) // one that is no member cannot, and need not
		}
	}
	return d, nil
}

// writeDraft is what a command does with --draft in place of submit.
func (c *cli) writeDraft(ctx ctxt, cl *client, f txFlags, m chain.Msg) error {
	t, ok, err := c.threshold(f.from)
	if err != nil {
		return err
	}
	if !ok {
		return usage("--draft: --from %q is no account of several keys: name one with `lode account threshold`", f.from)
	}
	x, err := f.pay()
	if err != nil {
		return err
	}
	d, err := c.draft(ctx, cl, t, x, m)
	if err != nil {
		return err
	}
	if err := writeJSONFile(f.draft, d); err != nil {
		return err
	}
	return c.showDraft(f.draft, d, "signed as far as this home can")
}

// submitDraft hands in d, in the place of replace if that is not empty, and waits for
// its block.
func (cl *client) submitDraft(ctx ctxt, d *chain.Draft, replace string) (sent, error) {
	b, err := d.Decoded()
	if err != nil {
		return sent{}, err
	}
	if n := d.Missing(); n > 0 {
		return sent{}, usage("account %v: %s of %d missing: have the others `lode account sign FILE`, the draft that --draft FILE writes, and `lode account send FILE` then",
			b.Sender, word(n, "signature", "signatures"), d.Threshold.Need)
	}
	raw, err := d.Tx()
	if err != nil {
		return sent{}, err
	}
	return cl.sendRaw(ctx, raw, b.Sender.String(), replace)
}
