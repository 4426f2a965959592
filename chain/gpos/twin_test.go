package gpos_test

import (
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

// slow are integers of any size.
func slow(x uint64) *big.Int { return new(big.Int).SetUint64(x) }

// part is ⌊a·b/c⌋, zero for a c of zero.
func part(a, b, c *big.Int) *big.Int {
	if c.Sign() == 0 {
		return new(big.Int)
	}
	return new(big.Int).Quo(new(big.Int).Mul(a, b), c)
}

func least(a, b *big.Int) *big.Int {
	if a.Cmp(b) < 0 {
		return a
	}
	return b
}

// TestRewardsAreTheirSlowTwin computes what an era mints, how it is split, and who
// gets what of it, in integers of any size (spec §4.4).
func TestRewardsAreTheirSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 3))
	p := gpos.Main()
	for range 20_000 {
		genesis, supply := rng.Uint64()>>(1+rng.IntN(40)), rng.Uint64()>>(1+rng.IntN(40))
		effective := supply / (1 + rng.Uint64N(10))
		era := gpos.Era(rng.Uint64N(12 * p.ErasPerYear))
		a := part(slow(genesis), slow(5), slow(100))
		floor := part(slow(supply), slow(28), slow(1000))
		year := uint64(era) / p.ErasPerYear
		for range year { // a few more steps below the floor change nothing
			a = part(a, slow(88), slow(100))
		}
		if a.Cmp(floor) < 0 {
			a = floor
		}
		if full := part(slow(supply), slow(30), slow(100)); year >= 4 && slow(effective).Cmp(full) < 0 {
			a = new(big.Int).Add(a, part(new(big.Int).Sub(full, slow(effective)), slow(8), slow(30)))
		}
		want := a.Quo(a, slow(p.ErasPerYear))
		got := p.Inflation(era, coin.Amount(genesis), coin.Amount(supply), coin.Amount(effective))
		if want.Cmp(slow(uint64(got))) != 0 {
			t.Fatalf("era %d of %d genesis, %d supply, %d effective: %d, want %v", era, genesis, supply, effective, uint64(got), want)
		}
	}
	for range 20_000 {
		minted, moved := coin.Amount(rng.Uint64()>>(2+rng.IntN(50))), coin.Amount(rng.Uint64()>>(2+rng.IntN(50)))
		points, x := 1+rng.Uint64N(1e6), gpos.Exposure{Account: who(1), Fee: rng.Uint64N(1_100_000), Own: coin.Amount(1 + rng.Uint64()>>(2+rng.IntN(50)))}
		x.Total = x.Own
		for i := range rng.IntN(70) {
			x.Others = append(x.Others, gpos.Edge{Account: who(byte(i + 2)), Amount: coin.Amount(1 + rng.Uint64()>>(8+rng.IntN(50)))})
			x.Total += x.Others[i].Amount
		}
		effective := x.Total + coin.Amount(rng.Uint64()>>(2+rng.IntN(50)))
		e := gpos.Earn(minted, moved, 1+rng.Uint64N(6000), points, effective, rng.IntN(4) == 0)
		if e.Authoring+e.Staking != e.Minted+e.Transferred {
			t.Fatalf("%+v shares what it has not got", e)
		}
		made := rng.Uint64N(points + 1)
		reward := part(slow(uint64(e.Authoring)), slow(made), slow(e.Points))
		reward.Add(reward, part(slow(uint64(e.Staking)), slow(uint64(x.Total)), slow(uint64(e.Effective))))
		pool := part(reward, least(slow(x.Fee), slow(1_000_000)), slow(1_000_000))
		left := new(big.Int).Set(reward)
		want := map[string]*big.Int{}
		for i, g := range x.Others {
			if i < gpos.PaidGuarantors {
				y := part(pool, slow(uint64(g.Amount)), slow(uint64(x.Total)))
				want[string(g.Account)] = y
				left.Sub(left, y)
			}
		}
		want[string(x.Account)] = left
		shares, drawn := e.Shares(x, made)
		for _, s := range shares {
			if want[string(s.Account)].Cmp(slow(uint64(s.Amount))) != 0 {
				t.Fatalf("%+v of %+v: %v gets %d, want %v", x, e, s.Account, uint64(s.Amount), want[string(s.Account)])
			}
			delete(want, string(s.Account))
		}
		for who, y := range want {
			if y.Sign() != 0 {
				t.Fatalf("%+v of %+v: %q gets nothing, want %v", x, e, who, y)
			}
		}
		if y := part(reward, slow(uint64(e.Transferred)), slow(uint64(e.Minted+e.Transferred))); y.Cmp(slow(uint64(drawn))) != 0 {
			t.Fatalf("%+v of %+v: %d drawn from the pot, want %v", x, e, uint64(drawn), y)
		}
	}
}

// TestSlashesAreTheirSlowTwin computes how much an equivocation costs, of whom, in
// integers of any size (spec §4.5).
func TestSlashesAreTheirSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for range 20_000 {
		p := gpos.Main()
		p.MinSlash = rng.Uint64N(1_000_001)
		k, n := 1+rng.Uint64N(200), rng.Uint64N(10_001)
		want := slow(1_000_000)
		if n > 0 {
			want = least(want, part(slow(9*k*k), slow(1_000_000), slow(n*n)))
		}
		if floor := slow(p.MinSlash); want.Cmp(floor) < 0 {
			want = floor
		}
		ppm := p.EquivocationPart(k, n)
		if want.Cmp(slow(ppm)) != 0 {
			t.Fatalf("%d of %d: %d ppm, want %v", k, n, ppm, want)
		}
		x := gpos.Exposure{Account: who(1), Own: coin.Amount(rng.Uint64() >> (2 + rng.IntN(60))), Power: 1}
		x.Total = x.Own
		for i := range rng.IntN(5) {
			x.Others = append(x.Others, gpos.Edge{Account: who(byte(i + 2)), Amount: coin.Amount(1 + rng.Uint64()>>(8+rng.IntN(50)))})
			x.Total += x.Others[i].Amount
		}
		after, losses := p.Slash(x, ppm)
		sum := coin.Amount(0)
		for _, l := range losses {
			stood := x.Own
			for _, e := range x.Others {
				if e.Account == l.Account {
					stood = e.Amount
				}
			}
			if y := part(slow(uint64(stood)), slow(ppm), slow(1_000_000)); y.Cmp(slow(uint64(l.Amount))) != 0 {
				t.Fatalf("%v of %d at %d ppm: %d, want %v", l.Account, uint64(stood), ppm, uint64(l.Amount), y)
			}
			sum += l.Amount
		}
		if after.Total+sum != x.Total {
			t.Fatalf("%+v less %d is %+v", x, uint64(sum), after)
		}
	}
}
