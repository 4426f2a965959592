// Package credit is what a peer is worth as a server of blocks: a ledger entry
// of hits and misses that fade, how fast it was, and from these and a prior set
// by the chain the time that a block asked of it will take (spec §7).
//
// Everything here is a value: integers only, with time as an argument. A peer
// that the chain names as a holder owes the content (spec §6.2); when it fails
// that duty it falls by more than it rises when it serves.
package credit

import (
	"errors"
	"fmt"

	"github.com/lode-node/lode/coin"
)

// million is the denominator of ratios in parts per million, and the number of
// counting units in one request.
const million = 1_000_000

// Params are the constants of the local ledger. Counters and miss weights are
// in millionths of a request, ratios in parts per million, times in the unit
// that the field names.
type Params struct {
	HalfLife     int64  // seconds after which a count has lost half its weight (spec §7.1); at least 128, best a multiple of it
	HalfRequests uint64 // weighed requests after which a count has lost half its weight (spec §7.1)

	PriorWeight uint64      // requests that the chain's word counts for (spec §7.2)
	Newcomer    uint64      // prior of a peer of which the chain says nothing, ppm
	Proven      uint64      // prior of a holder that proved the content in the last slot, ppm
	PerDoubling uint64      // what each doubling of on-chain credit adds to the prior, ppm; three doublings at most (spec §7.7)
	CreditUnit  coin.Amount // on-chain credit of the first doubling

	MissDontHave uint64 // weight of a DONT_HAVE from a holder that owes the block
	MissTimeout  uint64 // weight of silence past the limit
	MissCorrupt  uint64 // weight of a block nobody asked for: bytes that do not hash right
	MissFailed   uint64 // weight of a failed dial or a lost connection, which may be our own fault
	MissSlow     uint64 // weight of being overtaken by a second peer asked later

	HitsPerMinute   uint64 // requests a minute that can raise a peer, so that many tiny blocks do not buy much
	MissesPerMinute uint64 // events a minute that can lower it, so that one bad burst can be lived down

	FailMicros uint64 // T_fail of spec §7.2: what a failed try costs, µs
	TTFBMicros uint64 // time to first byte presumed of a stranger, µs
	Rate       uint64 // bandwidth presumed of a stranger, bytes a second
	Floor      uint64 // below this lower bound a peer is asked only if nobody better is left, ppm
	Explore    uint64 // share of choices in which a newcomer is preferred, ppm (spec §7.2: 1–5 %)
	Young      uint64 // weighed requests below which a peer counts as a newcomer
}

// Default returns the parameters of every class of chain: the ledger is local,
// so they bind nobody else.
func Default() Params {
	return Params{
		HalfLife:     24 * 60 * 60,
		HalfRequests: 200,

		PriorWeight: 8,
		Newcomer:    500_000,
		Proven:      700_000,
		PerDoubling: 80_000,
		CreditUnit:  coin.LODE,

		MissDontHave: 4 * million,
		MissTimeout:  2 * million,
		MissCorrupt:  8 * million,
		MissFailed:   million / 2,
		MissSlow:     million / 2,

		HitsPerMinute:   30,
		MissesPerMinute: 16,

		FailMicros: 1_000_000,
		TTFBMicros: 200_000,
		Rate:       4 << 20,
		Floor:      200_000,
		Explore:    30_000,
		Young:      8,
	}
}

// Check reports the first value that is out of range.
func (p Params) Check() error {
	for _, c := range []struct {
		name     string
		v        uint64
		min, max uint64
	}{
		{"half life", uint64(max(p.HalfLife, 0)), steps, 1 << 32},
		{"half requests", p.HalfRequests, 2, 1 << 20},
		{"prior weight", p.PriorWeight, 1, 1 << 10},
		{"newcomer", p.Newcomer, 1, million - 1},
		{"proven", p.Proven, 1, million - 1},
		{"per doubling", p.PerDoubling, 0, million},
		{"credit unit", uint64(p.CreditUnit), 1, 1 << 63},
		{"dont-have weight", p.MissDontHave, 1, 1000 * million},
		{"timeout weight", p.MissTimeout, 1, 1000 * million},
		{"corrupt weight", p.MissCorrupt, 1, 1000 * million},
		{"failed weight", p.MissFailed, 0, 1000 * million},
		{"slow weight", p.MissSlow, 0, 1000 * million},
		{"hits per minute", p.HitsPerMinute, 1, 1 << 20},
		{"misses per minute", p.MissesPerMinute, 1, 1 << 20},
		{"fail time", p.FailMicros, 1, 1 << 32},
		{"first byte time", p.TTFBMicros, 1, 1 << 32},
		{"rate", p.Rate, 1, 1 << 50},
		{"floor", p.Floor, 0, million},
		{"explore", p.Explore, 0, 50_000},
		{"young", p.Young, 0, 1 << 10},
	} {
		if c.v < c.min || c.v > c.max {
			return fmt.Errorf("credit params: %s is %d, want %d to %d", c.name, c.v, c.min, c.max)
		}
	}
	return nil
}

// A Tally counts outcomes for ever: what people read, where the decayed counts
// are what ranks.
type Tally struct {
	_ struct{} `cbor:",toarray"`

	Served   uint64 `json:"served"`
	DontHave uint64 `json:"dont_have"`
	Timeout  uint64 `json:"timeout"`
	Corrupt  uint64 `json:"corrupt"`
	Failed   uint64 `json:"failed"`
	Slow     uint64 `json:"slow"`
}

// Missed returns the number of requests that were not served.
func (t Tally) Missed() uint64 { return t.DontHave + t.Timeout + t.Corrupt + t.Failed + t.Slow }

// Asked returns the number of requests with an outcome.
func (t Tally) Asked() uint64 { return t.Served + t.Missed() }

// An Entry is one peer in the local ledger (spec §7.1). The zero Entry is a
// peer never asked. It is a value: Apply and At return a new one.
type Entry struct {
	_ struct{} `cbor:",toarray"`

	DutyHits   uint64 `json:"duty_hits"`   // served what it owed: decayed, millionths of a request
	DutyMisses uint64 `json:"duty_misses"` // failed what it owed: decayed, weighted
	Hits       uint64 `json:"hits"`        // the same for what it did not owe
	Misses     uint64 `json:"misses"`

	Duty  Tally `json:"duty"`  // outcomes of requests for what the peer owed by the chain
	Other Tally `json:"other"` // outcomes of all other requests

	TTFB uint64 `json:"ttfb_us"`    // mean time to first byte, µs; 0 = never measured
	Dev  uint64 `json:"ttfb_dev"`   // mean deviation of it, µs
	Rate uint64 `json:"rate_bytes"` // mean bandwidth, bytes a second; 0 = never measured
	In   uint64 `json:"in_bytes"`   // bytes of wanted blocks it gave us, for ever
	Out  uint64 `json:"out_bytes"`  // bytes of blocks we gave it, for ever

	Aged         int64  `json:"aged"`   // unix seconds up to which the counts have decayed
	Minute       int64  `json:"minute"` // unix minute that the next two fields belong to
	MinuteHits   uint64 `json:"minute_hits"`
	MinuteMisses uint64 `json:"minute_misses"`

	First int64 `json:"first"` // unix seconds of the first event, 0 = none
	Last  int64 `json:"last"`  // unix seconds of the last event
}

// A Kind is how a request ended.
type Kind uint8

// The outcomes of a request. Sent is none: it books bytes that we gave.
const (
	Served   Kind = iota + 1 // the block came and hashed right
	DontHave                 // the peer said that it has not got it
	Timeout                  // the peer was silent past its limit
	Corrupt                  // the peer sent bytes that nobody asked for
	Failed                   // no connection
	Slow                     // a second peer, asked later, was first (spec §7.3)
	Sent                     // we served the peer
)

// String returns the word used in explanations and metrics.
func (k Kind) String() string {
	switch k {
	case Served:
		return "served"
	case DontHave:
		return "dont-have"
	case Timeout:
		return "timeout"
	case Corrupt:
		return "corrupt"
	case Failed:
		return "failed"
	case Slow:
		return "slow"
	case Sent:
		return "sent"
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// An Event is the outcome of one request.
type Event struct {
	Kind  Kind
	Duty  bool   // the chain named the peer as a holder of the content
	Bytes uint64 // of the block, for Served and Sent
	TTFB  uint64 // µs from asking an idle peer to the first byte, or to giving up on it; 0 = not measured
	Rate  uint64 // bytes a second over the last busy stretch; 0 = not measured
	At    int64  // unix seconds; a time before the entry's last event counts as that one
}

// errKind is what Apply panics with: kinds come from our own code.
var errKind = errors.New("credit: event without a kind")

// weight returns what a miss of kind k weighs, in millionths of a request. A
// peer that owes nothing is free to have nothing (spec §6.2).
func (p Params) weight(k Kind, duty bool) uint64 {
	switch k {
	case DontHave:
		if duty {
			return p.MissDontHave
		}
		return 0
	case Timeout:
		if duty {
			return p.MissTimeout
		}
		return p.MissTimeout / 2
	case Corrupt:
		return p.MissCorrupt
	case Failed:
		return p.MissFailed
	case Slow:
		return p.MissSlow
	}
	panic(errKind)
}

// Apply returns e after ev, decayed to the time of ev (spec §7.1, §7.2).
func (e Entry) Apply(p Params, ev Event) Entry {
	now := max(ev.At, e.Last)
	e = e.At(p, now)
	if e.First == 0 {
		e.First = now
	}
	e.Last = now
	if ev.Kind == Sent {
		e.Out = add(e.Out, ev.Bytes)
		return e
	}
	if m := now / 60; m != e.Minute {
		e.Minute, e.MinuteHits, e.MinuteMisses = m, 0, 0
	}
	tally, hits, misses := &e.Other, &e.Hits, &e.Misses
	if ev.Duty {
		tally, hits, misses = &e.Duty, &e.DutyHits, &e.DutyMisses
	}
	tally.count(ev.Kind)
	e.measure(ev)
	if ev.Kind == Served {
		e.In = add(e.In, ev.Bytes)
		if e.MinuteHits < p.HitsPerMinute {
			e.MinuteHits++
			e.fade(p)
			*hits += million
		}
		return e
	}
	if w := p.weight(ev.Kind, ev.Duty); w > 0 && e.MinuteMisses < p.MissesPerMinute {
		e.MinuteMisses++
		e.fade(p)
		*misses += w
	}
	return e
}

// count adds one outcome of kind k.
func (t *Tally) count(k Kind) {
	switch k {
	case Served:
		t.Served++
	case DontHave:
		t.DontHave++
	case Timeout:
		t.Timeout++
	case Corrupt:
		t.Corrupt++
	case Failed:
		t.Failed++
	case Slow:
		t.Slow++
	default:
		panic(errKind)
	}
}

// measure moves the means towards what ev measured: a fifth of the way for the
// time to first byte, a quarter for its deviation and the bandwidth.
func (e *Entry) measure(ev Event) {
	if ev.TTFB > 0 {
		if e.TTFB == 0 {
			e.TTFB, e.Dev = ev.TTFB, ev.TTFB/2
		} else {
			off := max(e.TTFB, ev.TTFB) - min(e.TTFB, ev.TTFB)
			e.Dev = mean(e.Dev, off, 4)
			e.TTFB = max(mean(e.TTFB, ev.TTFB, 5), 1)
		}
	}
	if ev.Rate > 0 {
		if e.Rate == 0 {
			e.Rate = ev.Rate
		} else {
			e.Rate = max(mean(e.Rate, ev.Rate, 4), 1)
		}
	}
}

// mean moves old by 1/n of the way to sample.
func mean(old, sample, n uint64) uint64 {
	if sample >= old {
		return old + (sample-old)/n
	}
	return old - (old-sample)/n
}

// add is a sum that stays at the top instead of wrapping.
func add(a, b uint64) uint64 {
	if s := a + b; s >= a {
		return s
	}
	return ^uint64(0)
}
