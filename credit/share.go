package credit

import (
	"fmt"
	"math/bits"
)

// deficitUnit is how many bytes a peer may take before that counts against it.
const deficitUnit = 64 << 20

// knownUnit is how many bytes a peer has to give for each part of a share that the
// chain does not speak for, so that a block given or paid for does not buy the
// share of one that gave as much as it took.
const knownUnit = 256 << 10

// Share is the weight with which a peer is served while others wait (spec §7.4):
// 1 to 48 for one known, by doublings of what it gave over what it took, 16 for
// as much, and up to 8 more by what the chain says; 0 for a newcomer, who never
// gave anything and of whom the chain says nothing. Where the chain says nothing,
// it is at most one for each 256 KiB given. What a peer paid for counts as given
// where the entry has it: see [Entry.WithPaid].
func (p Params) Share(e Entry, prior Prior) uint64 {
	gave, word := p.shares(e, prior)
	return gave + word
}

// WithPaid returns e with so many bytes more that its peer gave us: those that it
// paid for, in another coin (spec §7.5, §7.7). It is for Share alone.
func (e Entry) WithPaid(bytes uint64) Entry {
	e.In = add(e.In, bytes)
	return e
}

// A SharePart is one part of a share, with the reason in a sentence.
type SharePart struct {
	Name  string `json:"name"`
	Share uint64 `json:"share"`
	Why   string `json:"why"`
}

// ShareParts returns the parts that sum to the Share of e.WithPaid(paid): what was
// given, paid for and taken, and the chain's word (spec §7.4, §7.7).
func (p Params) ShareParts(e Entry, prior Prior, paid uint64) []SharePart {
	gave, word := p.shares(e.WithPaid(paid), prior)
	why := fmt.Sprintf("gave %d MiB, paid for %d and took %d: 16 for as much, 8 more for each doubling, half for each halving", e.In>>20, paid>>20, e.Out>>20)
	switch {
	case gave == 0:
		why = "a newcomer: it never gave or paid anything, and the chain says nothing of it"
	case word == 0:
		why += fmt.Sprintf("; the chain says nothing of it, so at most one for each %d KiB given or paid for, and one at least", knownUnit>>10)
	}
	return []SharePart{
		{"exchange", gave, why},
		{"chain", word, fmt.Sprintf("its prior is %s, a newcomer's %s: at most 8", percent(p.fill(prior).P), percent(p.Newcomer))},
	}
}

func (p Params) shares(e Entry, prior Prior) (gave, word uint64) {
	if prior.P > p.Newcomer {
		word = min((prior.P-p.Newcomer)*8/max(million-p.Newcomer, 1)+1, 8)
	}
	if e.In == 0 && word == 0 {
		return 0, 0
	}
	in, out := add(e.In, deficitUnit), add(e.Out, deficitUnit)
	gave = 16
	if in >= out {
		gave += 8 * uint64(bits.Len64(in/out)-1)
	} else {
		gave >>= uint(bits.Len64(out/in) - 1)
	}
	if word == 0 {
		gave = min(gave, e.In/knownUnit)
	}
	return min(max(gave, 1), 40), word
}
