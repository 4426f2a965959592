package credit

import (
	"fmt"
	"math/bits"

	"github.com/lode-node/lode/coin"
)

// An Input is one thing that went into the chance that a peer serves.
type Input struct {
	Name   string `json:"name"`
	Hits   uint64 `json:"hits"`   // millionths of a request
	Misses uint64 `json:"misses"` // weighed, millionths of a request
	Why    string `json:"why"`
}

// An Account is an expected time with every step that leads to it. Inputs sum to
// Hits and Misses, these give Mean and Deviation, of which P is the difference
// but never below 0, and Terms sum to Micros.
type Account struct {
	Inputs    []Input `json:"inputs"`
	Hits      uint64  `json:"hits"`
	Misses    uint64  `json:"misses"`
	Mean      uint64  `json:"mean_ppm"`
	Deviation uint64  `json:"deviation_ppm"` // one standard deviation of the posterior
	P         uint64  `json:"p_ppm"`         // lower bound
	Floor     uint64  `json:"floor_ppm"`     // below it the peer is asked only if nobody better is left
	Terms     []Term  `json:"terms"`
	Micros    uint64  `json:"expected_us"`
}

// Account returns how Expect of the same arguments comes about (spec §7.2).
func (p Params) Account(e Entry, prior Prior, size uint64) Account {
	prior = p.fill(prior)
	a := Account{
		Inputs: []Input{
			{"prior", prior.Weight * prior.P, prior.Weight * (million - prior.P), fmt.Sprintf("%s, worth %d requests", percent(prior.P), prior.Weight)},
			{"duties", e.DutyHits, e.DutyMisses, story(e.Duty, "DONT_HAVE from a proven holder")},
			{"other requests", e.Hits, e.Misses, story(e.Other, "DONT_HAVE, which is free")},
		},
		Floor: p.Floor, Terms: Explain(p, e, prior, size),
	}
	for _, in := range a.Inputs {
		a.Hits, a.Misses = add(a.Hits, in.Hits), add(a.Misses, in.Misses)
	}
	a.Mean, a.Deviation = p.posterior(e, prior)
	a.P = a.Mean - min(a.Deviation, a.Mean)
	for _, t := range a.Terms {
		a.Micros += t.Micros
	}
	return a
}

// story says what was counted, before it faded.
func story(t Tally, dontHave string) string {
	switch {
	case t.Asked() == 0:
		return "none yet"
	case t.Missed() == 0:
		return fmt.Sprintf("%d served, faded since", t.Served)
	}
	return fmt.Sprintf("%d served, %d not: %s; faded since", t.Served, t.Missed(), t.kinds(dontHave))
}

// A Part is one part of a prior.
type Part struct {
	Name string `json:"name"`
	PPM  uint64 `json:"ppm"`
	Why  string `json:"why"`
}

// ChainParts returns the parts that sum to the P of Chain of the same arguments
// (spec §7.2, §7.7).
func (p Params) ChainParts(proven bool, onChain coin.Amount) []Part {
	base := Part{"newcomer", p.Newcomer, "it proved nothing in the last slot"}
	if proven {
		base = Part{"proven", p.Proven, "its enclave reported in the last slot"}
	}
	doublings := uint64(bits.Len64(1+uint64(onChain/p.CreditUnit)) - 1)
	more := Part{"credit", p.Chain(proven, onChain).P - base.PPM, fmt.Sprintf("%v on chain: %d doublings, of which at most 3 count", onChain, doublings)}
	return []Part{base, more}
}

// Shared returns the prior of a member of a group whose entry, of all its members
// together, is e: what was seen of the others weighs as much as the chain's word
// does, so that who puts up another node under a bad name does not begin anew
// (spec §7.1). Without history it is the chain's own.
func (p Params) Shared(e Entry, prior Prior) Prior {
	prior = p.fill(prior)
	prior.P, _ = p.posterior(e, prior)
	prior.P = min(max(prior.P, 1), million-1)
	return prior
}
