package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/node"
)

func (c *cli) initCmd() *cobra.Command {
	var role, genesis string
	var index int
	cmd := &cobra.Command{
		Use:   "init",
		Short: "make a home: a node's key, settings, and the genesis of its chain",
		Long: `Make a home for a node of an existing network, whose genesis.json is given with --genesis. For a network of your own
on this machine use 'lode devnet'.`,
		Args: nargs(0, 0),
		RunE: func(*cobra.Command, []string) error { return c.init(role, genesis, index) },
	}
	cmd.Flags().StringVar(&role, "role", node.RoleStorage, "storage or edge")
	cmd.Flags().StringVar(&genesis, "genesis", "", "the chain's genesis.json (may be copied into the home later)")
	cmd.Flags().IntVar(&index, "index", 0, "number of the node on this machine: its ports are the usual ones plus ten times that")
	return cmd
}

func (c *cli) init(role, genesis string, index int) error {
	if role != node.RoleStorage && role != node.RoleEdge {
		return usage("--role %q: want storage or edge", role)
	}
	if index < 0 || index > 1000 {
		return usage("--index %d: want 0 to 1000", index)
	}
	home, err := c.homeDir()
	if err != nil {
		return err
	}
	var g chain.Genesis
	if genesis != "" {
		if g, err = chain.LoadGenesis(genesis); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(home, "key")); err == nil {
		return usage("%s is a home already: start it with `lode start --home %s`", home, home)
	}
	key, err := node.NewKey(filepath.Join(home, "key"))
	if err != nil {
		return err
	}
	id, err := c.fillHome(home, key, role, index)
	if err != nil {
		return err
	}
	next := fmt.Sprintf("start it with `lode start --home %s`", home)
	if genesis == "" {
		next = fmt.Sprintf("copy the chain's genesis.json into %s, then `lode start --home %s`", home, home)
	} else if err := g.Save(filepath.Join(home, "genesis.json")); err != nil {
		return err
	}
	err = c.show(map[string]string{"home": home, "account": id.String(), "role": role, "chain_id": g.ChainID},
		func(w io.Writer) { fields(w, "home", home, "account", id, "role", role, "chain", g.ChainID) })
	c.say("%s", next)
	return err
}

// fillHome writes what a home has beside its key and genesis.
func (c *cli) fillHome(home string, key crypto.PrivKey, role string, index int) (peer.ID, error) {
	if _, err := chain.InitComet(home, key); err != nil {
		return "", err
	}
	cfg := node.Defaults(index)
	cfg.Role = role
	if err := cfg.Save(filepath.Join(home, "lode.toml")); err != nil {
		return "", err
	}
	return peer.IDFromPrivateKey(key)
}

// A startPlan is what the flags of start say; empty means as in the home's settings.
type startPlan struct {
	role, level, format string
	set                 []string
}

func (p *startPlan) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.level, "log-level", "", "debug, info, warn or error")
	f.StringVar(&p.format, "log-format", "", "text or json")
	f.StringArrayVar(&p.set, "set", nil, "a setting of lode.toml, like gateway.listen=127.0.0.1:8090 (may be repeated)")
}

func (c *cli) startCmd() *cobra.Command {
	var p startPlan
	cmd := &cobra.Command{Use: "start", Short: "run the node of a home until Ctrl-C", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
		return c.start(cmd.Context(), p)
	}}
	p.add(cmd)
	cmd.Flags().StringVar(&p.role, "role", "", "storage or edge (default: as the home says)")
	return cmd
}

func (c *cli) edgeCmd() *cobra.Command {
	p := startPlan{role: node.RoleEdge}
	cmd := &cobra.Command{Use: "edge", Short: "run the node of a home as an edge: it stores nothing, follows the chain and serves", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
		return c.start(cmd.Context(), p)
	}}
	p.add(cmd)
	return cmd
}

// settings returns those of the home under the flags.
func (c *cli) settings(p startPlan) (node.Config, error) {
	home, err := c.homeDir()
	if err != nil {
		return node.Config{}, err
	}
	if _, err := os.Stat(filepath.Join(home, "key")); err != nil {
		return node.Config{}, notFound("%s is no home of a node: make one with `lode init --home %s`, or a network with `lode devnet`", home, home)
	}
	flags := map[string]string{}
	for _, s := range p.set {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return node.Config{}, usage("--set %q: want KEY=VALUE, like gateway.listen=127.0.0.1:8090", s)
		}
		flags[k] = v
	}
	for k, v := range map[string]string{"role": p.role, "log.level": p.level, "log.format": p.format} {
		if v != "" {
			flags[k] = v
		}
	}
	cfg, err := node.Defaults(0).Load(filepath.Join(home, "lode.toml"), os.Environ(), flags)
	if err != nil {
		return cfg, usage("%v", err)
	}
	cfg.Home, cfg.Version = home, version
	cfg.Logger, err = c.logger(cfg.Log)
	return cfg, err
}

// logger writes to stderr.
func (c *cli) logger(l node.LogConfig) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return nil, usage("log level %q: want debug, info, warn or error", l.Level)
	}
	o := &slog.HandlerOptions{Level: level}
	switch l.Format {
	case "text":
		return slog.New(slog.NewTextHandler(c.stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(c.stderr, o)), nil
	}
	return nil, usage("log format %q: want text or json", l.Format)
}

// start runs a node until ctx ends.
func (c *cli) start(ctx context.Context, p startPlan) error {
	cfg, err := c.settings(p)
	if err != nil {
		return err
	}
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	return n.Run(ctx)
}

func (c *cli) devnetCmd() *cobra.Command {
	plan := networkPlan{Storage: 4, Edges: 1}
	cmd := &cobra.Command{
		Use:   "devnet",
		Short: "run a network on this machine until Ctrl-C: storage nodes, edges, a user with funds",
		Long: `Run a network of simulated storage nodes and edges on this machine, one process a node, until Ctrl-C. With --home the
network is kept there and goes on where it was; without, it is in a temporary directory and removed at the end.`,
		Args: nargs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.devnet(cmd.Context(), plan) },
	}
	f := cmd.Flags()
	f.IntVar(&plan.Storage, "nodes", plan.Storage, "storage nodes, all of them validators")
	f.IntVar(&plan.Edges, "edges", plan.Edges, "edges")
	f.StringVar(&plan.ChainID, "chain-id", "dev-local", "name of the chain; begins with dev-")
	f.Int64Var(&plan.SlotBlocks, "slot-blocks", 0, "blocks of a slot (default: as preset)")
	return cmd
}

// readyTime is how long a network may take to answer.
const readyTime = 60 * time.Second

// devnet runs a network until ctx ends.
func (c *cli) devnet(ctx context.Context, plan networkPlan) (err error) {
	if plan.Storage < 1 || plan.Edges < 0 || plan.Storage+plan.Edges > 50 {
		return usage("--nodes %d --edges %d: want at least one node, and at most 50 in all", plan.Storage, plan.Edges)
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	var n *network
	if c.home != "" {
		if plan.Dir, err = filepath.Abs(c.home); err != nil {
			return err
		}
		n, err = openNetwork(plan.Dir)
	} else {
		if plan.Dir, err = os.MkdirTemp("", "lode-devnet-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(plan.Dir)) }()
	}
	if err != nil {
		return err
	}
	if n == nil {
		if n, err = makeNetwork(plan); err != nil {
			return err
		}
	}
	homes := make([]string, len(n.Members))
	for i, m := range n.Members {
		homes[i] = m.Home
	}
	sup, err := node.Supervise(ctx, node.SupervisorConfig{Program: program, Homes: homes})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sup.Close()) }()
	c.say("starting %s in %s", word(len(homes), "node", "nodes"), n.Dir)
	ready, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	if err := sup.Ready(ready); err != nil {
		return err
	}
	if err := c.showNetwork(n); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		c.say("stopping")
		return nil
	case e := <-sup.Exits():
		return e.Err
	}
}

// showNetwork prints who is where.
func (c *cli) showNetwork(n *network) error {
	return c.show(map[string]any{"chain_id": n.Genesis.ChainID, "simulated": true, "dir": n.Dir, "members": n.Members, "user": n.User, "user_home": n.Home},
		func(w io.Writer) {
			fmt.Fprintf(w, "chain %s runs in %s; its enclaves are SIMULATED: proofs prove nothing\n\n", n.Genesis.ChainID, n.Dir)
			var t table
			t.row("NODE", "ROLE", "GATEWAY", "ACCOUNT")
			for _, m := range n.Members {
				t.row(m.Name, m.Role, m.Gateway, m.ID)
			}
			t.print(w)
			last := n.Members[len(n.Members)-1]
			fmt.Fprintf(w, "\na user with %v: --home %s --node %s\n", devUserFree, n.Home, last.Socket)
			fmt.Fprintf(w, "try: lode add PATH --order --home %s --node %s\n", n.Home, last.Socket)
		})
}
