package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

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
	role, level, format, strategy string
	set                           []string
}

func (p *startPlan) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.level, "log-level", "", "debug, info, warn or error")
	f.StringVar(&p.format, "log-format", "", "text or json")
	f.StringVar(&p.strategy, "strategy", "", "who fetches: enforce (holders by the chain first), observe (the stock client; what we would have done is recorded) or off")
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
	for k, v := range map[string]string{"role": p.role, "bitswap.strategy": p.strategy, "log.level": p.level, "log.format": p.format} {
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
	cfg.Fetch = carry(cfg.Collateral)
	n, err := node.New(cfg)
	if err != nil {
		return err
	}
	return n.Run(ctx)
}
