package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/node"
)

// TestTheUserOfADevnetHasItsGenesis: who verifies what a node says begins with the
// genesis in hand, which `lode verify` looks for at home.
func TestTheUserOfADevnetHasItsGenesis(t *testing.T) {
	n, err := makeNetwork(networkPlan{Dir: t.TempDir(), ChainID: "dev-user", Storage: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer release(n.claims)
	g, err := chain.LoadGenesis(filepath.Join(n.Home, "genesis.json"))
	if err != nil || g.Hash() != n.Genesis.Hash() {
		t.Errorf("%v, %v; want the genesis of %s", g.ChainID, err, n.Genesis.ChainID)
	}
}

// A network on a disk without room for it does not start to stand still later: it names the disk, what is free and what is
// needed.
func TestANetworkNeedsRoom(t *testing.T) {
	plan := networkPlan{Dir: "/d", Storage: 4, Edges: 1, Bytes: 100 << 20}
	need := uint64(node.DiskReserve + 5*roomPerNode + 100<<20)
	for free, ok := range map[uint64]bool{need: true, need - 1: false, 0: false} {
		err := roomFor(plan, func(string) (uint64, error) { return free, nil })
		if (err == nil) != ok {
			t.Errorf("%d bytes free of %d needed: %v", free, need, err)
		}
		if err == nil {
			continue
		}
		for _, want := range []string{"the disk of /d", size(free) + " are free", size(need) + " are needed", "--home"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%d bytes free: %v, want %q in it", free, err, want)
			}
		}
	}
	if free, err := node.DiskFree(filepath.Join(t.TempDir(), "not", "yet")); err != nil || free == 0 {
		t.Errorf("room of a directory to be made: %d, %v", free, err)
	}
}
