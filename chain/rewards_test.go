package chain

import (
	"math/rand/v2"
	"testing"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

// TestACandidateEarnsByItsStakeAlone: who stood and got no seat shares in what is
// for stake, and has no part of what is for blocks. Spec §4.4.
func TestACandidateEarnsByItsStakeAlone(t *testing.T) {
	g := eraGenesis(t, 4)
	g.Params.Stake.ValidatorCount, g.Params.Stake.MinValidators = 3, 3
	c := newEraChain(t, g)
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	c.to(2)
	c.block()
	e, _ := earned.get(c.s, 2)
	if e.Effective != 4_000_000 || e.Staking == 0 || e.Authoring == 0 {
		t.Fatalf("era 2 earned %+v, want the stake of all four to count", e)
	}
	var sum, stood coin.Amount
	points := uint64(0)
	for _, v := range c.view().Validators() {
		points += v.Points
	}
	for _, name := range four {
		who := testID(t, name)
		x, _ := exposure(c.s, 2, who)
		before := c.stakeOf(name).Active
		c.must(name, gpos.Msg{Payout: &gpos.Payout{Account: who, Era: 2}})
		got := c.stakeOf(name).Active - before
		sum += got
		if x.Elected() {
			if got <= e.Staking.Part(1, 4) {
				t.Errorf("%s made blocks and got %d, of %d for its stake", name, uint64(got), uint64(e.Staking.Part(1, 4)))
			}
			continue
		}
		if stood += x.Total; got != e.Staking.Part(1, 4) {
			t.Errorf("the candidate %s got %d, want a fourth of %d and no more", name, uint64(got), uint64(e.Staking))
		}
	}
	if stood != 1_000_000 {
		t.Errorf("%d grains stood without a seat, want those of one", uint64(stood))
	}
	if all := e.Authoring + e.Staking; sum > all || sum+8 < all {
		t.Errorf("paid %d of %d", uint64(sum), uint64(all))
	}
}

// TestThePotIsItsSlowTwin lets money come into the staking pot, eras fail, and
// payouts be claimed or forgotten, and says for each era what of the pot it pays,
// as a list of parts: each intake in PotEras equal ones, what divides into none
// and what nobody gets being intake again. Spec §4.4.
func TestThePotIsItsSlowTwin(t *testing.T) {
	g := eraGenesis(t, 4, "payer")
	g.Params.Stake.PotEras, g.Params.Stake.HistoryEras = 5, 4
	c := newEraChain(t, g)
	rng := rand.New(rand.NewPCG(4, 8))
	var fresh coin.Amount // what no era has been promised yet
	var parts []coin.Amount
	kept, lapsed := 0, coin.Amount(0)
	for era := int64(0); era < 60; era++ {
		for _, name := range four {
			c.works[testID(t, name)] = unit
		}
		if rng.IntN(4) == 0 {
			clear(c.works)
		}
		x := coin.Amount(rng.Uint64N(1 << rng.IntN(30)))
		c.s.begin()
		if err := c.s.hold(testID(t, "payer"), potStaking, x); err != nil {
			t.Fatal(err)
		}
		c.s.end(true)
		fresh += x
		c.to(era)
		old, expires := earned.get(c.s, uint64(max(0, era-4)))
		c.block() // the first of the era after
		part := fresh / 5
		fresh -= part * 5
		parts = append(parts, part)
		want := coin.Amount(0)
		for _, p := range parts[max(0, len(parts)-5):] {
			want += p
		}
		e, ok := earned.get(c.s, uint64(era))
		if !ok {
			t.Fatalf("era %d earned nothing", era)
		}
		if e.Staking == 0 { // a kept set: what is for stake stays in the pot
			kept++
			fresh += want - want.Part(20, 100)
			want = want.Part(20, 100)
		}
		if e.Transferred != want {
			t.Fatalf("era %d pays %d of the pot, want %d", era, uint64(e.Transferred), uint64(want))
		}
		if era >= 4 && expires {
			fresh += old.Transferred - old.Drawn
			lapsed += old.Transferred - old.Drawn
		}
		if rng.IntN(3) > 0 {
			for _, name := range four {
				_ = c.do("payer", gpos.Msg{Payout: &gpos.Payout{Account: testID(t, name), Era: gpos.Era(era)}})
			}
		}
	}
	if kept < 5 || lapsed == 0 {
		t.Errorf("%d eras were kept, %d grains lapsed: want both", kept, uint64(lapsed))
	}
	promised := coin.Amount(0)
	earned.each(c.s, func(_ uint64, e gpos.Earned) bool {
		promised += e.Transferred - e.Drawn
		return true
	})
	for i, p := range parts[len(parts)-4:] {
		promised += p * coin.Amount(i+1)
	}
	if got := plans.must(c.s, all).Promised; got != promised || c.s.pot(potStaking) != promised+fresh {
		t.Errorf("%d promised, want %d; the pot has %d", uint64(got), uint64(promised), uint64(c.s.pot(potStaking)))
	}
}
