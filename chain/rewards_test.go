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

// TestPointsAreTwentyABlockAndOneACommit, whoever misses a commit or has another
// make its block, and the authors' share goes by them. Spec §4.4.
func TestPointsAreTwentyABlockAndOneACommit(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4))
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	c.to(1)
	want := map[string]uint64{}
	for _, name := range four {
		want[name] = 12 // an era has twelve commits, and none is missed so far
	}
	rng := rand.New(rand.NewPCG(4, 9))
	for range 12 {
		missing := four[rng.IntN(4)]
		c.absent = map[string]bool{consPub(t, missing): true}
		want[missing]--
		first := "" // who makes blocks here: the first key that is there
		for _, name := range four {
			if name != missing && (first == "" || consPub(t, name) < consPub(t, first)) {
				first = name
			}
		}
		want[first] += 20
		c.block()
	}
	c.absent = map[string]bool{}
	c.block()
	e, _ := earned.get(c.s, 2)
	sum := uint64(0)
	for _, name := range four {
		got := points(c.s, c.s.params, 2, testID(t, name))
		if got != want[name] {
			t.Errorf("%s made %d points, want %d", name, got, want[name])
		}
		sum += want[name]
	}
	if e.Points != sum || sum != 12*20+3*12 {
		t.Errorf("%d points in all, want %d", e.Points, sum)
	}
	for _, name := range four {
		before := c.stakeOf(name).Active
		c.must(name, gpos.Msg{Payout: &gpos.Payout{Account: testID(t, name), Era: 2}})
		if got, want := c.stakeOf(name).Active-before, e.Authoring.Part(want[name], sum)+e.Staking.Part(1, 4); got != want {
			t.Errorf("%s got %d, want %d", name, uint64(got), uint64(want))
		}
	}
}

// TestARewardFindsWhoHasLeft: it compounds where there is a bond, be it only
// unlocking, and is free money where there is none. Spec §4.4.
func TestARewardFindsWhoHasLeft(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4, "stays", "leaves", "left"))
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	v1 := testID(t, "v1")
	c.must("v1", c.validateMsg("v1", 1_000_000))
	c.to(1)
	for _, name := range []string{"stays", "leaves", "left"} {
		c.must(name, bondMsg(2_000_000))
		c.must(name, gpos.Msg{Guarantee: &gpos.Guarantee{Target: v1, Amount: 2_000_000}})
	}
	c.to(2)
	c.block() // era 3, whose exposure has all three
	c.must("left", gpos.Msg{Chill: &gpos.Chill{}})
	c.must("left", gpos.Msg{Unbond: &gpos.Unbond{Amount: 2_000_000}})
	c.to(5)
	c.must("leaves", gpos.Msg{Chill: &gpos.Chill{}})
	c.must("leaves", gpos.Msg{Unbond: &gpos.Unbond{Amount: 2_000_000}})
	c.block()
	c.must("left", gpos.Msg{Withdraw: &gpos.Withdraw{}})
	c.must("v1", gpos.Msg{Payout: &gpos.Payout{Account: v1, Era: 3}})
	reward := c.stakeOf("stays").Active - 2_000_000
	for name, want := range map[string][3]coin.Amount{
		"stays":  {1000*coin.LODE - 2_000_000, 2_000_000 + reward, 0},
		"leaves": {1000*coin.LODE - 2_000_000, reward, 2_000_000},
		"left":   {1000*coin.LODE + reward, 0, 0},
	} {
		st := c.stakeOf(name)
		if got := [3]coin.Amount{c.s.free(testID(t, name)), st.Active, st.Unbonding()}; got != want || reward == 0 {
			t.Errorf("%s has %v free, active and unlocking, want %v", name, got, want)
		}
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
