package credit

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// A Prior is the chain's word on a peer before we asked it anything (spec §7.2).
// The zero Prior says nothing: the peer counts as a newcomer.
type Prior struct {
	P      uint64 `json:"p_ppm"`  // chance that a request is served, ppm
	Weight uint64 `json:"weight"` // requests that this is worth; 0 = Params.PriorWeight
}

// Chain returns the prior of a peer with the given on-chain credit, proven if
// its enclave proved the content in the last slot. Bought credit is capped at
// three doublings (spec §7.7).
func (p Params) Chain(proven bool, onChain coin.Amount) Prior {
	base := p.Newcomer
	if proven {
		base = p.Proven
	}
	doublings := uint64(bits.Len64(1+uint64(onChain/p.CreditUnit)) - 1)
	return Prior{P: min(base+min(doublings, 3)*p.PerDoubling, million-1), Weight: p.PriorWeight}
}

// A Score is what a choice looks at.
type Score struct {
	P    uint64 `json:"p_ppm"`      // lower bound of the chance that a request is served, ppm
	TTFB uint64 `json:"ttfb_us"`    // expected time to first byte, µs
	Rate uint64 `json:"rate_bytes"` // expected bandwidth, bytes a second
}

// Score returns the lower bound of the posterior, one standard deviation below
// its mean, and the measured or presumed speed (spec §7.2). The entry is read
// as it stands: decay it first with At.
func (p Params) Score(e Entry, prior Prior) Score {
	s := Score{P: p.lower(e, prior), TTFB: e.TTFB, Rate: e.Rate}
	if s.TTFB == 0 {
		s.TTFB = p.TTFBMicros
	}
	if s.Rate == 0 {
		s.Rate = p.Rate
	}
	return s
}

// fill replaces what a prior leaves open.
func (p Params) fill(prior Prior) Prior {
	if prior.P == 0 {
		prior.P = p.Newcomer
	}
	if prior.Weight == 0 {
		prior.Weight = p.PriorWeight
	}
	return Prior{P: min(prior.P, million-1), Weight: min(prior.Weight, 1<<20)}
}

// countCap bounds a decayed count that came from a disk: a million requests.
const countCap = million * million

// lower returns the mean of the posterior less its standard deviation, in ppm.
func (p Params) lower(e Entry, prior Prior) uint64 {
	m, sd := p.posterior(e, prior)
	return m - min(sd, m)
}

// posterior returns mean and standard deviation of Beta(a, b), in ppm, with a and
// b in millionths.
func (p Params) posterior(e Entry, prior Prior) (m, sd uint64) {
	prior = p.fill(prior)
	a := min(add(e.DutyHits, e.Hits), countCap) + prior.Weight*prior.P
	b := min(add(e.DutyMisses, e.Misses), countCap) + prior.Weight*(million-prior.P)
	m = coin.MulDiv(a, million, a+b)
	return m, isqrt(coin.MulDiv(m*(million-m), million, a+b+million))
}

// isqrt returns ⌊√x⌋.
func isqrt(x uint64) uint64 {
	if x == 0 {
		return 0
	}
	r := uint64(1) << ((bits.Len64(x) + 1) / 2)
	for {
		next := (r + x/r) / 2
		if next >= r {
			return r
		}
		r = next
	}
}

// The three parts of the expected time, in µs, each at most a day.
func (p Params) parts(s Score, size uint64) (fail, first, transfer uint64) {
	const day = 86_400 * million
	fail = (million - s.P) * p.FailMicros / million
	first = min(s.TTFB, day)
	transfer, ok := coin.MulDivOK(size, million, s.Rate)
	if !ok || transfer > day {
		transfer = day
	}
	return fail, first, transfer
}

// Micros returns E[T] = (1−p)·T_fail + ttfb + size/bandwidth, in µs (spec §7.2).
func (p Params) Micros(s Score, size uint64) uint64 {
	fail, first, transfer := p.parts(s, size)
	return fail + first + transfer
}

// Expect returns the expected completion time of a block of size bytes asked of
// a peer, in µs (spec §7.2). The entry is read as it stands.
func Expect(p Params, e Entry, prior Prior, size uint64) uint64 {
	return p.Micros(p.Score(e, prior), size)
}

// A Term is one part of an expected time, with the reason in a sentence.
type Term struct {
	Name   string `json:"name"`
	Micros uint64 `json:"us"`
	Why    string `json:"why"`
}

// Explain returns the terms whose sum is Expect of the same arguments.
func Explain(p Params, e Entry, prior Prior, size uint64) []Term {
	s := p.Score(e, prior)
	fail, first, transfer := p.parts(s, size)
	prior = p.fill(prior)
	why := fmt.Sprintf("fails %s of the time at worst, by a prior of %s worth %d requests and %s seen; a failed try costs %d ms",
		percent(million-s.P), percent(prior.P), prior.Weight, requests(e), p.FailMicros/1000)
	for _, note := range notes(e) {
		why += "; " + note
	}
	ttfb := "first byte never measured, presumed"
	if e.TTFB > 0 {
		ttfb = fmt.Sprintf("first byte after %d ms, give or take %d", e.TTFB/1000, e.Dev/1000)
	}
	rate := fmt.Sprintf("%d KiB at a presumed %d KiB/s", size>>10, s.Rate>>10)
	if e.Rate > 0 {
		rate = fmt.Sprintf("%d KiB at %d KiB/s", size>>10, s.Rate>>10)
	}
	return []Term{{"failure", fail, why}, {"first byte", first, ttfb}, {"transfer", transfer, rate}}
}

// requests formats the weight of what was seen.
func requests(e Entry) string {
	n := add(add(e.DutyHits, e.Hits), add(e.DutyMisses, e.Misses))
	return fmt.Sprintf("%d.%d", n/million, n%million/100_000)
}

// percent formats ppm.
func percent(ppm uint64) string { return fmt.Sprintf("%d.%d %%", ppm/10_000, ppm%10_000/1000) }

// notes returns a sentence for duties and one for other requests, if any failed.
func notes(e Entry) []string {
	var out []string
	if n := e.Duty.Missed(); n > 0 {
		out = append(out, fmt.Sprintf("%d of %d duties missed: %s", n, e.Duty.Asked(), e.Duty.kinds("DONT_HAVE from a proven holder")))
	}
	other := e.Other
	other.DontHave = 0 // who owes nothing is free to have nothing (spec §6.2)
	if n := other.Missed(); n > 0 {
		out = append(out, fmt.Sprintf("%d of %d other requests failed: %s", n, other.Asked(), other.kinds("DONT_HAVE")))
	}
	return out
}

// kinds lists the ways in which requests failed, with counts where there is
// more than one way.
func (t Tally) kinds(dontHave string) string {
	var out []string
	for _, k := range []struct {
		n    uint64
		what string
	}{
		{t.DontHave, dontHave},
		{t.Timeout, "silence past the limit"},
		{t.Corrupt, "bytes that do not hash right"},
		{t.Failed, "no connection"},
		{t.Slow, "overtaken by a second peer"},
	} {
		if k.n > 0 && k.n == t.Missed() {
			return k.what
		}
		if k.n > 0 {
			out = append(out, fmt.Sprintf("%d × %s", k.n, k.what))
		}
	}
	return strings.Join(out, ", ")
}

// IsYoung reports whether a peer has too little history to be judged by it.
func (p Params) IsYoung(e Entry) bool {
	return add(add(e.DutyHits, e.Hits), add(e.DutyMisses, e.Misses)) < p.Young*million
}

// A Candidate is a peer that may be asked.
type Candidate struct {
	ID    peer.ID
	Entry Entry
	Prior Prior
	Duty  bool // the chain names it as a holder
}

// A Ranked is a candidate with its expected time.
type Ranked struct {
	Candidate
	Micros uint64 // expected completion time, µs
	Score  Score
	Low    bool // below the floor: ask only if nobody better is left
}
