package main

import (
	"path/filepath"
	"testing"

	"github.com/lode-node/lode/chain"
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
