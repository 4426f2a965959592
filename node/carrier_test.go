package node

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/mpow/quote/quotetest"
)

// A node whose operator wants it brings what the chain lacks of Intel's word, by
// itself; what is there is due again before it ends, and not earlier (EN-17).
func TestCollateralIsBroughtOnATimer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var forged quotetest.Forgery
	var asked atomic.Int64
	const family = "10a067110000"
	set := CollateralConfig{Every: Duration(time.Hour), Before: Duration(10 * 24 * time.Hour), CA: "processor", FMSPCs: []string{family}}
	d, err := Devnet(ctx, DevnetConfig{
		Storage: 1, Dir: t.TempDir(),
		Genesis: func(g *chain.Genesis) {
			var err error
			if forged, err = quotetest.New(g.Time).Make(); err != nil {
				t.Fatal(err)
			}
			g.QuoteRoot = forged.Root
		},
		Config: func(_ int, c *Config) {
			c.Collateral = set
			c.Fetch = func(_ context.Context, fmspc, ca string) (chain.Msg, error) {
				asked.Add(1)
				if fmspc != family || ca != "processor" {
					return chain.Msg{}, errors.New("asked of " + fmspc + " and " + ca)
				}
				x := forged.Collateral
				return chain.Msg{Collateral: &x}, nil
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	n := d.Nodes[0]
	ends := func() (until int64) {
		for c := range n.chain.View().Collateral() {
			if c.Name == "tcb/"+family {
				until = c.Until
			}
		}
		return until
	}
	for height := int64(0); ends() == 0; {
		b, err := next(ctx, n.chain, height)
		if err != nil {
			t.Fatalf("nobody brought it after %d questions: %v", asked.Load(), err)
		}
		height = b.Height
	}
	k := &carrier{chain: n.chain, me: n.id, c: set}
	first := time.Unix(ends(), 0)
	for c := range n.chain.View().Collateral() {
		if at := time.Unix(c.Until, 0); at.Before(first) {
			first = at
		}
	}
	before := first.Add(-10 * 24 * time.Hour)
	if due := k.due(before.Add(-time.Hour)); len(due) != 0 {
		t.Errorf("an hour before it is time: %v is due", due)
	}
	if due := k.due(before.Add(time.Hour)); !slices.Equal(due, []string{family}) {
		t.Errorf("within ten days of its end: %v is due, want %s", due, family)
	}
	k.c.FMSPCs = []string{family, "00906ed50000"}
	if due := k.due(before.Add(-time.Hour)); !slices.Equal(due, []string{"00906ed50000"}) {
		t.Errorf("a family that is not there: %v is due", due)
	}
}
