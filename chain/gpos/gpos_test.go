package gpos_test

import (
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

// TestRate holds the check values of spec §4.1, which are Crust's table
// (Crust study §3.2, appendix A).
func TestRate(t *testing.T) {
	const supply = 1_000_000
	for _, tt := range []struct {
		x    coin.Amount // effective stake in millionths of the supply
		want uint64
	}{
		{0, 659_350_000_000},
		{999, 659_350_000_000},
		{26_900, 11_802_830_188},
		{130_000, 1_878_735_632},
		{230_700, 781_670_281},
		{329_000, 351_517_450},
		{330_000, 350_000_000},
		{400_000, 350_000_000},
		{1_000_000, 350_000_000},
		{2_000_000, 350_000_000},
	} {
		if got := gpos.Rate(tt.x, supply); got != tt.want {
			t.Errorf("Rate(%d ppm) = %d, want %d", tt.x, got, tt.want)
		}
	}
	if got := gpos.Rate(0, 0); got != 659_350_000_000 {
		t.Errorf("Rate of an empty supply = %d", got)
	}
	if got := gpos.Rate(math.MaxUint64, 1); got != 350_000_000 {
		t.Errorf("Rate of all staked = %d", got)
	}
}

// TestLimitStages is the quota example of the Crust study, appendix A, in grains.
func TestLimitStages(t *testing.T) { // spec §4.1
	p := gpos.Main()
	const supply = 2_000_000 * coin.LODE
	const effective = 260_000 * coin.LODE // 13 %
	l := gpos.TotalLimit(effective, supply)
	if want := coin.Amount(3_757_471_264_000_000); l != want {
		t.Fatalf("L = %d, want %d", uint64(l), uint64(want))
	}
	for _, tt := range []struct {
		name       string
		own, total uint64
		want       coin.Amount
	}{
		{"stage one, a TiB is a LODE", 1 << 40, 1 << 60, coin.LODE},
		{"stage one, rounded down", 1<<40 + 1, 1 << 60, coin.LODE},
		{"stage one, the last grain", 1<<40 - 1, 1 << 60, coin.LODE - 1},
		{"stage two, shares of L", 1 << 40, 1 << 63, 447_925_479},
		{"stage two, all of it", 1 << 63, 1 << 63, l},
		{"no workload", 0, 1 << 60, 0},
		{"no workload at all", 0, 0, 0},
		{"more than all is all", 1 << 41, 1 << 40, coin.LODE},
	} {
		if got := p.Limit(tt.own, tt.total, effective, supply); got != tt.want {
			t.Errorf("%s: Limit(%d of %d) = %d, want %d", tt.name, tt.own, tt.total, uint64(got), uint64(tt.want))
		}
	}
}

// slowLimit is Limit written as spec §4.1 has it, without bounds.
func slowLimit(p gpos.Params, own, total uint64, effective, supply coin.Amount) *big.Int {
	n := func(v uint64) *big.Int { return new(big.Int).SetUint64(v) }
	if own == 0 || total == 0 {
		return n(0)
	}
	k := n(0)
	if supply > 0 {
		k.Mul(n(uint64(effective)), n(1000))
		k.Div(k, n(uint64(supply)))
	}
	if k.Cmp(n(999)) > 0 {
		k = n(999)
	}
	r := n(660_000_000_000)
	r.Div(r, k.Add(k.Mul(k, n(2)), n(1)))
	r.Sub(r, n(650_000_000))
	if r.Cmp(n(350_000_000)) < 0 {
		r = n(350_000_000)
	}
	l := r.Mul(r, n(uint64(supply)))
	l.Div(l, n(1_000_000_000))
	work := new(big.Int).Mul(n(total), n(p.GrainsPerTiB))
	if work.Cmp(new(big.Int).Lsh(l, 40)) < 0 {
		v := new(big.Int).Mul(n(own), n(p.GrainsPerTiB))
		return v.Rsh(v, 40)
	}
	v := l.Mul(l, n(own))
	return v.Div(v, n(total))
}

func TestLimitIsItsSlowTwin(t *testing.T) { // spec §4.1
	rng := rand.New(rand.NewPCG(4, 1))
	stages := [2]int{}
	for range 200_000 {
		p := gpos.Main()
		p.GrainsPerTiB = 1 + rng.Uint64()%(1<<40-1)>>rng.IntN(40)
		p.GrainsPerTiB = max(1, p.GrainsPerTiB)
		total := rng.Uint64() >> rng.IntN(64)
		own := uint64(0)
		if total > 0 {
			own = rng.Uint64() % total
		}
		supply := coin.Amount(rng.Uint64() >> rng.IntN(64))
		effective := coin.Amount(0)
		if supply > 0 {
			effective = coin.Amount(rng.Uint64()) % supply >> rng.IntN(20)
		}
		got, want := p.Limit(own, total, effective, supply), slowLimit(p, own, total, effective, supply)
		if !want.IsUint64() || uint64(got) != want.Uint64() {
			t.Fatalf("Limit(%d of %d, %d of %d grains, %d per TiB) = %d, want %d",
				own, total, uint64(effective), uint64(supply), p.GrainsPerTiB, uint64(got), want)
		}
		if coin.MulDiv(own, p.GrainsPerTiB, 1<<40) == uint64(got) {
			stages[0]++
		} else {
			stages[1]++
		}
	}
	if stages[0] < 10_000 || stages[1] < 10_000 {
		t.Errorf("cases in stage one and two: %v, want plenty of both", stages)
	}
}

// TestLimitsSumToAtMostTheTotal: what all may stake together is at most L.
func TestLimitsSumToAtMostTheTotal(t *testing.T) { // spec §4.1
	rng := rand.New(rand.NewPCG(4, 2))
	p := gpos.Dev()
	for range 5_000 {
		own := make([]uint64, 1+rng.IntN(10))
		total := uint64(0)
		for i := range own {
			own[i] = rng.Uint64N(1 << (1 + rng.IntN(58)))
			total += own[i]
		}
		supply := coin.Amount(1 + rng.Uint64N(1<<50))
		effective := coin.Amount(rng.Uint64N(uint64(supply)))
		got := coin.Amount(0)
		for _, o := range own {
			got += p.Limit(o, total, effective, supply)
		}
		if l := gpos.TotalLimit(effective, supply); got > l {
			t.Fatalf("limits of %v sum to %d, L is %d", own, uint64(got), uint64(l))
		}
	}
}

func TestParams(t *testing.T) { // spec §1.5
	const supply = 20_000_000 * coin.LODE
	for _, p := range []gpos.Params{gpos.Main(), gpos.Dev()} {
		if err := p.Check(supply); err != nil {
			t.Errorf("a preset is refused: %v", err)
		}
	}
	for _, tt := range []struct {
		want  string
		spoil func(*gpos.Params)
	}{
		{"validator_count", func(p *gpos.Params) { p.ValidatorCount = 0 }},
		{"min_validators", func(p *gpos.Params) { p.MinValidators = p.ValidatorCount + 1 }},
		{"min_validators", func(p *gpos.Params) { p.MinValidators = 0 }},
		{"grains_per_tib", func(p *gpos.Params) { p.GrainsPerTiB = 1 << 40 }},
		{"unbond_eras", func(p *gpos.Params) { p.UnbondEras = 1 }},
		{"history_eras", func(p *gpos.Params) { p.HistoryEras = 0 }},
		{"power_unit", func(p *gpos.Params) { p.PowerUnit = 0 }},
		{"min_bond", func(p *gpos.Params) { p.MinBond = 0 }},
		{"max_guarantors", func(p *gpos.Params) { p.MaxGuarantors = 0 }},
		{"max_guarantors", func(p *gpos.Params) { p.MaxGuarantors = 257 }},
		{"down_window", func(p *gpos.Params) { p.DownWindow = 1 }},
		{"down_slash", func(p *gpos.Params) { p.DownSlash = 1_000_001 }},
		{"min_slash", func(p *gpos.Params) { p.MinSlash = 1_000_001 }},
		{"eras_per_year", func(p *gpos.Params) { p.ErasPerYear = 0 }},
		{"year_one", func(p *gpos.Params) { p.YearOne = 1_000_001 }},
		{"year_factor", func(p *gpos.Params) { p.YearFactor = 1_000_000 }},
		{"year_floor", func(p *gpos.Params) { p.YearFloor = 1_000_001 }},
		{"pot_eras", func(p *gpos.Params) { p.PotEras = 0 }},
		{"proposer_points", func(p *gpos.Params) { p.ProposerPoints = 1001 }},
		{"signer_points", func(p *gpos.Params) { p.SignerPoints = 1001 }},
	} {
		p := gpos.Main()
		tt.spoil(&p)
		if err := p.Check(supply); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s out of range: error %v", tt.want, err)
		}
	}
	p := gpos.Main()
	p.PowerUnit = 1
	if err := p.Check(1 << 59); err == nil {
		t.Error("a power of 2^59 is accepted")
	}
	if err := p.Check(1<<59 - 1); err != nil {
		t.Errorf("a power below 2^59 is refused: %v", err)
	}
}

// TestParamsHaveBounds: each param is taken at either end of its range, and not
// one beyond. Spec §1.5.
func TestParamsHaveBounds(t *testing.T) {
	const most = math.MaxInt64
	for _, tt := range []struct {
		name   string
		at     func(p *gpos.Params, x uint64)
		lo, hi uint64
	}{
		{"validator_count", func(p *gpos.Params, x uint64) { p.ValidatorCount = x }, 1, 10_000},
		{"min_validators", func(p *gpos.Params, x uint64) { p.MinValidators, p.ValidatorCount = x, 7 }, 1, 7},
		{"grains_per_tib", func(p *gpos.Params, x uint64) { p.GrainsPerTiB = x }, 1, 1<<40 - 1},
		{"unbond_eras", func(p *gpos.Params, x uint64) { p.UnbondEras = x }, 2, 10_000},
		{"history_eras", func(p *gpos.Params, x uint64) { p.HistoryEras = x }, 1, 10_000},
		{"power_unit", func(p *gpos.Params, x uint64) { p.PowerUnit = coin.Amount(x) }, 1, most},
		{"min_bond", func(p *gpos.Params, x uint64) { p.MinBond = coin.Amount(x) }, 1, most},
		{"max_guarantors", func(p *gpos.Params, x uint64) { p.MaxGuarantors = x }, 1, 256},
		{"down_window", func(p *gpos.Params, x uint64) { p.DownWindow = x }, 2, 100_000},
		{"down_slash", func(p *gpos.Params, x uint64) { p.DownSlash = x }, 0, 1_000_000},
		{"min_slash", func(p *gpos.Params, x uint64) { p.MinSlash = x }, 0, 1_000_000},
		{"eras_per_year", func(p *gpos.Params, x uint64) { p.ErasPerYear = x }, 1, 10_000_000},
		{"year_one", func(p *gpos.Params, x uint64) { p.YearOne = x }, 0, 1_000_000},
		{"year_factor", func(p *gpos.Params, x uint64) { p.YearFactor = x }, 0, 999_999},
		{"year_floor", func(p *gpos.Params, x uint64) { p.YearFloor = x }, 0, 1_000_000},
		{"pot_eras", func(p *gpos.Params, x uint64) { p.PotEras = x }, 1, 1000},
		{"proposer_points", func(p *gpos.Params, x uint64) { p.ProposerPoints = x }, 0, 1000},
		{"signer_points", func(p *gpos.Params, x uint64) { p.SignerPoints = x }, 0, 1000},
	} {
		for _, c := range []struct {
			x    uint64
			want bool
		}{{tt.lo, true}, {tt.hi, true}, {tt.lo - 1, false}, {tt.hi + 1, false}} {
			p := gpos.Main()
			p.MinValidators = 1
			tt.at(&p, c.x) // below 0 is far above
			if err := p.Check(1); (err == nil) != c.want || err != nil && !strings.Contains(err.Error(), tt.name) {
				t.Errorf("%s of %d: error %v, want taken: %v", tt.name, c.x, err, c.want)
			}
		}
	}
}
