package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"github.com/spf13/cobra"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/node"
)

// An added root is what this home remembers of `lode add`, so that an order of it needs no flags.
type added struct {
	node.Added
	Path    string   `json:"path"`
	Sources []string `json:"sources"` // where it was served when it was added
}

func addedFile(home string, root cid.Cid) string {
	return filepath.Join(home, "added", root.String()+".json")
}

// loadAdded returns what home knows of root, nil if it did not add it.
func loadAdded(home string, root cid.Cid) (*added, error) {
	b, err := os.ReadFile(addedFile(home, root))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var a added
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("%s: %w", addedFile(home, root), err)
	}
	return &a, nil
}

func (a added) save(home string) error {
	b, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	path := addedFile(home, a.Root)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o600)
}

// An addPlan is what the flags of add ask for.
type addPlan struct {
	tx       txFlags
	replicas int
	order    bool
	blocks   int64
	tip      string
	listen   []string
}

func (c *cli) addCmd() *cobra.Command {
	var p addPlan
	cmd := &cobra.Command{
		Use:   "add PATH",
		Short: "import a file or directory, and serve it until nodes have proved it",
		Long: `Import a file or directory as UnixFS (CIDv1) into this home, and serve it from a host of its own until --replicas nodes
have proved it on chain. With --order the storage order is placed as well; without, place it meanwhile with
'lode order place CID'. With --replicas 0 the import is all.`,
		Args: nargs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.add(cmd.Context(), args[0], p) },
	}
	p.tx.add(cmd)
	fl := cmd.Flags()
	fl.IntVar(&p.replicas, "replicas", 3, "serve until so many nodes have proved the content; 0: do not serve")
	fl.BoolVar(&p.order, "order", false, "place a storage order too")
	fl.Int64Var(&p.blocks, "blocks", 0, "with --order: length in blocks (default: the chain's usual length)")
	fl.StringVar(&p.tip, "tip", "", "with --order: extra pay for the nodes, like 0.5")
	fl.StringSliceVar(&p.listen, "listen", []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}, "multiaddrs to serve on")
	return cmd
}

// add imports path, says so, and serves it while it is needed.
func (c *cli) add(ctx context.Context, path string, p addPlan) error {
	if p.replicas < 0 {
		return usage("--replicas %d: want zero or more", p.replicas)
	}
	if p.order && p.replicas == 0 {
		return usage("--order with --replicas 0: somebody must serve the first copy; leave --replicas alone, or use `lode order place --source`")
	}
	home, err := c.homeDir()
	if err != nil {
		return err
	}
	if p.replicas == 0 {
		return c.importOnly(ctx, home, path)
	}
	key, _, err := c.signer(p.tx.from)
	if err != nil {
		return err
	}
	cl, err := c.client()
	if err != nil {
		return err
	}
	var st statusAnswer // before the work of an import: is there a node?
	if err := cl.get(ctx, "/status", &st); err != nil {
		return err
	}
	share, err := node.NewShare(ctx, node.ShareConfig{Dir: blocksDir(home), Key: key, Listen: p.listen})
	if err != nil {
		return err
	}
	defer share.Close()
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	bar := c.bar(-1, "adding")
	got, err := share.Add(ctx, abs, node.ImportOptions{Progress: func(n uint64) { _ = bar.Set64(int64(n)) }})
	_ = bar.Finish()
	if err != nil {
		return err
	}
	a := added{Added: got, Path: abs}
	if a.Sources, err = share.Sources(market.MaxSources); err != nil {
		return err
	}
	if err := a.save(home); err != nil {
		return err
	}
	if err := c.show(a, func(w io.Writer) { a.print(w) }); err != nil {
		return err
	}
	if p.order {
		if err := c.orderAdded(ctx, cl, a, p); err != nil {
			return err
		}
	} else {
		c.say("order storage for it with `lode order place %v`", a.Root)
	}
	return c.serveUntil(ctx, cl, a.Root, p.replicas)
}

// blocksDir is where a user's home keeps what it added.
func blocksDir(home string) string { return filepath.Join(home, "added", "blocks") }

// importOnly imports path and serves nothing.
func (c *cli) importOnly(ctx context.Context, home, path string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	store, err := node.OpenDisk(ctx, blocksDir(home), 0)
	if err != nil {
		return err
	}
	defer store.Close()
	bar := c.bar(-1, "adding")
	dag := merkledag.NewDAGService(blockservice.New(store, offline.Exchange(store)))
	got, err := node.Import(ctx, dag, abs, node.ImportOptions{Progress: func(n uint64) { _ = bar.Set64(int64(n)) }})
	_ = bar.Finish()
	if err != nil {
		return err
	}
	a := added{Added: got, Path: abs}
	if err := a.save(home); err != nil {
		return err
	}
	return c.show(a, func(w io.Writer) { a.print(w) })
}

func (a added) print(w io.Writer) {
	fields(w, "root", a.Root, "size", fmt.Sprintf("%s (%d bytes in %s)", size(a.Size), a.Size, word(a.Blocks, "block", "blocks")),
		"content", fmt.Sprintf("%s, %s", word(a.Files, "file", "files"), size(a.Bytes)))
	for _, s := range a.Sources {
		fields(w, "served at", s)
	}
}

// orderAdded places the order for what was just added.
func (c *cli) orderAdded(ctx context.Context, cl *client, a added, p addPlan) error {
	m := market.Place{Root: a.Root.Bytes(), Size: a.Size, Sources: a.Sources}
	var err error
	if p.tip != "" {
		if m.Tip, err = parseAmount("--tip", p.tip); err != nil {
			return err
		}
	}
	if m.Blocks, err = cl.length(ctx, p.blocks); err != nil {
		return err
	}
	s, err := c.submit(ctx, cl, p.tx, chain.Msg{Market: &market.Msg{Place: &m}})
	if err != nil {
		return err
	}
	if o := cl.placed(ctx, a.Root, s); o.Price > 0 {
		c.say("ordered %d blocks of storage at height %d for %s in all: %v for the order, of which all but the base fee comes back if nobody proves it, and a fee of %v", m.Blocks, s.Height, o.total(), o.Price, s.Fee)
		return nil
	}
	c.say("ordered %d blocks of storage at height %d for a fee of %v and the price in `lode order history %v`", m.Blocks, s.Height, s.Fee, a.Root)
	return nil
}

// watchEvery is how often a command looks at what it waits for: about a block.
const watchEvery = 500 * time.Millisecond

// serveUntil waits until want nodes have proved root, telling of each step. Ctrl-C before that is no failure: the content
// may be served again. The node that is asked may go and come back meanwhile: others fetch from here all the same.
func (c *cli) serveUntil(ctx context.Context, cl *client, root cid.Cid, want int) error {
	c.say("serving it until %s proved it; Ctrl-C stops", word(want, "node has", "nodes have"))
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	last, silent := -1, false
	for {
		var h holdersAnswer
		err := cl.get(ctx, "/holders/"+root.String(), &h)
		switch gone := err != nil && exitCode(err) != exitNotFound; {
		case ctx.Err() != nil:
		case gone && !silent:
			c.say("%v; serving on meanwhile", err)
			silent = true
		case !gone:
			if n := len(h.Holders); n != last || silent {
				c.say("height %d: proved by %d of %d", h.Height, n, want)
				last, silent = n, false
			}
		}
		if last >= want {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("proved by %d of %d nodes: %w; see `lode order show %v`", last, want, ctx.Err(), root)
			}
			c.say("stopped with %d of %d proved; `lode add` again to serve on", max(last, 0), want)
			return nil
		}
	}
}
