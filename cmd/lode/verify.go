package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/node"
)

// An anchor is where to begin believing: the genesis of a chain, and a header
// that the user vouches for where the first one is too old.
type anchor struct{ genesis, trust string }

func (c *cli) verifyCmd() *cobra.Command {
	var from anchor
	cmd := group(&cobra.Command{
		Use: "verify", Short: "ask a node and believe nothing: check its answer against the headers of the chain",
		Long: `Take a record with its proof from any node, follow the headers of the chain from the set of the genesis in hand, and check
the one against the other. Exit code 1 says that something does not hold.

Trust in a header lasts only as long as whoever signed two can be punished for it: on a network older than that begin from a header that a node of
your own has, or somebody whom you believe:

  lode verify account ACCOUNT --trust $(lode verify header --node NODE-YOU-BELIEVE)`,
	})
	cmd.PersistentFlags().StringVar(&from.genesis, "genesis", "", "genesis.json of the chain (default: HOME/genesis.json)")
	cmd.PersistentFlags().StringVar(&from.trust, "trust", "", "HEIGHT:HASH of a header that you believe, where the first of the chain is too old; `lode verify header` has those of a node")
	cmd.AddCommand(c.verifyHeaderCmd(),
		&cobra.Command{Use: "account ACCOUNT", Short: "check a balance", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.accountOf(args)
			if err != nil {
				return err
			}
			var p node.ProofAnswer
			at, err := c.verified(cmd, from, "/proof/accounts/"+id.String(), &p, func() int64 { return p.Height })
			if err != nil {
				return err
			}
			a, err := p.Account(at.hash, id)
			if err != nil {
				return err
			}
			return c.show(a, func(w io.Writer) {
				fields(w, "account", a.ID, "free", a.Free, "transactions", a.Nonce, "verified at height", p.Height)
			})
		}},
		&cobra.Command{Use: "credit ACCOUNT", Short: "check the on-chain credit of a server", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.accountOf(args)
			if err != nil {
				return err
			}
			var p node.ProofAnswer
			at, err := c.verified(cmd, from, "/proof/credit/"+id.String(), &p, func() int64 { return p.Height })
			if err != nil {
				return err
			}
			e, err := p.Credit(at.hash, id)
			if err != nil {
				return err
			}
			a := map[string]any{"id": id, "height": p.Height, "credit": e.At(uint64(at.genesis.Params.EraOf(p.Height))), "written": e.Amount, "era": e.Era}
			return c.show(a, func(w io.Writer) {
				fields(w, "account", id, "credit", a["credit"], "written", e.Amount, "in era", e.Era, "verified at height", p.Height)
			})
		}},
		&cobra.Command{Use: "holders CID", Short: "check who holds a root; that nobody was left out cannot be checked", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
			root, err := parseRoot(args[0])
			if err != nil {
				return err
			}
			return c.verifyHolders(cmd, from, root)
		}},
	)
	return cmd
}

func (c *cli) verifyHeaderCmd() *cobra.Command {
	return &cobra.Command{
		Use: "header [HEIGHT]", Short: "what to give --trust: height and hash of a header of a node that you believe",
		Long: "Ask a node that you believe, such as your own, for the header of HEIGHT, by default the newest that others have signed. Nothing is checked here: the\nanswer is for --trust of the other commands, which then need to believe no other node.",
		Args: nargs(0, 1), RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := c.within(cmd.Context(), askTime)
			defer cancel()
			cl, err := c.client()
			if err != nil {
				return err
			}
			var height int64
			if len(args) == 1 {
				if height, err = strconv.ParseInt(args[0], 10, 64); err != nil || height < 1 {
					return usage("height %q: want a number above zero", args[0])
				}
			} else {
				var s node.StatusAnswer
				if err := cl.get(ctx, "/status", &s); err != nil {
					return err
				}
				height = max(s.Height-1, 1)
			}
			var a node.LightAnswer
			if err := cl.get(ctx, fmt.Sprint("/light/", height), &a); err != nil {
				return err
			}
			word := fmt.Sprint(a.Height, ":", a.Hash)
			return c.show(map[string]any{"height": a.Height, "hash": a.Hash, "trust": word}, func(w io.Writer) { fmt.Fprintln(w, word) })
		},
	}
}

// A verifiedHeight is an app hash that the headers vouch for.
type verifiedHeight struct {
	hash    []byte
	genesis chain.Genesis
}

// verified asks path, and returns the app hash of the height that it answers for, from headers that it checked.
func (c *cli) verified(cmd *cobra.Command, from anchor, path string, answer any, height func() int64) (verifiedHeight, error) {
	var at verifiedHeight
	if from.genesis == "" {
		home, err := c.homeDir()
		if err != nil {
			return at, err
		}
		from.genesis = filepath.Join(home, "genesis.json")
	}
	g, err := chain.LoadGenesis(from.genesis)
	if err != nil {
		return at, err
	}
	at.genesis = g
	ctx, cancel := c.within(cmd.Context(), blockTime)
	defer cancel()
	cl, err := c.client()
	if err != nil {
		return at, err
	}
	light := func(height int64) ([]byte, error) {
		var a node.LightAnswer
		err := cl.get(ctx, fmt.Sprint("/light/", height), &a)
		return a.Block, err
	}
	first, err := light(1)
	if err != nil {
		return at, err
	}
	lc, err := chain.NewLightClient(g, first)
	if err != nil {
		return at, err
	}
	if from.trust != "" {
		if err := trust(lc, from.trust, light); err != nil {
			return at, err
		}
	}
	if err := cl.get(ctx, path, answer); err != nil {
		return at, err
	}
	// The app hash of a height is in the header of the next, whose commit is in the one after.
	var raw []byte
	for {
		if raw, err = light(height() + 1); err == nil || exitCode(err) != exitNotFound {
			break
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return at, ctx.Err()
		}
	}
	if err != nil {
		return at, err
	}
	err = lc.Follow(raw, time.Now(), light)
	if errors.Is(err, chain.ErrLightOld) {
		return at, fmt.Errorf("%w; ask a node that you believe, one of your own, for a later one with `lode verify header --node NODE`, which prints HEIGHT:HASH, and repeat this with --trust HEIGHT:HASH", err)
	}
	if err != nil {
		return at, err
	}
	_, at.hash = lc.AppHash()
	return at, nil
}

// trust has lc begin at the header that the user vouches for.
func trust(lc *chain.LightClient, word string, light func(int64) ([]byte, error)) error {
	at, text, _ := strings.Cut(word, ":")
	height, err := strconv.ParseInt(at, 10, 64)
	hash, errHash := hex.DecodeString(text)
	if err != nil || height < 1 || errHash != nil || len(hash) != 32 {
		return usage("--trust %q: want HEIGHT:HASH as `lode verify header` prints it, the hash in 64 hexadecimal digits", word)
	}
	raw, err := light(height)
	if err != nil {
		return err
	}
	return lc.Trust(raw, hash)
}

func (c *cli) verifyHolders(cmd *cobra.Command, from anchor, root cid.Cid) error {
	var a node.HolderProofsAnswer
	at, err := c.verified(cmd, from, "/proof/holders/"+root.String(), &a, func() int64 { return a.Height })
	if err != nil {
		return err
	}
	holders := []chain.Holder{}
	for _, p := range a.Holders {
		h, err := p.Verify(at.hash, root, at.genesis.Params.SlotOf)
		if err != nil {
			return err
		}
		holders = append(holders, h)
	}
	out := map[string]any{"height": a.Height, "root": root, "holders": holders}
	return c.show(out, func(w io.Writer) {
		var t table
		t.row("NODE", "KIND", "SIZE", "LAST PROOF (SLOT)", "VERIFIED AT HEIGHT")
		for _, h := range holders {
			t.row(h.Node, h.Kind, size(h.Size), h.Last, a.Height)
		}
		t.print(w)
	})
}
