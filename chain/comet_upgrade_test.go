package chain_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lode-node/lode/chain"
)

// TestCometUpgrade lets three validators of the old build vote for an upgrade and
// stop before its height with the reason, and go on from their homes with a build
// that knows it: processes that say so. Spec §8.1.
func TestCometUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute of real consensus")
	}
	n := newCometNet(t, 3, 0)
	n.genesis.Params.VoteSlots = 1
	var nodes []*running
	for i := range n.places {
		nodes = append(nodes, run(t, n.config(t, i)))
	}
	const height = 36
	reach(t, nodes[0], 1)
	_, err := nodes[0].Submit(t.Context(), chain.Msg{Gov: &chain.Gov{Propose: &chain.Propose{
		Title: "the second release", Upgrade: &chain.Upgrade{Name: "two", Version: 2, Height: height},
	}}})
	must(t, err)
	for _, node := range nodes[:2] { // two of three are the quorum, and two thirds
		_, err := node.Submit(t.Context(), chain.Msg{Gov: &chain.Gov{Vote: &chain.Vote{Proposal: 1, Choice: chain.Yes}}})
		must(t, err)
	}
	for i, node := range nodes {
		var err error
		select {
		case err = <-node.ran:
		case <-time.After(time.Minute):
			// The others stop as soon as they have the last block; who lacks it then gets it only once they are back.
			t.Skipf("node %d stands at height %d, and the others have stopped", i, node.View().Height())
		}
		node.ran <- nil
		if !errors.Is(err, chain.ErrUpgrade) || !strings.Contains(err.Error(), fmt.Sprintf("from height %d", height)) {
			t.Fatalf("node %d ended with %v, want ErrUpgrade", i, err)
		}
		if h := node.View().Height(); h != height-1 {
			t.Errorf("node %d stopped at height %d, want %d", i, h, height-1)
		}
		if s := node.Status().Stopped; !strings.Contains(s, `protocol version 2 ("two")`) {
			t.Errorf("node %d says %q", i, s)
		}
		must(t, node.Close())
	}
	if c, err := chain.NewComet(n.config(t, 0)); !errors.Is(err, chain.ErrUpgrade) {
		t.Errorf("the old build starts again: %v, %v", c, err)
	}
	n.protocol = 2
	var after []*process
	for i := range n.places {
		after = append(after, n.spawn(t, i))
	}
	want := after[0].reach(t, height+4)
	for i, p := range after[1:] {
		if got := p.reach(t, height+4); got != want {
			t.Errorf("node %d has block %s at height %d, want %s", i+1, got, height+4, want)
		}
	}
	for _, p := range after {
		p.stop(t)
	}
}
