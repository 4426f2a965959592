package gpos

import (
	"cmp"
	"errors"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// ErrTooFew is returned by Elect when fewer candidates than MinValidators can
// be elected: the set is then kept (spec §4.3).
var ErrTooFew = errors.New("too few candidates can be elected")

// An Entrant is an account at an election: its stake and, for a candidate, its
// limit in grains (spec §4.1).
type Entrant struct {
	Account peer.ID
	Stake   Stake
	Limit   coin.Amount
}

// An Exposure is what an account and its guarantors answer for, and are paid
// for, in one era. It is a snapshot: later bonds and cuts do not touch it, a
// slash does (spec §4.3).
type Exposure struct {
	_       struct{}    `cbor:",toarray"`
	Account peer.ID     `json:"account"`
	Key     []byte      `json:"key"`              // consensus key of the era
	Fee     uint64      `json:"fee"`              // ppm of the rewards that guarantors share
	Own     coin.Amount `json:"own"`              // grains of the account itself that count
	Total   coin.Amount `json:"total"`            // Own and Others: the effective stake
	Others  []Edge      `json:"others,omitempty"` // guarantors with what counts of each, the largest first
	Power   int64       `json:"power"`            // voting power, 0 for a candidate that was not elected
	Kept    bool        `json:"kept,omitempty"`   // copied from the era before, or from genesis
}

// Elected reports whether x has a seat in the set of its era.
func (x Exposure) Elected() bool { return x.Power > 0 }

// Paid returns the guarantors that share in the rewards, the largest first.
func (x Exposure) Paid() []Edge { return x.Others[:min(len(x.Others), PaidGuarantors)] }

// An Election is the outcome of one: an exposure for every candidate whose
// stake counts, best first, those with a seat before the others.
type Election struct {
	Exposures []Exposure
	Seats     int         // how many of them, from the first, are elected
	Effective coin.Amount // effective stake in grains of all of them
}

// Power returns the voting power of total grains of effective stake
// (spec §4.3).
func (p Params) Power(total coin.Amount) int64 {
	return max(1, int64(min(total/p.PowerUnit, 1<<59)))
}

// Elect holds the election over all accounts that have a stake, in any order
// and none twice. A candidate has at least MinBond of its own at stake: who sits
// on the bonds of others alone has nothing to lose (spec §4.3). The error is ErrTooFew, and the Election then
// tells who stood, with no seat for anyone.
func (p Params) Elect(all []Entrant) (Election, error) {
	place := make(map[peer.ID]int) // of a candidate in stands; never iterated
	var stands []Exposure
	var limits []coin.Amount
	for _, e := range all {
		c := e.Stake.Candidate
		if c == nil || e.Stake.Jailed() || e.Stake.Active < p.MinBond || e.Limit == 0 {
			continue
		}
		place[e.Account] = len(stands)
		stands = append(stands, Exposure{Account: e.Account, Key: c.Key, Fee: c.Fee, Own: e.Stake.Active})
		limits = append(limits, e.Limit)
	}
	for _, e := range all {
		for _, edge := range e.Stake.Edges {
			if i, ok := place[edge.Account]; ok {
				stands[i].Others = append(stands[i].Others, Edge{Account: e.Account, Amount: edge.Amount})
			}
		}
	}
	var out Election
	for i, x := range stands {
		if x = x.scale(limits[i]); x.Total > 0 {
			out.Exposures = append(out.Exposures, x)
			out.Effective += x.Total
		}
	}
	slices.SortFunc(out.Exposures, func(a, b Exposure) int {
		if c := cmp.Compare(b.Total, a.Total); c != 0 {
			return c
		}
		return cmp.Compare(a.Account, b.Account)
	})
	if uint64(len(out.Exposures)) < max(1, p.MinValidators) {
		return out, ErrTooFew
	}
	out.Seats = int(min(uint64(len(out.Exposures)), p.ValidatorCount))
	for i := range out.Exposures[:out.Seats] {
		out.Exposures[i].Power = p.Power(out.Exposures[i].Total)
	}
	return out, nil
}

// scale reduces own and every guarantor alike by min(1, limit/(own +
// guaranteed)), each rounded down, so that the total is at most limit.
func (x Exposure) scale(limit coin.Amount) Exposure {
	raw := x.Own + sum(x.Others)
	if raw > limit {
		x.Own = x.Own.Part(uint64(limit), uint64(raw))
		for i := range x.Others {
			x.Others[i].Amount = x.Others[i].Amount.Part(uint64(limit), uint64(raw))
		}
	}
	x.Others = slices.DeleteFunc(x.Others, func(e Edge) bool { return e.Amount == 0 })
	slices.SortFunc(x.Others, bySize)
	x.Total = x.Own + sum(x.Others)
	return x
}

// Genesis returns the exposure of a first validator: its bond in full, for as
// long as no election has succeeded (spec §4.3).
func (p Params) Genesis(account peer.ID, key []byte, bond coin.Amount) Exposure {
	return Exposure{Account: account, Key: slices.Clone(key), Own: bond, Total: bond, Power: p.Power(bond), Kept: true}
}

// Keep returns the elected of set as the set of the era that follows one in
// which too few could be elected. What was slashed has already left the
// exposures; powers follow (spec §4.3).
func (p Params) Keep(set []Exposure) []Exposure {
	var out []Exposure
	for _, x := range set {
		if !x.Elected() {
			continue
		}
		x.Others = slices.Clone(x.Others)
		x.Power = p.Power(x.Total)
		x.Kept = true
		out = append(out, x)
	}
	return out
}
