package gpos

import "github.com/lode-node/lode/coin"

// An Earned is what one era pays, fixed at its end (spec §4.4). Coins minted
// come to be when they are paid out; coins transferred wait in the staking pot.
type Earned struct {
	_           struct{}    `cbor:",toarray"`
	Minted      coin.Amount `json:"minted"`      // grains of inflation that the era may mint
	Transferred coin.Amount `json:"transferred"` // grains that the staking pot set aside for the era
	Authoring   coin.Amount `json:"authoring"`   // grains of both, shared by points
	Staking     coin.Amount `json:"staking"`     // grains of both, shared by effective stake
	Points      uint64      `json:"points"`      // of all validators
	Effective   coin.Amount `json:"effective"`   // grains of effective stake of all candidates
	Drawn       coin.Amount `json:"drawn"`       // grains of Transferred that were paid out
}

// Inflation returns the grains that era e may mint: 5 % of the genesis supply
// in the first year, ×0.88 a year, 2.8 % of the supply at least; from the fifth
// year on, while less than 30 % of the supply counts as stake, 8 % more at
// nothing staked, falling to none at 30 % (spec §4.4, Crust study §3.5).
func (p Params) Inflation(e Era, genesis, supply, effective coin.Amount) coin.Amount {
	year := uint64(e) / p.ErasPerYear
	a := genesis.Part(p.YearOne, million)
	floor := supply.Part(p.YearFloor, million)
	for i := uint64(0); i < year && a > floor; i++ {
		a = a.Part(p.YearFactor, million)
	}
	a = max(a, floor)
	if full := supply.Part(30, 100); year >= 4 && effective < full {
		a += (full - effective).Part(8, 30)
	}
	return a / coin.Amount(p.ErasPerYear)
}

// AuthoringPart returns the percent of an era's total that goes to those who
// wrote and signed its blocks, for a set of n (spec §4.4, Crust study §3.5).
func AuthoringPart(n uint64) uint64 {
	switch {
	case n <= 500:
		return 20
	case n <= 1000:
		return 25
	case n <= 2500:
		return 30
	case n <= 5000:
		return 40
	}
	return 50
}

// Earn fixes what an era pays, at its end: minted grains of inflation and
// transferred grains of the staking pot, for a set of n validators that made
// points, and effective grains over all candidates. An era whose set was kept
// has no staking share; the pot keeps that part of transferred (spec §4.3).
func Earn(minted, transferred coin.Amount, n, points uint64, effective coin.Amount, kept bool) Earned {
	percent := AuthoringPart(n)
	if kept {
		minted, transferred = minted.Part(percent, 100), transferred.Part(percent, 100)
		return Earned{Minted: minted, Transferred: transferred, Authoring: minted + transferred, Points: points}
	}
	total := minted + transferred
	authoring := total.Part(percent, 100)
	return Earned{
		Minted: minted, Transferred: transferred,
		Authoring: authoring, Staking: total - authoring,
		Points: points, Effective: effective,
	}
}

// Shares returns what x and its paid guarantors get of e when x's account made
// points, the account itself first, and how much of the sum is drawn from the
// staking pot; the rest is minted. Guarantors share the fee's part of all by
// what counts of each, rounded down; the account keeps what is left (spec §4.4).
func (e Earned) Shares(x Exposure, points uint64) (shares []Edge, drawn coin.Amount) {
	reward := coin.Amount(0)
	if e.Points > 0 {
		reward += e.Authoring.Part(min(points, e.Points), e.Points)
	}
	if e.Effective > 0 {
		reward += e.Staking.Part(uint64(min(x.Total, e.Effective)), uint64(e.Effective))
	}
	if reward == 0 {
		return nil, 0
	}
	pool := reward.Part(min(x.Fee, million), million)
	left := reward
	shares = append(shares, Edge{Account: x.Account})
	for _, g := range x.Paid() {
		if part := pool.Part(uint64(g.Amount), uint64(x.Total)); part > 0 {
			shares = append(shares, Edge{Account: g.Account, Amount: part})
			left -= part
		}
	}
	shares[0].Amount = left
	if shares[0].Amount == 0 {
		shares = shares[1:]
	}
	return shares, reward.Part(uint64(e.Transferred), uint64(e.Minted+e.Transferred))
}
