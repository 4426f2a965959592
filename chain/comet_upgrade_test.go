package chain_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
)

// lagging is an App that executes the block at a height only once it is let.
type lagging struct {
	*chain.App
	at    int64
	let   chan struct{}
	until context.Context
}

func (l lagging) FinalizeBlock(ctx context.Context, r *abci.RequestFinalizeBlock) (*abci.ResponseFinalizeBlock, error) {
	if r.Height == l.at {
		select {
		case <-l.let:
		case <-l.until.Done():
		}
	}
	return l.App.FinalizeBlock(ctx, r)
}

// signed returns the last height for which the validator at home signed.
func signed(t *testing.T, home string) int64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(home, "comet", "priv_validator_state.json"))
	must(t, err)
	var last struct {
		Height int64 `json:"height,string"`
	}
	must(t, json.Unmarshal(b, &last))
	return last.Height
}

// TestCometUpgrade lets three validators of the old build vote for an upgrade and
// stop before its height with the reason, the third though it lags: the others
// stay until it has their last block, and sign nothing meanwhile. They go on from
// their homes with a build that knows the upgrade (processes that say so), and an
// old build that comes then stops at the same height. Spec §8.1.
func TestCometUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute of real consensus")
	}
	n := newCometNet(t, 3, 1)
	n.genesis.Params.VoteSlots = 1
	n.genesis.Validators[2].Bond = 50 * coin.LODE // the others make blocks without it
	const height = 36
	app, err := chain.OpenApp(chain.AppConfig{Dir: filepath.Join(n.places[2].Home, "state"), Genesis: n.genesis, Audit: true})
	must(t, err)
	closeApp := sync.OnceValue(app.Close)
	t.Cleanup(func() { closeApp() })
	lags := lagging{app, height - 2, make(chan struct{}), t.Context()}
	var nodes []*running
	for i := range 3 {
		c := n.config(t, i)
		if i == 2 {
			c.App = lags
		}
		nodes = append(nodes, run(t, c))
	}
	reach(t, nodes[0], 1)
	_, err = nodes[0].Submit(t.Context(), chain.Msg{Gov: &chain.Gov{Propose: &chain.Propose{
		Title: "the second release", Upgrade: &chain.Upgrade{Name: "two", Version: 2, Height: height},
	}}})
	must(t, err)
	for _, node := range nodes[:2] { // four fifths of the weight
		_, err := node.Submit(t.Context(), chain.Msg{Gov: &chain.Gov{Vote: &chain.Vote{Proposal: 1, Choice: chain.Yes}}})
		must(t, err)
	}
	for h := nodes[0].View().Height(); h < height; h++ {
		reach(t, nodes[0], h)
	}
	reach(t, nodes[1], height-1)
	close(lags.let)
	for i, node := range nodes {
		var err error
		select {
		case err = <-node.ran:
		case <-time.After(time.Minute):
			t.Fatalf("node %d stands at height %d: %+v", i, node.View().Height(), node.Status())
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
		if h := signed(t, n.places[i].Home); h > height-1 {
			t.Errorf("node %d signed for height %d, which it cannot make", i, h)
		}
	}
	must(t, closeApp())
	if c, err := chain.NewComet(n.config(t, 0)); !errors.Is(err, chain.ErrUpgrade) {
		t.Errorf("the old build starts again: %v, %v", c, err)
	}
	n.protocol = 2
	var after []*process
	for i := range 3 {
		after = append(after, n.spawn(t, i))
	}
	want := after[0].reach(t, height+4)
	for i, p := range after[1:] {
		if got := p.reach(t, height+4); got != want {
			t.Errorf("node %d has block %s at height %d, want %s", i+1, got, height+4, want)
		}
	}

	late := run(t, n.config(t, 3))
	select {
	case err := <-late.ran:
		late.ran <- nil
		if h := late.View().Height(); !errors.Is(err, chain.ErrUpgrade) || h != height-1 {
			t.Errorf("an old build that comes later ended at height %d with %v, want %d and ErrUpgrade", h, err, height-1)
		}
	case <-time.After(time.Minute):
		t.Errorf("an old build that comes later stands at height %d: %+v", late.View().Height(), late.Status())
	}
	must(t, late.Close())
	caughtUp := n.spawn(t, 3) // from genesis through the upgrade
	if got := caughtUp.reach(t, height+4); got != want {
		t.Errorf("who comes late has block %s at height %d, want %s", got, height+4, want)
	}
	caughtUp.kill() // first: see docs/testing.md, CometBFT's block sync bears no peer that goes
	for _, p := range after {
		p.stop(t)
	}
}

// TestCometUpgradeSurvivesKills has the one validator of a chain killed at each
// moment around its upgrade: the old build as soon as its last block is there,
// with the next round begun and its log of messages open, and when it starts once
// more; the new one as soon as it has made the first block under the new rules. It
// goes on from the same home each time and loses no block. Spec §8.1.
func TestCometUpgradeSurvivesKills(t *testing.T) {
	if testing.Short() {
		t.Skip("some seconds of real consensus")
	}
	n := newCometNet(t, 1, 0)
	n.genesis.Params.VoteSlots = 1
	const height = 26
	first := run(t, n.config(t, 0))
	reach(t, first, 1)
	for _, m := range []chain.Gov{
		{Propose: &chain.Propose{Title: "the second release", Upgrade: &chain.Upgrade{Name: "two", Version: 2, Height: height}}},
		{Vote: &chain.Vote{Proposal: 1, Choice: chain.Yes}},
	} {
		_, err := first.Submit(t.Context(), chain.Msg{Gov: &m})
		must(t, err)
	}
	first.stop(t)

	old := n.spawn(t, 0)
	last := old.reach(t, height-1)
	old.kill()
	again := n.spawn(t, 0)
	if h, _, ok := again.block(); ok {
		t.Fatalf("the old build makes block %d", h)
	}
	again.kill()
	if h := signed(t, n.places[0].Home); h > height-1 {
		t.Errorf("the old build signed for height %d, which it cannot make", h)
	}

	n.protocol = 2
	made := n.spawn(t, 0)
	at := made.reach(t, height)
	made.kill()
	end := n.spawn(t, 0)
	end.reach(t, height+3)
	end.stop(t)
	app, err := chain.OpenApp(chain.AppConfig{Dir: filepath.Join(n.places[0].Home, "state"), Genesis: n.genesis, Audit: true, Protocol: 2})
	must(t, err)
	t.Cleanup(func() { must(t, app.Close()) })
	for h, want := range map[int64]string{height - 1: last, height: at} {
		if b, ok := app.View().Block(h); !ok || fmt.Sprintf("%x", b.Hash) != want {
			t.Errorf("block %d is %x after all, want %s", h, b.Hash, want)
		}
	}
	if version, plan := app.View().Protocol(); version != 2 || plan != nil {
		t.Errorf("version %d, plan %+v after the upgrade", version, plan)
	}
}
