package chain_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
)

// TestCometEvidence has a validator of a network of four sign twice for a height.
// CometBFT verifies the two votes, spreads them and puts them into a block; each
// node then takes the same from its bond, once, and jails it. Spec §4.5.
func TestCometEvidence(t *testing.T) {
	if testing.Short() {
		t.Skip("a network of four")
	}
	n := newCometNet(t, 4, 0)
	var nodes []*running
	for i := range n.places {
		nodes = append(nodes, run(t, n.config(t, i)))
	}
	for _, c := range nodes {
		reach(t, c, 3)
	}
	guilty := n.places[3]
	offence, err := nodes[0].DoubleSign(guilty.Home)
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	slashed := func(c *running) (b chain.Block, lost coin.Amount) {
		for height := offence; ; {
			b, err := c.Next(ctx, height)
			must(t, err)
			height = b.Height
			for _, e := range b.Events {
				if e.Kind == "slashed" {
					if e.Who != guilty.account || e.Why != "signed twice" {
						t.Errorf("height %d: %+v, want the equivocator slashed", height, e)
					}
					return b, e.Amount
				}
			}
		}
	}
	first, lost := slashed(nodes[0])
	// One of four: (3/4)² of 100 LODE.
	if lost != 56_250_000_000 {
		t.Errorf("%v were lost, want 56.25 LODE", lost)
	}
	if again, err := nodes[1].DoubleSign(guilty.Home); err != nil && !strings.Contains(err.Error(), "evidence") {
		t.Errorf("a second offence, at height %d: %v", again, err)
	}
	end := first.Height + 6
	agree(t, end, nodes...)
	for i, c := range nodes {
		if b, x := slashed(c); b.Height != first.Height || x != lost {
			t.Errorf("node %d slashes %v at height %d, node 0 %v at %d", i, x, b.Height, lost, first.Height)
		}
		reach(t, c, end)
		st := c.View().Stake(guilty.account)
		if !st.Ledger.Jailed() || st.Own >= 43_750_000_001 {
			t.Errorf("node %d: %+v, want it jailed with at most 43.75 LODE", i, st)
		}
		if innocent := c.View().Stake(n.places[1].account); innocent.Ledger.Jailed() || innocent.Own < 100*coin.LODE {
			t.Errorf("node %d: an innocent validator has %+v", i, innocent)
		}
	}
}
