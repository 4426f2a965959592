package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/node"
)

func (c *cli) devnetCmd() *cobra.Command {
	plan := networkPlan{Storage: 4, Edges: 1}
	cmd := &cobra.Command{
		Use:   "devnet",
		Short: "run a network on this machine until Ctrl-C: storage nodes, edges, a user with funds",
		Long: `Run a network of simulated storage nodes and edges on this machine, one process a node, until Ctrl-C. A node that
is killed is started again. With --home the network is kept there and goes on where it was; without, it is in a temporary
directory and removed at the end.

Its ports are 8080, 24001 and 24002, and for each further node ten more; where these are taken, the next that are free.`,
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
		n, err = makeNetwork(plan)
	} else if err = roomFor(networkPlan{Dir: n.Dir}, node.DiskFree); err == nil {
		err = n.portsFree()
	}
	if err != nil {
		return err
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
	if first := n.Members[0].config; first.Comet.Listen != node.Defaults(0).Comet.Listen {
		c.say("the usual ports are taken: its gateways begin at %s, its consensus at %s", first.Gateway.Listen, first.Comet.Listen)
	}
	ready, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	if err := sup.Ready(ready); err != nil {
		return err
	}
	if err := c.showNetwork(n); err != nil {
		return err
	}
	ends := endings{}
	for {
		select {
		case <-ctx.Done():
			c.say("stopping")
			return nil
		case e := <-sup.Exits():
			if ends.hopeless(e.Index, time.Now()) {
				return fmt.Errorf("%w; it was started again %d times in a minute", e.Err, endsAllowed)
			}
			c.say("%v; starting it again", e.Err)
			if err := sup.Restart(e.Index); err != nil {
				return err
			}
		}
	}
}

// endsAllowed is how often a node may end by itself in a minute and be started again: kill -9 is a thing to try on a
// devnet, while a node that fails at once will fail again.
const endsAllowed = 3

// endings remembers when nodes ended by themselves, by number.
type endings map[int][]time.Time

// hopeless notes an end of node i and reports whether there were too many.
func (e endings) hopeless(i int, now time.Time) bool {
	e[i] = append(slices.DeleteFunc(e[i], func(t time.Time) bool { return now.Sub(t) > time.Minute }), now)
	return len(e[i]) > endsAllowed
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
