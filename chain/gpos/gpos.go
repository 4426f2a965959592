// Package gpos is Guaranteed Proof of Stake as pure rules: who may stake how
// much (bounded by proven storage), who validates, what they earn and what
// they lose (spec §4). Values go in and values come out; the chain loads, calls
// a rule and saves. On an error nothing that was passed in has changed.
//
// An account's whole standing is one [Stake]. [Params.Limit] turns workload
// into the most stake that counts, [Params.Elect] turns all stakes into a set
// with an [Exposure] each, and [Params.Slash] and [Params.Shares] work on that
// exposure, never on the stake of the day.
package gpos

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/lode-node/lode/coin"
)

// Bounds of one account's record; they bound decoding too, so they are not
// parameters (spec §4.2, §4.3).
const (
	MaxTargets     = 16 // accounts that one guarantor backs at a time
	MaxChunks      = 32 // unlocking chunks of one account
	PaidGuarantors = 64 // guarantors of one exposure that are paid, the largest first
)

// million and billion are the denominators of ratios (spec §1.1).
const (
	million = 1_000_000
	billion = 1_000_000_000
	tib     = 1 << 40 // bytes of a TiB
)

// An Era counts elections: era = slot / EraSlots, the chain's parameter
// (spec §1.4).
type Era uint64

// Params are the parameters of spec §4, fixed in genesis, one value for the
// whole chain. Ratios are parts per million.
type Params struct {
	ValidatorCount uint64      `json:"validator_count"` // seats of the set
	MinValidators  uint64      `json:"min_validators"`  // fewer electable than this and the set is kept (spec §4.3)
	GrainsPerTiB   uint64      `json:"grains_per_tib"`  // stake that a TiB of workload carries in stage one; below 2^40
	UnbondEras     uint64      `json:"unbond_eras"`     // eras from Unbond to Withdraw
	HistoryEras    uint64      `json:"history_eras"`    // eras in which a payout can be claimed; never changed after genesis
	PowerUnit      coin.Amount `json:"power_unit"`      // grains of effective stake for one unit of voting power; never changed
	MinBond        coin.Amount `json:"min_bond"`        // grains; the least active bond and guarantee, less is dust
	MaxGuarantors  uint64      `json:"max_guarantors"`  // accounts that back one candidate at a time; beyond it the largest stay (spec §4.2)
	DownWindow     uint64      `json:"down_window"`     // commits over which a validator is judged (spec §4.5); never changed after genesis
	DownSlash      uint64      `json:"down_slash"`      // ppm of the exposure lost for being down
	MinSlash       uint64      `json:"min_slash"`       // ppm, the least loss for an equivocation
	ErasPerYear    uint64      `json:"eras_per_year"`   // eras of an inflation year
	YearOne        uint64      `json:"year_one"`        // ppm of the genesis supply minted in the first year
	YearFactor     uint64      `json:"year_factor"`     // ppm by which that falls each year
	YearFloor      uint64      `json:"year_floor"`      // ppm of the supply, the least that is minted in a year
	PotEras        uint64      `json:"pot_eras"`        // eras over which an era's intake of the staking pot is paid; never changed after genesis
	ProposerPoints uint64      `json:"proposer_points"` // points for a block proposed
	SignerPoints   uint64      `json:"signer_points"`   // points for a commit signed
}

// Main returns the parameters of the main network (spec §1.5).
func Main() Params {
	return Params{
		ValidatorCount: 100, MinValidators: 4,
		GrainsPerTiB: 1_000_000_000,
		UnbondEras:   112, HistoryEras: 84,
		PowerUnit: 1_000_000, MinBond: 1_000_000, MaxGuarantors: PaidGuarantors,
		DownWindow: 1200, DownSlash: 1_000, MinSlash: 50_000,
		ErasPerYear: 1461, YearOne: 50_000, YearFactor: 880_000, YearFloor: 28_000,
		PotEras: 60, ProposerPoints: 20, SignerPoints: 1,
	}
}

// Dev returns the parameters of a devnet, whose eras are minutes (spec §1.5).
func Dev() Params {
	p := Main()
	p.ValidatorCount, p.MinValidators = 20, 1
	p.GrainsPerTiB = 1_000_000_000_000
	p.UnbondEras, p.HistoryEras = 3, 6
	p.PowerUnit, p.MinBond = 1_000, 1_000
	p.DownWindow = 40
	return p
}

// Check returns an error that names the first parameter out of its range, for
// a chain that starts with supply grains (spec §1.5).
func (p Params) Check(supply coin.Amount) error {
	for _, r := range []struct {
		name         string
		got, lo, top uint64
	}{
		{"validator_count", p.ValidatorCount, 1, 10_000},
		{"min_validators", p.MinValidators, 1, p.ValidatorCount},
		{"grains_per_tib", p.GrainsPerTiB, 1, tib - 1},
		{"unbond_eras", p.UnbondEras, 2, 10_000},
		{"history_eras", p.HistoryEras, 1, 10_000},
		{"power_unit", uint64(p.PowerUnit), 1, math.MaxInt64},
		{"min_bond", uint64(p.MinBond), 1, math.MaxInt64},
		{"max_guarantors", p.MaxGuarantors, 1, 256},
		{"down_window", p.DownWindow, 2, 100_000},
		{"down_slash", p.DownSlash, 0, million},
		{"min_slash", p.MinSlash, 0, million},
		{"eras_per_year", p.ErasPerYear, 1, 10_000_000},
		{"year_one", p.YearOne, 0, million},
		{"year_factor", p.YearFactor, 0, million - 1},
		{"year_floor", p.YearFloor, 0, million},
		{"pot_eras", p.PotEras, 1, 1000},
		{"proposer_points", p.ProposerPoints, 0, 1000},
		{"signer_points", p.SignerPoints, 0, 1000},
	} {
		if r.got < r.lo || r.got > r.top {
			return fmt.Errorf("stake param %s: %d is not in [%d, %d]", r.name, r.got, r.lo, r.top)
		}
	}
	// CometBFT takes a total power of at most 2^60; half of it leaves room for
	// the unit that every elected account has at least (spec §4.3).
	if uint64(supply)/uint64(p.PowerUnit) >= 1<<59 {
		return fmt.Errorf("stake param power_unit: %d is too small for a supply of %d grains", p.PowerUnit, uint64(supply))
	}
	return nil
}

// Rate returns r, the total stake limit as parts per billion of the supply,
// when effective grains of supply grains counted at the last election
// (spec §4.1). A supply of zero counts as one in which nothing is staked.
func Rate(effective, supply coin.Amount) uint64 {
	k := uint64(0)
	if supply > 0 {
		k = 999
		if q, ok := coin.MulDivOK(uint64(effective), 1000, uint64(supply)); ok {
			k = min(k, q)
		}
	}
	const rest, least = 650_000_000, 350_000_000
	r := 660 * billion / (2*k + 1)
	if r < rest+least {
		return least
	}
	return r - rest
}

// TotalLimit returns L, the most stake in grains that counts in all when
// storage is plentiful (spec §4.1); what does not fit into 64 bits, and is more
// than there can be, is the largest amount.
func TotalLimit(effective, supply coin.Amount) coin.Amount {
	l, ok := coin.MulDivOK(uint64(supply), Rate(effective, supply), billion)
	if !ok {
		return math.MaxUint64
	}
	return coin.Amount(l)
}

// Limit returns the most stake in grains that counts for an account with a
// workload of own bytes out of total, where effective grains of supply counted
// at the last election (spec §4.1). An account with no workload has none.
func (p Params) Limit(own, total uint64, effective, supply coin.Amount) coin.Amount {
	own = min(own, total)
	if own == 0 {
		return 0
	}
	if !p.Plentiful(total, effective, supply) {
		return coin.Amount(coin.MulDiv(own, p.GrainsPerTiB, tib))
	}
	return coin.Amount(coin.MulDiv(own, uint64(TotalLimit(effective, supply)), total))
}

// Plentiful reports whether a workload of total bytes carries all that may count,
// so that limits are shares of it: stage two. Stage one is while
// total·GrainsPerTiB < L·2^40, both through 128 bits (spec §4.1).
func (p Params) Plentiful(total uint64, effective, supply coin.Amount) bool {
	wHi, wLo := bits.Mul64(total, p.GrainsPerTiB)
	lHi, lLo := bits.Mul64(uint64(TotalLimit(effective, supply)), tib)
	return wHi > lHi || wHi == lHi && wLo >= lLo
}
