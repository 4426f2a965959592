package chain

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

// A Stake is what an account has at stake, and what of it counts (spec §4).
type Stake struct {
	Account    peer.ID     `json:"account"`
	Ledger     gpos.Stake  `json:"ledger"`     // bond, chunks, guarantees, candidacy
	Own        coin.Amount `json:"own"`        // grains of its own bond
	Guaranteed coin.Amount `json:"guaranteed"` // grains by which others back it
	Newcomer   coin.Amount `json:"newcomer"`   // grains, the least that another guarantor has to give: beyond MaxGuarantors, more than the smallest
	Places     uint64      `json:"places"`     // accounts that may back it at a time, the largest
	Workload   uint64      `json:"workload"`   // bytes proved in the last full slot
	Limit      coin.Amount `json:"limit"`      // grains that this workload carries now
	EraLeast   uint64      `json:"era_least"`  // bytes, the least of this era's slots so far: what the next election uses if none is lower
	Effective  coin.Amount `json:"effective"`  // grains that count in this era, with those of guarantors
	Power      int64       `json:"power"`      // voting power as last elected, 0 outside the set
	Why        string      `json:"why"`        // why it is or is not in the set, in words
}

// A Validator is a member of the set, or a candidate outside it.
type Validator struct {
	Stake
	Key    []byte `json:"key"`    // consensus key, ed25519
	Fee    uint64 `json:"fee"`    // ppm of the rewards that guarantors share
	Missed uint64 `json:"missed"` // of the commits seen, how many it did not sign
	Seen   uint64 `json:"seen"`   // commits since it took its seat, at most the window
	Points uint64 `json:"points"` // of the last era that is over
}

// An Era is where the chain stands between two elections (spec §1.4, §4.3).
type Era struct {
	Number     gpos.Era    `json:"era"`
	First      int64       `json:"first"`       // height of its first block
	Last       int64       `json:"last"`        // height of its last block, at which is the election
	Seats      uint64      `json:"seats"`       // members of the set
	Kept       bool        `json:"kept"`        // the set was kept: too few could be elected
	Stood      uint64      `json:"stood"`       // candidates that could be elected at the last election
	Effective  coin.Amount `json:"effective"`   // grains that counted at the last election that succeeded
	Workload   uint64      `json:"workload"`    // bytes of all owners in the last full slot
	TotalLimit coin.Amount `json:"total_limit"` // L of spec §4.1, in grains
	Pot        coin.Amount `json:"pot"`         // grains of the staking pot that an era pays now
}

// election returns the last one.
func (v *View) election() election { return elections.must(v.source, all) }

// Stake returns what id has at stake. An account that never bonded has an empty
// one, whose Why says so.
func (v *View) Stake(id peer.ID) Stake {
	st := stakes.must(v.source, id)
	slot, era := uint64(v.params.SlotOf(v.height)), v.params.EraOf(v.height)
	last := v.election()
	w := workOf.must(v.source, id)
	x := exposures.must(v.source, both[uint64, peer.ID]{uint64(last.Era), id})
	out := Stake{
		Account: id, Ledger: st, Own: st.Active, Guaranteed: st.Backing,
		Workload:  w.During(slot),
		Limit:     limitAt(v.source, v.params, slot, mintTable.must(v.source, mintageKey).supply(), id),
		EraLeast:  w.EraLeast(era, slot%uint64(v.params.EraSlots)+1),
		Effective: x.Total,
		Newcomer:  v.params.Stake.Newcomer(st),
		Places:    v.params.Stake.MaxGuarantors,
	}
	for _, m := range membersOf(v.source) {
		if m.Account == id {
			out.Power = m.Power
		}
	}
	out.Why = whySeat(v.params.Stake, st, x, out.Power, last)
	return out
}

// whySeat says in words why an account is or is not in the set.
func whySeat(p gpos.Params, st gpos.Stake, x gpos.Exposure, power int64, last election) string {
	switch {
	case power > 0 && st.Jailed():
		return fmt.Sprintf("in the set until the next election, then jailed: from era %d on `lode stake unjail` brings it back", st.JailedUntil)
	case power > 0 && last.Kept && last.Era == 0:
		return "in the set of genesis until an election succeeds"
	case power > 0 && last.Kept:
		return fmt.Sprintf("in the set, which was kept: %d could be elected", last.Stood)
	case power > 0:
		return fmt.Sprintf("elected with %v that count", x.Total)
	case st.Jailed():
		return fmt.Sprintf("jailed: from era %d on `lode stake unjail` brings it back", st.JailedUntil)
	case st.Candidate == nil:
		return "no candidate"
	case st.Active < p.MinBond:
		return fmt.Sprintf("candidate: %v of its own at stake, an election wants %v: `lode stake extra`", st.Active, p.MinBond)
	case x.Total > 0:
		return fmt.Sprintf("candidate: %v count, too few for one of %d seats", x.Total, last.Seats)
	}
	return "candidate: nothing counted at the last election; it needs workload in every slot of an era"
}

// Validators returns the set and all candidates, the largest power first, then
// by what counts, then by account. Who backs each is left out, and is in its Stake.
func (v *View) Validators() []Validator {
	var out []Validator
	last := v.election()
	add := func(id peer.ID, st gpos.Stake, x gpos.Exposure) {
		w := windows.must(v.source, id)
		val := Validator{Stake: v.Stake(id), Key: x.Key, Fee: x.Fee, Missed: w.Missed}
		val.Ledger.Backers = nil // there may be MaxGuarantors of each
		if w.Since > 0 {
			val.Seen = v.params.Stake.Seen(w, v.height)
		}
		if c := st.Candidate; c != nil {
			val.Key, val.Fee = c.Key, c.Fee
		}
		if era := uint64(v.params.EraOf(v.height)); era > 0 {
			if old, ok := exposures.get(v.source, both[uint64, peer.ID]{era - 1, id}); ok && old.Elected() {
				val.Points = points(v.source, v.params, era-1, id)
			}
		}
		out = append(out, val)
	}
	seen := make(map[peer.ID]bool) // never iterated
	for _, x := range heads(v.source, uint64(last.Era)) {
		seen[x.Account] = true
		add(x.Account, stakes.must(v.source, x.Account), x)
	}
	stakes.each(v.source, func(id peer.ID, st gpos.Stake) bool {
		if st.Candidate != nil && !seen[id] {
			add(id, st, gpos.Exposure{})
		}
		return true
	})
	slices.SortFunc(out, func(a, b Validator) int {
		return cmp.Or(cmp.Compare(b.Power, a.Power), cmp.Compare(b.Effective, a.Effective), cmp.Compare(a.Account, b.Account))
	})
	return out
}

// Exposure returns what id and its guarantors answer for in era, and whether
// anything (spec §4.3).
func (v *View) Exposure(id peer.ID, era gpos.Era) (gpos.Exposure, bool) {
	return exposure(v.source, uint64(era), id)
}

// Earned returns what an era that is over pays, and how much of it is left to
// claim by id (spec §4.4).
func (v *View) Earned(id peer.ID, era gpos.Era) (e gpos.Earned, claimed bool, ok bool) {
	e, ok = earned.get(v.source, uint64(era))
	return e, paid.has(v.source, both[uint64, peer.ID]{uint64(era), id}), ok
}

// Era returns where the chain stands between two elections.
func (v *View) Era() Era {
	last, n := v.election(), v.params.EraOf(v.height)
	length := v.params.Mpow.SlotBlocks * v.params.EraSlots
	return Era{
		Number: n, First: max(1, int64(n)*length), Last: int64(n+1)*length - 1,
		Seats: last.Seats, Kept: last.Kept, Stood: last.Stood, Effective: last.Effective,
		Workload:   workAll.must(v.source, all).During(uint64(v.params.SlotOf(v.height))),
		TotalLimit: gpos.TotalLimit(last.Effective, mintTable.must(v.source, mintageKey).supply()),
		Pot:        plans.must(v.source, all).Rate,
	}
}

// checkStake returns the money that ledgers hold, which is what is in the pot of
// bonds, and the first breach of spec §9.4 and §9.5; most is how many may back a
// candidate.
func checkStake(s source, most uint64) (coin.Amount, error) {
	var sum coin.Amount
	var err error
	type edge struct{ from, to peer.ID }
	backing := make(map[peer.ID]coin.Amount) // never iterated
	edges := make(map[edge]coin.Amount)      // never iterated
	stakes.each(s, func(id peer.ID, st gpos.Stake) bool {
		sum = mustAdd(sum, st.Locked())
		if st.Guaranteed() > st.Active {
			err = fmt.Errorf("%v guarantees %v of %v (spec §4.2)", id, st.Guaranteed(), st.Active)
		}
		for _, e := range st.Edges {
			backing[e.Account] += e.Amount
			edges[edge{id, e.Account}] = e.Amount
		}
		return err == nil
	})
	stakes.each(s, func(id peer.ID, st gpos.Stake) bool {
		if st.Backing != backing[id] {
			err = fmt.Errorf("%v is backed by %v, guarantees sum to %v (spec §9.4)", id, st.Backing, backing[id])
		}
		delete(backing, id)
		for _, b := range st.Backers {
			if b.Amount == 0 || edges[edge{b.Account, id}] != b.Amount {
				err = fmt.Errorf("%v says that %v guarantees %v, that one says %v (spec §9.4)", id, b.Account, b.Amount, edges[edge{b.Account, id}])
			}
			delete(edges, edge{b.Account, id})
		}
		if uint64(len(st.Backers)) > most {
			err = fmt.Errorf("%v has %d guarantors, at most %d may (spec §4.2)", id, len(st.Backers), most)
		}
		return err == nil
	})
	if err == nil && len(backing) > 0 {
		err = fmt.Errorf("%d accounts without a record are guaranteed (spec §9.6)", len(backing))
	}
	if err == nil && len(edges) > 0 {
		err = fmt.Errorf("%d guarantees are not among those of the accounts they name (spec §9.4)", len(edges))
	}
	if err != nil {
		return sum, err
	}
	if pot, promised := potTable.must(s, string(potStaking)), plans.must(s, all).Promised; promised > pot {
		return sum, fmt.Errorf("the staking pot holds %v, %v are promised (spec §4.4)", pot, promised)
	}
	if err := checkWorkload(s); err != nil {
		return sum, err
	}
	return sum, checkSet(s)
}

// checkWorkload compares the workload of all in the last slot with that of the
// owners (spec §9.4).
func checkWorkload(s source) error {
	total, sum := workAll.must(s, all), uint64(0)
	var err error
	workOf.each(s, func(owner peer.ID, w gpos.Work) bool {
		if w.Slot == total.Slot {
			sum += w.Bytes
		}
		if w.Slot > total.Slot {
			err = fmt.Errorf("%v has workload in slot %d, all have it up to slot %d (spec §9.4)", owner, w.Slot, total.Slot)
		}
		return err == nil
	})
	if err == nil && sum != total.Bytes {
		err = fmt.Errorf("owners have %d bytes of workload in slot %d, all have %d (spec §9.4)", sum, total.Slot, total.Bytes)
	}
	return err
}

// checkSet compares the set with the exposures it was elected by, whose powers
// only a slash has lowered since (spec §9.5).
func checkSet(s source) error {
	last := elections.must(s, all)
	members := membersOf(s)
	if len(members) == 0 {
		return fmt.Errorf("the set is empty (spec §9.5)")
	}
	if uint64(len(members)) != last.Seats {
		return fmt.Errorf("the set has %d members, %d were elected (spec §9.5)", len(members), last.Seats)
	}
	for _, m := range members {
		x, ok := exposures.get(s, both[uint64, peer.ID]{uint64(last.Era), m.Account})
		if !ok || x.Power > m.Power || string(x.Key) != m.key {
			return fmt.Errorf("%v sits with a power of %d, its exposure says %d (spec §9.5)", m.Account, m.Power, x.Power)
		}
		total := x.Own
		for _, g := range guarantorsOf(s, uint64(last.Era), m.Account) {
			total += g.Amount
		}
		if total != x.Total {
			return fmt.Errorf("the exposure of %v is %v, its parts sum to %v (spec §9.4)", m.Account, x.Total, total)
		}
	}
	return nil
}
