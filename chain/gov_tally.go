package chain

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// A Tally is how much weight has said what, and how much there is: grains of
// effective stake, and for an emergency units of voting power (spec §8.1).
type Tally struct {
	Total   uint64 `cbor:"1,keyasint" json:"total"`
	Yes     uint64 `cbor:"2,keyasint" json:"yes"`
	No      uint64 `cbor:"3,keyasint" json:"no"`
	Veto    uint64 `cbor:"4,keyasint" json:"veto"`
	Abstain uint64 `cbor:"5,keyasint" json:"abstain"`
}

// A ballot is a vote with the weight that it has now.
type ballot struct {
	Choice Choice `cbor:"1,keyasint" json:"choice"`
	Weight uint64 `cbor:"2,keyasint" json:"weight"`
}

// of returns where weight for c is counted, nil for no choice.
func (t *Tally) of(c Choice) *uint64 {
	switch c {
	case Yes:
		return &t.Yes
	case No:
		return &t.No
	case Veto:
		return &t.Veto
	case Abstain:
		return &t.Abstain
	}
	return nil
}

// Shares of what was voted, as fractions (spec §8.1).
const (
	quorumPer100   = 40 // of all weight, who has to vote
	passOf, passBy = 2, 3
	vetoOf, vetoBy = 1, 3
	urgentOf       = 1 // of the validators' power, for an emergency
	urgentBy       = 2
)

// atLeast reports whether part ≥ whole·a/b, and the whole is not nothing.
func atLeast(part, whole, a, b uint64) bool {
	hi, lo := bits.Mul64(part, b)
	wantHi, wantLo := bits.Mul64(whole, a)
	return whole > 0 && (hi > wantHi || hi == wantHi && lo >= wantLo)
}

// outcome returns the state in which a vote so counted ends, and why.
func (t Tally) outcome(emergency bool) (state, why string) {
	said := t.Yes + t.No + t.Veto
	voted := said + t.Abstain
	switch {
	case emergency && atLeast(t.Yes, t.Total, urgentOf, urgentBy):
		return StatePassed, fmt.Sprintf("%d of %d units of power for it", t.Yes, t.Total)
	case atLeast(t.Veto, voted, vetoOf, vetoBy):
		return StateVetoed, fmt.Sprintf("%d of %d that voted veto it", t.Veto, voted)
	case emergency:
		return StateRejected, fmt.Sprintf("%d of %d units of power for it, half is needed", t.Yes, t.Total)
	case !atLeast(voted, t.Total, quorumPer100, 100):
		return StateRejected, fmt.Sprintf("%d of %d voted, %d%% are needed", voted, t.Total, quorumPer100)
	case !atLeast(t.Yes, said, passOf, passBy):
		return StateRejected, fmt.Sprintf("%d of %d for it, two thirds are needed", t.Yes, said)
	}
	return StatePassed, fmt.Sprintf("%d of %d for it", t.Yes, said)
}

// settled reports whether no further vote can change what t leads to, so that
// waiting only helps who wants harm: an emergency that is won, and a proposal
// that a third of all weight vetoes.
func (t Tally) settled(emergency bool) bool {
	return emergency && atLeast(t.Yes, t.Total, urgentOf, urgentBy) || atLeast(t.Veto, t.Total, vetoOf, vetoBy)
}

// electorate returns all weight there is in era: what the last election counted,
// or the bonds of the set that was kept (spec §8.1); power for an emergency.
func (s *state) electorate(era uint64, emergency bool) uint64 {
	if e := elections.must(s, all); !emergency && !e.Kept && uint64(e.Era) == era {
		return uint64(e.Effective)
	}
	var sum uint64
	for _, x := range heads(s, era) { // a kept set is at most ValidatorCount
		if emergency {
			sum += uint64(x.Power)
		} else {
			sum += uint64(x.Total)
		}
	}
	return sum
}

// vote counts the sender's word. Weights are those of the era in which the
// proposal opened, so that the count is exact whatever is bonded meanwhile. A
// guarantor who votes takes its part out of its validators', whenever those vote;
// a guarantee cut since has no vote of its own (spec §8.1).
func (s *state) vote(sender peer.ID, m Vote) error {
	p, ok := proposals.get(s, m.Proposal)
	switch {
	case !ok:
		return refuse(CodeAbsent, "vote: there is no proposal %d", m.Proposal)
	case p.State != StateOpen:
		return refuse(CodeRefused, "vote: proposal %d is %s, not open", m.Proposal, p.State)
	case s.height >= p.Closes: // more votes closed than a block counts
		return refuse(CodeRefused, "vote: proposal %d closed at height %d and is about to be counted", m.Proposal, p.Closes)
	case p.Tally.of(m.Choice) == nil:
		return refuse(CodeRefused, "vote: %q: want yes, no, veto or abstain", m.Choice)
	}
	key := both[uint64, peer.ID]{p.ID, sender}
	b, again := ballots.get(s, key)
	if again {
		*p.Tally.of(b.Choice) -= b.Weight
	} else {
		b.Weight = s.weigh(&p, sender)
	}
	if b.Weight == 0 && !again {
		return refuse(CodeRefused, "vote: %v has no stake that counts in era %d, when proposal %d opened", sender, p.Era, p.ID)
	}
	b.Choice = m.Choice
	*p.Tally.of(b.Choice) += b.Weight
	ballots.set(s, key, b)
	said := Event{Kind: "voted", Who: sender, Amount: coin.Amount(b.Weight), Why: fmt.Sprintf("%d: %s", p.ID, b.Choice)}
	if p.Asks.Emergency != nil { // power is no money
		said.Amount, said.Why = 0, fmt.Sprintf("%s, %d units of power", said.Why, b.Weight)
	}
	s.emit(said)
	if p.Tally.settled(p.Asks.Emergency != nil) {
		votings.drop(s, p.Closes, p.ID)
		s.closeVote(p)
		return nil
	}
	proposals.set(s, p.ID, p)
	return nil
}

// weigh returns the weight of who's first vote on p, and takes what it
// guarantees out of the weight of its validators.
func (s *state) weigh(p *Proposal, who peer.ID) uint64 {
	x := exposures.must(s, both[uint64, peer.ID]{p.Era, who})
	if p.Asks.Emergency != nil {
		return uint64(x.Power)
	}
	key := both[uint64, peer.ID]{p.ID, who}
	weight := less(uint64(x.Total), takenBack.must(s, key))
	for _, e := range stakes.must(s, who).Edges {
		part := uint64(guarantors.must(s, guarantorKey(p.Era, e.Account, who)))
		if part == 0 {
			continue
		}
		target := both[uint64, peer.ID]{p.ID, e.Account}
		takenBack.set(s, target, takenBack.must(s, target)+part)
		if b, ok := ballots.get(s, target); ok {
			cut := min(part, b.Weight)
			b.Weight -= cut
			*p.Tally.of(b.Choice) -= cut
			ballots.set(s, target, b)
		}
		weight += part
	}
	return weight
}

// forgetBallots removes a batch of the votes on a closed proposal and reports
// whether none is left.
func (s *state) forgetBallots(id uint64) bool {
	n, part := 0, numberKey.put(nil, id)
	ballots.under(s, part, func(k both[uint64, peer.ID], _ ballot) bool {
		if n++; n <= s.params.Batch {
			ballots.del(s, k)
		}
		return n <= s.params.Batch
	})
	takenBack.under(s, part, func(k both[uint64, peer.ID], _ uint64) bool {
		if n++; n <= s.params.Batch {
			takenBack.del(s, k)
		}
		return n <= s.params.Batch
	})
	return n <= s.params.Batch
}

// less returns a − b, at least zero: a slash may have shrunk what was counted.
func less(a, b uint64) uint64 { return a - min(a, b) }

// govDeposits returns what proposals under vote hold.
func govDeposits(s source) (sum coin.Amount) {
	for _, id := range governing.must(s, all).Open {
		sum = mustAdd(sum, proposals.must(s, id).Deposit)
	}
	return sum
}

// checkGov returns the first breach of spec §9.4 among open votes.
func checkGov(s source) error {
	for _, id := range governing.must(s, all).Open {
		p, ok := proposals.get(s, id)
		if !ok || p.State != StateOpen {
			return fmt.Errorf("proposal %d is listed as open and is %q (spec §9.4)", id, p.State)
		}
		sum := Tally{Total: p.Tally.Total}
		ballots.under(s, numberKey.put(nil, id), func(_ both[uint64, peer.ID], b ballot) bool {
			*sum.of(b.Choice) += b.Weight
			return true
		})
		if sum != p.Tally {
			return fmt.Errorf("proposal %d counts %+v, its votes are %+v (spec §9.4)", id, p.Tally, sum)
		}
		if voted := sum.Yes + sum.No + sum.Veto + sum.Abstain; voted > sum.Total {
			return fmt.Errorf("proposal %d counts votes of %d, there are %d (spec §8.1)", id, voted, sum.Total)
		}
	}
	return checkDecided(s)
}

// checkDecided returns the first breach among what stands for proposals: each is in
// the queue once, what passed waits, no vote outlives its proposal, and each
// emergency denial has its end.
func checkDecided(s source) error {
	waits := map[uint64]int{}
	votings.rows.each(s, func(k both[uint64, uint64], _ struct{}) bool { waits[k.B]++; return true })
	passed := governing.must(s, all).Passed
	var err error
	fail := func(format string, args ...any) bool {
		if err == nil {
			err = fmt.Errorf(format, args...)
		}
		return false
	}
	proposals.each(s, func(id uint64, p Proposal) bool {
		if waits[id] != 1 {
			return fail("proposal %d stands %d times in the queue (spec §9.6)", id, waits[id])
		}
		delete(waits, id)
		if (p.State == StatePassed) != slices.Contains(passed, id) {
			return fail("proposal %d is %s, those that passed are %d (spec §9.4)", id, p.State, passed)
		}
		return true
	})
	if len(waits) > 0 {
		fail("%d proposals in the queue have no record (spec §9.6)", len(waits))
	}
	ballots.each(s, func(k both[uint64, peer.ID], _ ballot) bool {
		return proposals.has(s, k.A) || fail("a vote of %v on proposal %d, which is forgotten (spec §9.6)", k.B, k.A)
	})
	takenBack.each(s, func(k both[uint64, peer.ID], _ uint64) bool {
		return proposals.has(s, k.A) || fail("guarantors of %v vote on proposal %d, which is forgotten (spec §9.6)", k.B, k.A)
	})
	urgent.each(s, func(what string, d emergency) bool {
		return denials.has(s, what) && reliefs.rows.has(s, both[uint64, string]{uint64(d.Until), what}) || fail("the emergency denial of %s has no end (spec §8.1)", what)
	})
	return err
}
