package chain

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"testing"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

// speedStakes is how many accounts each of speedEras has.
const speedStakes = 100_000

// speedEras measures what the two blocks between two eras cost when outsiders have
// filled what these walk: stakes, guarantees, and consensus keys that were once
// named (spec §4.3). It prints a NOTE line each.
func speedEras(t *testing.T) {
	who := make([]peer.ID, speedStakes)
	for i := range who {
		id := []byte(testID(t, "validator"))
		for j := range 8 {
			id[len(id)-1-j] = byte(i >> (8 * j))
		}
		who[i] = peer.ID(id)
	}
	v := testID(t, "validator")
	stored := func(s *state) { // the validator has stored as much as all need
		w := gpos.Work{Slot: uint64(s.slot()), Bytes: math.MaxInt64, Last: math.MaxInt64, Era: s.era(), Slots: uint64(s.params.EraSlots), Least: math.MaxInt64}
		workOf.set(s, v, w)
		workAll.set(s, all, w)
	}
	for _, c := range []struct {
		name string
		fill func(s *state)
	}{
		{"nothing", func(*state) {}},
		{"bonds", func(s *state) {
			for _, id := range who {
				s.setStake(id, gpos.Stake{Active: s.params.Stake.MinBond})
			}
		}},
		{"guarantors of one validator", func(s *state) {
			stored(s)
			for i, id := range who { // each gives more than the one before, so that each finds a place
				x := s.params.Stake.MinBond + coin.Amount(i)
				s.setStake(id, gpos.Stake{Active: x})
				if err := s.stake(id, &gpos.Msg{Guarantee: &gpos.Guarantee{Target: v, Amount: x}}); err != nil {
					t.Fatal(err)
				}
			}
			s.events = nil
		}},
		{"consensus keys", func(s *state) {
			for i, id := range who {
				key := fmt.Appendf(make([]byte, 0, 32), "%032d", i)
				address := gpos.Address(key)
				consKeys.set(s, string(address[:]), consKey{Account: id, Era: s.era(), Key: key, Sat: true})
			}
		}},
	} {
		speedEra(t, c.name, c.fill, stored)
	}
}

func speedEra(t *testing.T, name string, fill, stored func(s *state)) {
	t.Helper()
	c := &speedChain{t: t}
	g := testGenesis(t)
	g.Params.Stake.MinValidators = 1
	g.Accounts[0].Free = 1_000_000 * coin.LODE
	var err error
	if c.app, err = OpenApp(AppConfig{Dir: t.TempDir(), Genesis: g, keep: speedKeep}); err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if _, err := c.app.InitChain(context.Background(), &abci.RequestInitChain{ChainId: g.ChainID}); err != nil {
		t.Fatal(err)
	}
	for c.next(nil); c.app.View().Params().SlotOf(c.app.View().Height()) == 0; { // in which no workload counts
		c.next(nil)
	}
	c.fill(fill)
	v := testID(t, "validator")
	var ends, starts, others []float64
	for era := int64(1); era <= 4; era++ {
		p := c.app.View().Params()
		for !p.endsEra(c.app.View().Height() + 2) {
			others = append(others, c.next(nil).Seconds())
		}
		c.fill(stored)
		runtime.GC()
		ends = append(ends, c.next(nil).Seconds())
		starts = append(starts, c.next(nil).Seconds())
	}
	e := elections.must(flat{c.app.store.db}, all)
	fmt.Printf("NOTE an era with %d %s: last block %.0f ms, first %.0f ms, others %.1f ms (median of %d eras; set kept: %v, %d guarantors)\n",
		speedStakes, name, 1000*median(ends), 1000*median(starts), 1000*median(others), len(ends), e.Kept, len(guarantorsOf(flat{c.app.store.db}, uint64(e.Era), v)))
}
