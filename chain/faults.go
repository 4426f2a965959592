package chain

import (
	"slices"

	abci "github.com/cometbft/cometbft/abci/types"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

var (
	windows  = table[peer.ID, gpos.Window]{keyStake + "v", whoKey}
	absences = table[uint64, gpos.Absence]{keyStake + "n", numberKey} // by height mod DownWindow
	// offences marks who has equivocated in an era, convicted each height for
	// which an account was slashed.
	offences  = table[both[uint64, peer.ID], struct{}]{keyEra + "o", join(numberKey, whoKey)}
	convicted = table[both[peer.ID, uint64], struct{}]{keyStake + "f", join(whoKey, numberKey)}
)

// signed books the commit of the last block and the misbehaviour that came with
// this one, before all else in each block (spec §4.4, §4.5).
func (s *state) signed(proposer []byte, commit abci.CommitInfo, faults []abci.Misbehavior) {
	era := uint64(s.era())
	if k, ok := consKeys.get(s, string(proposer)); ok {
		s.countDuty(era, k.Account, duty{Proposed: 1})
	}
	s.attend(era, commit)
	for _, f := range faults {
		s.convict(f)
	}
}

func (s *state) countDuty(era uint64, who peer.ID, more duty) {
	k := both[uint64, peer.ID]{era, who}
	d := duties.must(s, k)
	duties.set(s, k, duty{d.Proposed + more.Proposed, d.Missed + more.Missed})
}

// attend books who of the set did not sign the commit that came with this
// block. What left the window is taken out again, so that each member's count is
// that of the last DownWindow commits; while all sign, nothing is written.
func (s *state) attend(era uint64, commit abci.CommitInfo) {
	sits := make(map[peer.ID]bool) // never iterated
	for _, m := range s.members() {
		sits[m.Account] = true
	}
	slot := uint64(s.height) % s.params.Stake.DownWindow
	if old, ok := absences.get(s, slot); ok {
		for _, who := range old.Accounts {
			if w, ok := windows.get(s, who); ok && w.Since <= old.Height {
				w.Missed--
				windows.set(s, who, w)
			}
		}
		absences.del(s, slot)
	}
	var absent []peer.ID
	for _, v := range commit.Votes {
		k, ok := consKeys.get(s, string(v.Validator.Address))
		if !ok || !sits[k.Account] {
			continue
		}
		w, ok := windows.get(s, k.Account)
		if !ok {
			w = gpos.Window{Since: s.height}
			windows.set(s, k.Account, w)
		}
		// A vote for nil is a sign of life, and is in the commit.
		if v.BlockIdFlag != cmtproto.BlockIDFlagAbsent || slices.Contains(absent, k.Account) {
			continue
		}
		absent = append(absent, k.Account)
		w.Missed++
		windows.set(s, k.Account, w)
		s.countDuty(era, k.Account, duty{Missed: 1})
	}
	if len(absent) > 0 {
		slices.Sort(absent)
		absences.set(s, slot, gpos.Absence{Height: s.height, Accounts: absent})
	}
}

// judge jails and slashes who is down, at the last block of an era: only then
// can the worst be told (spec §4.5).
func (s *state) judge() {
	p, era := s.params.Stake, uint64(s.era())
	var seats []gpos.Seat
	for _, x := range heads(s, era) {
		if x.Elected() {
			w := windows.must(s, x.Account)
			seats = append(seats, gpos.Seat{Account: x.Account, Power: x.Power, Seen: p.Seen(w, s.height), Missed: w.Missed})
		}
	}
	for _, who := range p.Down(seats) {
		s.slash(era, who, p.DownSlash, "down")
		windows.del(s, who) // after Unjail it begins anew
	}
}

// convict slashes an equivocator once for a height. Evidence that is as old as
// UnbondEras comes to nothing: what was at stake then may be gone (spec §4.2,
// §4.5).
func (s *state) convict(f abci.Misbehavior) {
	k, ok := consKeys.get(s, string(f.Validator.Address))
	if !ok || f.Height <= 0 {
		return
	}
	row := both[peer.ID, uint64]{k.Account, uint64(f.Height)}
	// A set is elected at a height and votes from the second height on.
	era := uint64(s.params.EraOf(f.Height - 1))
	_, stood := exposures.get(s, both[uint64, peer.ID]{era, k.Account})
	if !stood || convicted.has(s, row) || era+s.params.Stake.UnbondEras <= uint64(s.era()) {
		return
	}
	convicted.set(s, row, struct{}{})
	offences.set(s, both[uint64, peer.ID]{era, k.Account}, struct{}{})
	var guilty, n uint64
	offences.under(s, numberKey.put(nil, era), func(both[uint64, peer.ID], struct{}) bool {
		guilty++
		return true
	})
	for _, x := range heads(s, era) {
		if x.Elected() {
			n++
		}
	}
	s.slash(era, k.Account, s.params.Stake.EquivocationPart(guilty, n), "signed twice")
}

// slash takes part ppm of who's exposure in era from all who stand in it, jails
// who, and takes the same out of this era's exposure (spec §4.3, §4.5).
func (s *state) slash(era uint64, who peer.ID, part uint64, why string) {
	x, ok := exposure(s, era, who)
	if !ok {
		return
	}
	p, now := s.params.Stake, uint64(s.era())
	after, losses := p.Slash(x, part)
	s.setExposure(era, after)
	if now != era {
		if sitting, ok := exposure(s, now, who); ok {
			s.setExposure(now, p.Less(sitting, losses))
		}
	}
	total := coin.Amount(0)
	for _, l := range losses {
		st, taken, shrunk := stakes.must(s, l.Account).Lose(who, l.Amount)
		s.setStake(l.Account, st)
		s.unback(l.Account, shrunk)
		total += taken
	}
	s.setStake(who, stakes.must(s, who).Jail(gpos.Era(now)))
	burnt, reserve := gpos.Split(total)
	s.burn(potBonds, burnt)
	s.shift(potBonds, potReserve, reserve)
	s.emit(Event{Kind: "slashed", Who: who, Amount: total, Why: why})
}

// forgetConvictions removes what no evidence can name again.
func (s *state) forgetConvictions(before int64) {
	var gone []both[peer.ID, uint64]
	convicted.each(s, func(k both[peer.ID, uint64], _ struct{}) bool {
		if int64(k.B) < before {
			gone = append(gone, k)
		}
		return true
	})
	for _, k := range gone {
		convicted.del(s, k)
	}
}
