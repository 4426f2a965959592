package gpos_test

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

func TestInflation(t *testing.T) { // spec §4.4
	p := gpos.Main()
	const genesis = 20_000_000 * coin.LODE
	year := gpos.Era(p.ErasPerYear)
	const full = genesis / 2 // more than 30 % counts: no supplement
	perEra := func(x coin.Amount) coin.Amount { return x / 1461 }
	for _, tt := range []struct {
		name              string
		e                 gpos.Era
		supply, effective coin.Amount
		want              coin.Amount
	}{
		{"first era: 5 %", 0, genesis, full, perEra(1_000_000 * coin.LODE)},
		{"last era of the first year", year - 1, genesis, full, perEra(1_000_000 * coin.LODE)},
		{"second year: ×0.88", year, genesis, full, perEra(880_000 * coin.LODE)},
		{"third year", 2 * year, genesis, full, perEra(774_400 * coin.LODE)},
		{"the floor: 2.8 % of the supply", 3 * year, 30_000_000 * coin.LODE, full, perEra(840_000 * coin.LODE)},
		{"far away: the floor", 1000 * year, genesis, full, perEra(560_000 * coin.LODE)},
		{"fifth year, little at stake", 4 * year, genesis, genesis / 10, perEra(599_695_360*coin.LODE/1000 + genesis/5*8/30)},
		{"fourth year, little at stake", 3 * year, genesis, 0, perEra(681_472 * coin.LODE)},
		{"fifth year, nothing at stake: 8 % more", 4 * year, genesis, 0, perEra(599_695_360*coin.LODE/1000 + 1_600_000*coin.LODE)},
	} {
		if got := p.Inflation(tt.e, genesis, tt.supply, tt.effective); got != tt.want {
			t.Errorf("%s: era %d mints %v, want %v", tt.name, tt.e, got, tt.want)
		}
	}
	for _, tt := range []struct{ n, want uint64 }{{1, 20}, {500, 20}, {501, 25}, {1000, 25}, {1001, 30}, {2500, 30}, {2501, 40}, {5000, 40}, {5001, 50}} {
		if got := gpos.AuthoringPart(tt.n); got != tt.want {
			t.Errorf("a set of %d: %d %% for authors, want %d", tt.n, got, tt.want)
		}
	}
}

func TestShares(t *testing.T) { // spec §4.4
	x := gpos.Exposure{Account: who(1), Fee: 500_000, Own: 500, Total: 1000, Others: []gpos.Edge{edge(2, 300), edge(3, 200)}, Power: 1}
	e := gpos.Earn(9_000, 1_000, 4, 100, 2000, false)
	if e.Authoring != 2_000 || e.Staking != 8_000 {
		t.Fatalf("Earn = %+v, want 2000 for authors and 8000 for stake", e)
	}
	// 2000·25/100 + 8000·1000/2000 = 4500, half of it for guarantors by stake.
	shares, drawn := e.Shares(x, 25)
	if want := []gpos.Edge{edge(1, 3_375), edge(2, 675), edge(3, 450)}; !reflect.DeepEqual(shares, want) || drawn != 450 {
		t.Errorf("shares %+v, %d from the pot; want %+v and 450", shares, uint64(drawn), want)
	}
	if shares, _ := e.Shares(gpos.Exposure{Account: who(1), Own: 9, Total: 9_000}, 7_000); !reflect.DeepEqual(shares, []gpos.Edge{edge(1, 10_000)}) {
		t.Errorf("more points and stake than all: %+v, want what the era earned", shares)
	}
	kept := gpos.Earn(9_000, 1_000, 4, 100, 2000, true)
	if want := (gpos.Earned{Minted: 1_800, Transferred: 200, Authoring: 2_000, Points: 100}); kept != want {
		t.Errorf("Earn of a kept set = %+v, want %+v: authors only", kept, want)
	}
	if shares, drawn := kept.Shares(x, 0); shares != nil || drawn != 0 {
		t.Errorf("one who did nothing in a kept set gets %v, %d", shares, uint64(drawn))
	}
	x.Fee, x.Others = 0, nil
	x.Own = x.Total
	if shares, _ := e.Shares(x, 25); !reflect.DeepEqual(shares, []gpos.Edge{edge(1, 4_500)}) {
		t.Errorf("without guarantors: %+v, want all of 4500", shares)
	}
	if shares, _ := (gpos.Earned{}).Shares(x, 5); shares != nil {
		t.Errorf("an era that earned nothing pays %v", shares)
	}
}

// TestSharesStayWithinTheEra: all who claim together get at most what the era
// earned, of minted and of transferred coins each. Spec §4.4, §9.1.
func TestSharesStayWithinTheEra(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 6))
	for range 3_000 {
		p := params()
		var all []gpos.Entrant
		n := byte(1 + rng.IntN(8))
		for i := range n {
			e := stands(i, coin.Amount(1+rng.Uint64N(1<<40)), coin.Amount(1+rng.Uint64N(1<<40)))
			e.Stake.Candidate.Fee = rng.Uint64N(1_000_001)
			all = append(all, e)
		}
		for i := range byte(rng.IntN(100)) {
			all = append(all, backs(100+i, edge(byte(rng.IntN(int(n))), coin.Amount(1+rng.Uint64N(1<<40)))))
		}
		got, err := p.Elect(all)
		if err != nil {
			t.Fatal(err)
		}
		points := make([]uint64, len(got.Exposures))
		total := uint64(0)
		for i := range got.Seats {
			points[i] = rng.Uint64N(5000)
			total += points[i]
		}
		e := gpos.Earn(coin.Amount(rng.Uint64N(1<<50)), coin.Amount(rng.Uint64N(1<<50)), uint64(got.Seats), total, got.Effective, rng.IntN(4) == 0)
		paid, drawn := coin.Amount(0), coin.Amount(0)
		for i, x := range got.Exposures {
			shares, d := e.Shares(x, points[i])
			sum := coin.Amount(0)
			for _, s := range shares {
				sum += s.Amount
			}
			if d > sum {
				t.Fatalf("%d drawn from the pot for a payout of %d", uint64(d), uint64(sum))
			}
			paid += sum
			drawn += d
		}
		if drawn > e.Transferred || paid-drawn > e.Minted+coin.Amount(len(got.Exposures)) || paid > e.Minted+e.Transferred {
			t.Fatalf("paid %d, of that %d from the pot, of %+v", uint64(paid), uint64(drawn), e)
		}
	}
}
