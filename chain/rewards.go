package chain

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

var (
	duties = table[both[uint64, peer.ID], duty]{keyEra + "d", join(numberKey, whoKey)}
	earned = table[uint64, gpos.Earned]{keyEra + "e", numberKey}
	paid   = table[both[uint64, peer.ID], struct{}]{keyEra + "p", join(numberKey, whoKey)}
	// intakes holds the part of each era's intake of the staking pot that every
	// one of the PotEras from it on pays.
	intakes = table[uint64, coin.Amount]{keyEra + "i", numberKey}
	plans   = table[string, plan]{keyEra + "a", wordKey}
)

// A duty counts what a validator did in an era. That it signed is what is
// counted by its absence: most do, and nothing is written for them.
type duty struct {
	Proposed uint64 `cbor:"1,keyasint,omitempty"`
	Missed   uint64 `cbor:"2,keyasint,omitempty"`
}

// A plan is what is promised of the staking pot (spec §4.4).
type plan struct {
	Promised coin.Amount `cbor:"1,keyasint"` // parts to come, and parts of past eras not yet paid out
	Rate     coin.Amount `cbor:"2,keyasint"` // parts that an era pays now
}

// points returns what who's duties in era are worth. The commits of an era's
// first two blocks are those of the set before (CometBFT seats a set at H+2) and
// count as signed by the new one.
func points(s source, p Params, era uint64, who peer.ID) uint64 {
	d := duties.must(s, both[uint64, peer.ID]{era, who})
	commits := uint64(p.Mpow.SlotBlocks * p.EraSlots)
	return p.Stake.ProposerPoints*d.Proposed + p.Stake.SignerPoints*(commits-min(commits, d.Missed))
}

// earn fixes what era, which is over, pays (spec §4.4).
func (s *state) earn(era uint64) {
	p, pl := s.params.Stake, plans.must(s, all)
	// A part of what came into the pot since the era before is for each of the
	// next PotEras; the remainder waits for the next intake.
	if part := (s.pot(potStaking) - pl.Promised) / coin.Amount(p.PotEras); part > 0 {
		intakes.set(s, era, part)
		pl.Promised += part * coin.Amount(p.PotEras)
		pl.Rate += part
	}
	if era >= p.PotEras {
		pl.Rate -= intakes.must(s, era-p.PotEras)
		intakes.del(s, era-p.PotEras)
	}
	var n, total uint64
	var effective coin.Amount
	kept := true
	for _, x := range heads(s, era) {
		effective += x.Total
		if x.Elected() {
			n++
			total += points(s, s.params, era, x.Account)
			kept = x.Kept
		}
	}
	minted := p.Inflation(gpos.Era(era), mintTable.must(s, mintageKey).Genesis, s.supply(), effective)
	e := gpos.Earn(minted, pl.Rate, n, total, effective, kept)
	pl.Promised -= pl.Rate - e.Transferred // the share that a kept set does not get stays in the pot
	earned.set(s, era, e)
	plans.set(s, all, pl)
	s.emit(Event{Kind: "era_earned", Amount: e.Authoring + e.Staking})
}

// payout pays what who and its guarantors earned in era into their bonds, and
// to those who have none any more into their free balance (spec §4.4).
func (s *state) payout(who peer.ID, era gpos.Era) error {
	p, now := s.params.Stake, s.era()
	if era >= now {
		return refuse(CodeRefused, "payout of era %d: it is not over, now is era %d", era, now)
	}
	if uint64(now-era) > p.HistoryEras {
		return refuse(CodeRefused, "payout of era %d: it could be claimed until era %d, now is era %d", era, uint64(era)+p.HistoryEras, now)
	}
	k := both[uint64, peer.ID]{uint64(era), who}
	x, ok := exposures.get(s, k) // guarantors come last: anybody asks, and there may be many
	e, over := earned.get(s, uint64(era))
	if !ok || !over {
		return refuse(CodeAbsent, "payout of era %d: %v was neither validator nor candidate", era, who)
	}
	if paid.has(s, k) {
		return refuse(CodeRefused, "payout of era %d: %v was paid", era, who)
	}
	made := uint64(0)
	if x.Elected() {
		made = points(s, s.params, uint64(era), who)
	}
	if none, _ := e.Shares(x, made); len(none) == 0 {
		return refuse(CodeRefused, "payout of era %d: %v earned nothing", era, who)
	}
	x.Others = guarantorsOf(s, uint64(era), who)
	shares, drawn := e.Shares(x, made)
	sum := coin.Amount(0)
	for _, share := range shares {
		sum += share.Amount
	}
	drawn = min(drawn, e.Transferred-e.Drawn)
	e.Drawn += drawn
	earned.set(s, uint64(era), e)
	paid.set(s, k, struct{}{})
	pl := plans.must(s, all)
	pl.Promised -= drawn
	plans.set(s, all, pl)
	s.shift(potStaking, potBonds, drawn)
	s.mint(potBonds, sum-drawn)
	for _, share := range shares {
		st := stakes.must(s, share.Account)
		if st.Locked() == 0 {
			s.release(potBonds, share.Account, share.Amount)
		} else {
			st.Active = mustAdd(st.Active, share.Amount)
			s.setStake(share.Account, st)
		}
		s.emit(Event{Kind: "rewarded", Who: share.Account, Node: who, Amount: share.Amount})
	}
	return nil
}

// expire forgets what era earned: what was not claimed is never minted, and
// what the pot had set aside for it is intake again (spec §4.4).
func (s *state) expire(era uint64) {
	e, ok := earned.get(s, era)
	if !ok {
		return
	}
	pl := plans.must(s, all)
	pl.Promised -= e.Transferred - e.Drawn
	plans.set(s, all, pl)
	earned.del(s, era)
	clearEra(s, paid, era)
}

// checkRewards returns the first breach of spec §9.4 and §9.6 among what eras leave:
// what is promised of the staking pot is the sum of its parts, what counts is no less
// than what stands for it, and guarantees and duties are somebody's.
func checkRewards(s *state) error {
	era, pots, pl := uint64(s.era()), s.params.Stake.PotEras, plans.must(s, all)
	promised, rate := coin.Amount(0), coin.Amount(0)
	intakes.each(s, func(from uint64, part coin.Amount) bool {
		promised, rate = promised+part*coin.Amount(from+pots-era), rate+part
		return true
	})
	earned.each(s, func(_ uint64, e gpos.Earned) bool {
		promised += e.Transferred - e.Drawn
		return true
	})
	if pl != (plan{promised, rate}) {
		return fmt.Errorf("the staking pot promises %+v, its parts are %v and %v an era (spec §9.4)", pl, promised, rate)
	}
	last, effective := elections.must(s, all), coin.Amount(0)
	for _, x := range heads(s, uint64(last.Era)) {
		effective += x.Total
	}
	if !last.Kept && effective > last.Effective {
		return fmt.Errorf("%v count in era %d, the election says %v (spec §9.4)", effective, last.Era, last.Effective)
	}
	var err error
	fail := func(format string, args ...any) bool {
		if err == nil {
			err = fmt.Errorf(format, args...)
		}
		return false
	}
	guarantors.each(s, func(k both[uint64, both[peer.ID, peer.ID]], _ coin.Amount) bool {
		return exposures.has(s, both[uint64, peer.ID]{k.A, k.B.A}) || fail("%v guarantees %v in era %d, which nothing stands for (spec §9.6)", k.B.B, k.B.A, k.A)
	})
	paid.each(s, func(k both[uint64, peer.ID], _ struct{}) bool {
		return earned.has(s, k.A) || fail("%v was paid for era %d, which is forgotten (spec §9.6)", k.B, k.A)
	})
	sits := map[peer.ID]bool{} // never iterated
	for _, m := range s.members() {
		sits[m.Account] = true
	}
	windows.each(s, func(who peer.ID, _ gpos.Window) bool {
		return sits[who] || fail("%v has commits to sign and no seat (spec §9.6)", who)
	})
	stakes.each(s, func(who peer.ID, st gpos.Stake) bool {
		if st.Empty() {
			return fail("%v has a stake of nothing (spec §9.6)", who)
		}
		if c := st.Candidate; c != nil {
			address := gpos.Address(c.Key)
			return consKeys.must(s, string(address[:])).Account == who || fail("the consensus key of %v is not its own (spec §9.4)", who)
		}
		return true
	})
	return err
}
