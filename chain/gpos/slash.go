package gpos

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// EquivocationPart returns the ppm of an exposure that is lost by an account
// that signed twice, when k of the n validators of its era have so far:
// min((3k/n)², 1), and MinSlash at least (spec §4.5). An n of zero counts as k.
func (p Params) EquivocationPart(k, n uint64) uint64 {
	part := uint64(million)
	if 3*k < n {
		part = coin.MulDiv(9*k*k, million, n*n)
	}
	return max(part, p.MinSlash)
}

// Slash takes part ppm, rounded down, from each who stands in x. It returns
// what x is after it and what each loses, the account itself first: the caller
// takes the losses out of their stakes with Lose (spec §4.5).
func (p Params) Slash(x Exposure, part uint64) (Exposure, []Edge) {
	part = min(part, million)
	losses := []Edge{{Account: x.Account, Amount: x.Own.Part(part, million)}}
	for _, e := range x.Others {
		losses = append(losses, Edge{Account: e.Account, Amount: e.Amount.Part(part, million)})
	}
	losses = slices.DeleteFunc(losses, func(e Edge) bool { return e.Amount == 0 })
	return p.Less(x, losses), losses
}

// Less returns x without losses, which may come from the exposure of an earlier
// era: nobody's part falls below zero. Power follows (spec §4.3, §4.5).
func (p Params) Less(x Exposure, losses []Edge) Exposure {
	x.Others = slices.Clone(x.Others)
	for _, l := range losses {
		if l.Account == x.Account {
			x.Own -= min(x.Own, l.Amount)
			continue
		}
		// The order of Others is by amount, so this is a walk; a slash is rare.
		if i := slices.IndexFunc(x.Others, func(e Edge) bool { return e.Account == l.Account }); i >= 0 {
			x.Others[i].Amount -= min(x.Others[i].Amount, l.Amount)
		}
	}
	x.Others = slices.DeleteFunc(x.Others, func(e Edge) bool { return e.Amount == 0 })
	slices.SortFunc(x.Others, bySize)
	x.Total = x.Own + sum(x.Others)
	if x.Elected() {
		x.Power = p.Power(x.Total)
	}
	return x
}

// Lose takes up to amount grains from s: from the active bond first, then from
// unlocking chunks, newest first. offender is the account whose exposure was
// slashed; the guarantee of s for it shrinks by what was lost, and others too,
// the last account first, if less than they sum to stays active. Lose returns
// s after it, what was taken, and by how much each guarantee shrank: the caller
// takes that out of the backing of its target (spec §4.5).
func (s Stake) Lose(offender peer.ID, amount coin.Amount) (after Stake, taken coin.Amount, shrunk []Edge) {
	s = s.clone()
	active := min(s.Active, amount)
	unlocking := min(s.Unbonding(), amount-active)
	s.Active -= active
	s.Unlocking = takeNewest(s.Unlocking, unlocking)
	shrink := func(i int, by coin.Amount) {
		if by > 0 {
			shrunk = append(shrunk, Edge{Account: s.Edges[i].Account, Amount: by})
			s.Edges = s.cut(i, by)
		}
	}
	if i, ok := slices.BinarySearchFunc(s.Edges, offender, byAccount); ok {
		shrink(i, min(s.Edges[i].Amount, active+unlocking))
	}
	for i := len(s.Edges) - 1; i >= 0; i-- {
		over := s.Guaranteed() - min(s.Guaranteed(), s.Active)
		shrink(i, min(s.Edges[i].Amount, over))
	}
	return s, active + unlocking, shrunk
}

// Split returns how much of taken grains is burnt, the half rounded down, and
// how much goes to the reserve (spec §4.5).
func Split(taken coin.Amount) (burnt, reserve coin.Amount) {
	return taken / 2, taken - taken/2
}

// A Seat is a validator with what it signed, for Down.
type Seat struct {
	Account peer.ID
	Power   int64
	Seen    uint64 // commits since it took its seat, at most DownWindow
	Missed  uint64 // how many of these it did not sign
}

// Down returns the validators of set that are jailed and lose DownSlash for
// being down: those that signed fewer than half of the last DownWindow commits,
// worst first, ties by account; at most ⌊(n−1)/3⌋ of them, with less than a
// third of the power, and never so many that fewer than MinValidators stay
// (spec §4.5).
func (p Params) Down(set []Seat) []peer.ID {
	n := uint64(len(set))
	if n == 0 {
		return nil
	}
	total := int64(0)
	var down []Seat
	for _, s := range set {
		total += s.Power
		if s.Seen >= p.DownWindow && 2*(s.Seen-min(s.Seen, s.Missed)) < s.Seen {
			down = append(down, s)
		}
	}
	slices.SortFunc(down, func(a, b Seat) int {
		if c := cmp.Compare(b.Missed, a.Missed); c != 0 {
			return c
		}
		return cmp.Compare(a.Account, b.Account)
	})
	most := min((n-1)/3, n-min(n, p.MinValidators))
	var out []peer.ID
	power := int64(0)
	for _, s := range down {
		if uint64(len(out)) == most {
			break
		}
		if power+s.Power > (total-1)/3 {
			continue
		}
		power += s.Power
		out = append(out, s.Account)
	}
	return out
}

// Jail returns s out of the running until Unjail, which is heard from the era
// after now on (spec §4.5).
func (s Stake) Jail(now Era) Stake {
	s.JailedUntil = max(s.JailedUntil, now+1)
	return s
}

// A Window is what the chain keeps of one validator's signing: Missed counts
// the commits among the last DownWindow that it did not sign (spec §4.5).
type Window struct {
	_      struct{} `cbor:",toarray"`
	Since  int64    `json:"since"` // height of the first commit that counted
	Missed uint64   `json:"missed"`
}

// Seen returns how many commits w covers at the commit of height.
func (p Params) Seen(w Window, height int64) uint64 {
	if height < w.Since {
		return 0
	}
	return min(p.DownWindow, uint64(height-w.Since)+1)
}

// An Absence lists who did not sign the commit of Height, by account.
type Absence struct {
	_        struct{}  `cbor:",toarray"`
	Height   int64     `json:"height"`
	Accounts []peer.ID `json:"accounts,omitempty"`
}
