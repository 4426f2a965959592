package chain

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

// Eras: exposures are snapshots by era; the set is our own copy of what
// CometBFT was told last, from which the next changes are computed.
var (
	// exposures holds heads, without guarantors, of which there may be more than
	// one value should hold; these have a row each.
	exposures  = table[both[uint64, peer.ID], gpos.Exposure]{keyEra + "x", join(numberKey, whoKey)}
	guarantors = table[both[uint64, both[peer.ID, peer.ID]], coin.Amount]{keyEra + "g", join(numberKey, join(whoKey, whoKey))}
	elections  = table[string, election]{keyEra + "l", wordKey}
	set        = table[string, member]{keyEra + "v", wordKey}
)

// An election is the outcome of the last one.
type election struct {
	Era       gpos.Era    `cbor:"1,keyasint"` // in which its set sits
	Effective coin.Amount `cbor:"2,keyasint"` // grains that counted at the last that succeeded, of all candidates: x of spec §4.1
	Seats     uint64      `cbor:"3,keyasint"`
	Kept      bool        `cbor:"4,keyasint"` // the set was copied: too few could be elected
	Stood     uint64      `cbor:"5,keyasint"` // how many could be elected
}

// A member is a validator as CometBFT was told; the key of its row is its
// consensus key.
type member struct {
	Account peer.ID `cbor:"1,keyasint"`
	Power   int64   `cbor:"2,keyasint"`
	key     string
}

func guarantorKey(era uint64, validator, guarantor peer.ID) both[uint64, both[peer.ID, peer.ID]] {
	return both[uint64, both[peer.ID, peer.ID]]{era, both[peer.ID, peer.ID]{validator, guarantor}}
}

// membersOf returns the set, by consensus key.
func membersOf(s source) []member {
	var out []member
	set.each(s, func(key string, m member) bool {
		m.key = key
		out = append(out, m)
		return true
	})
	return out
}

func (s *state) members() []member { return membersOf(s) }

// validatorSet returns the set as CometBFT takes it.
func validatorSet(s source) []abci.ValidatorUpdate {
	var out []abci.ValidatorUpdate
	for _, m := range membersOf(s) {
		out = append(out, abci.Ed25519ValidatorUpdate([]byte(m.key), m.Power))
	}
	return out
}

// exposure returns what who answers for in era, guarantors included.
func exposure(s source, era uint64, who peer.ID) (gpos.Exposure, bool) {
	x, ok := exposures.get(s, both[uint64, peer.ID]{era, who})
	if ok {
		x.Others = guarantorsOf(s, era, who)
	}
	return x, ok
}

// guarantorsOf returns the guarantors of who in era, the largest first.
func guarantorsOf(s source, era uint64, who peer.ID) []gpos.Edge {
	var out []gpos.Edge
	guarantors.under(s, whoKey.put(numberKey.put(nil, era), who), func(k both[uint64, both[peer.ID, peer.ID]], x coin.Amount) bool {
		out = append(out, gpos.Edge{Account: k.B.B, Amount: x})
		return true
	})
	slices.SortStableFunc(out, func(a, b gpos.Edge) int { return cmp.Compare(b.Amount, a.Amount) })
	return out
}

// setExposure writes x as that of era, in place of what stood there.
func (s *state) setExposure(era uint64, x gpos.Exposure) {
	for _, e := range guarantorsOf(s, era, x.Account) {
		guarantors.del(s, guarantorKey(era, x.Account, e.Account))
	}
	for _, e := range x.Others {
		guarantors.set(s, guarantorKey(era, x.Account, e.Account), e.Amount)
	}
	x.Others = nil
	exposures.set(s, both[uint64, peer.ID]{era, x.Account}, x)
}

// heads returns the exposures of era without guarantors, by account.
func heads(s source, era uint64) []gpos.Exposure {
	var out []gpos.Exposure
	exposures.under(s, numberKey.put(nil, era), func(_ both[uint64, peer.ID], x gpos.Exposure) bool {
		out = append(out, x)
		return true
	})
	return out
}

// bondGenesis makes the first validators of g, whose bonds are already in the
// pot of bonds, and returns their powers (spec §4.3).
func (s *state) bondGenesis(g Genesis) []abci.ValidatorUpdate {
	var first []gpos.Exposure
	for _, v := range g.Validators {
		s.setStake(v.ID, gpos.Stake{Active: v.Bond, Candidate: &gpos.Candidate{Key: v.ConsensusKey}})
		address := gpos.Address(v.ConsensusKey)
		consKeys.set(s, string(address[:]), consKey{Account: v.ID, Key: v.ConsensusKey, Sat: true})
		first = append(first, s.params.Stake.Genesis(v.ID, v.ConsensusKey, v.Bond))
	}
	elections.set(s, all, election{Seats: uint64(len(first)), Kept: true})
	return s.seat(0, first)
}

// startEra runs at the first block of an era, before all else: what the era
// before has earned, and what is forgotten (spec §1.8).
func (s *state) startEra() {
	now := uint64(s.era())
	s.earn(now - 1)
	s.forget(now)
}

// endEra runs at the last block of an era, after messages: the election. It
// returns what changes in the validator set (spec §4.3).
func (s *state) endEra() []abci.ValidatorUpdate {
	s.judge()
	p, era := s.params.Stake, uint64(s.era())
	last := elections.must(s, all)
	next := election{Era: gpos.Era(era + 1), Effective: last.Effective}
	result, err := p.Elect(s.entrants())
	next.Stood = uint64(len(result.Exposures))
	sitting := result.Exposures
	if err != nil {
		var old []gpos.Exposure
		for _, head := range heads(s, era) {
			head.Others = guarantorsOf(s, era, head.Account)
			old = append(old, head)
		}
		sitting = p.Keep(old)
		next.Kept, next.Seats = true, uint64(len(sitting))
		s.emit(Event{Kind: "set_kept", Why: fmt.Sprintf("era %d: %v: %d, want %d", era+1, err, next.Stood, p.MinValidators)})
	} else {
		next.Effective, next.Seats = result.Effective, uint64(result.Seats)
		s.emit(Event{Kind: "set_elected", Amount: result.Effective, Why: fmt.Sprintf("era %d: %d of %d", era+1, next.Seats, next.Stood)})
	}
	elections.set(s, all, next)
	return s.seat(era+1, sitting)
}

// entrants returns all accounts that have a stake. An election is the one thing
// that walks them; between elections nothing does (spec §1.7).
func (s *state) entrants() []gpos.Entrant {
	var out []gpos.Entrant
	era, slots := s.era(), uint64(s.params.EraSlots)
	total := workAll.must(s, all).EraLeast(era, slots)
	effective, supply := elections.must(s, all).Effective, s.supply()
	stakes.each(s, func(who peer.ID, st gpos.Stake) bool {
		e := gpos.Entrant{Account: who, Stake: st}
		if st.Candidate != nil {
			e.Limit = s.params.Stake.Limit(workOf.must(s, who).EraLeast(era, slots), total, effective, supply)
		}
		out = append(out, e)
		return true
	})
	return out
}

// seat writes exposures as those of era and returns what differs between the
// elected of them and our copy of the set, by consensus key. CometBFT takes it
// as final two heights later (spec §4.3).
func (s *state) seat(era uint64, sitting []gpos.Exposure) []abci.ValidatorUpdate {
	old := s.members()
	powers := make(map[string]member) // by consensus key; never iterated
	stays := make(map[peer.ID]bool)   // never iterated
	var keys []string
	for _, x := range sitting {
		s.setExposure(era, x)
		if x.Elected() {
			powers[string(x.Key)] = member{Account: x.Account, Power: x.Power}
			keys = append(keys, string(x.Key))
			stays[x.Account] = true
			address := gpos.Address(x.Key)
			consKeys.set(s, string(address[:]), consKey{x.Account, gpos.Era(era), x.Key, true})
		}
	}
	if len(keys) == 0 {
		panic("chain: an empty set was elected")
	}
	slices.Sort(keys)
	var updates []abci.ValidatorUpdate
	was := make(map[string]int64) // never iterated
	for _, m := range old {
		was[m.key] = m.Power
		if _, ok := powers[m.key]; !ok {
			set.del(s, m.key)
			updates = append(updates, abci.Ed25519ValidatorUpdate([]byte(m.key), 0))
		}
		if !stays[m.Account] {
			windows.del(s, m.Account)
		}
	}
	for _, key := range keys {
		if m := powers[key]; was[key] != m.Power {
			updates = append(updates, abci.Ed25519ValidatorUpdate([]byte(key), m.Power))
		}
		set.set(s, key, powers[key])
	}
	slices.SortFunc(updates, func(a, b abci.ValidatorUpdate) int {
		return bytes.Compare(a.PubKey.GetEd25519(), b.PubKey.GetEd25519())
	})
	return updates
}

// forget removes what no payout, evidence or window can ask for any more, as
// era now begins (spec §4.2, §4.4).
func (s *state) forget(now uint64) {
	p := s.params.Stake
	if keep := max(p.UnbondEras, p.HistoryEras) + 1; now > keep {
		old := now - keep - 1
		for _, head := range heads(s, old) {
			for _, g := range guarantorsOf(s, old, head.Account) {
				guarantors.del(s, guarantorKey(old, head.Account, g.Account))
			}
			exposures.del(s, both[uint64, peer.ID]{old, head.Account})
		}
		clearEra(s, duties, old)
		clearEra(s, offences, old)
		s.forgetConvictions(int64(old+1) * s.params.Mpow.SlotBlocks * s.params.EraSlots)
	}
	if now > p.HistoryEras {
		s.expire(now - p.HistoryEras - 1)
	}
	var stale []string
	consKeys.each(s, func(address string, k consKey) bool {
		c := stakes.must(s, k.Account).Candidate
		if uint64(k.Era)+p.UnbondEras < now && (c == nil || !bytes.Equal(c.Key, k.Key)) {
			stale = append(stale, address)
		}
		return true
	})
	for _, address := range stale {
		consKeys.del(s, address)
	}
	var silent []peer.ID
	workOf.each(s, func(owner peer.ID, w gpos.Work) bool {
		if uint64(w.Era)+1 < now {
			silent = append(silent, owner)
		}
		return true
	})
	for _, owner := range silent {
		workOf.del(s, owner)
	}
	if uint64(workAll.must(s, all).Era)+1 < now {
		workAll.del(s, all)
	}
}

// clearEra removes the rows of t that belong to era.
func clearEra[V any](s *state, t table[both[uint64, peer.ID], V], era uint64) {
	var gone []both[uint64, peer.ID]
	t.under(s, numberKey.put(nil, era), func(k both[uint64, peer.ID], _ V) bool {
		gone = append(gone, k)
		return true
	})
	for _, k := range gone {
		t.del(s, k)
	}
}
