package chain

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

// A StakeLimit says how much stake a workload would let count now (spec §4.1).
type StakeLimit struct {
	Workload   uint64      `json:"workload"`    // bytes asked about
	Total      uint64      `json:"total"`       // bytes of all owners in the last full slot, with it
	Limit      coin.Amount `json:"limit"`       // grains that it carries
	TotalLimit coin.Amount `json:"total_limit"` // L: grains that count in all when storage is plentiful
	Plentiful  bool        `json:"plentiful"`   // stage two: storage outgrew L, so the limit is a share of it
	Effective  coin.Amount `json:"effective"`   // grains that counted at the last election that succeeded
	Own        coin.Amount `json:"own"`         // grains that the account bonds itself
	Guaranteed coin.Amount `json:"guaranteed"`  // grains by which others back it
	Counts     coin.Amount `json:"counts"`      // of these, what would count
	Room       coin.Amount `json:"room"`        // grains more that would count
	Newcomer   coin.Amount `json:"newcomer"`    // grains, the least that another guarantor has to give
}

// LimitFor says what a workload of so many bytes, in place of what id proves
// now, would let count of its stake if all else stayed as it is (spec §4.1).
func (v *View) LimitFor(id peer.ID, bytes uint64) StakeLimit {
	slot, st := uint64(v.params.SlotOf(v.height)), stakes.must(v.source, id)
	mine, all := workOf.must(v.source, id).During(slot), workAll.must(v.source, all).During(slot)
	effective, supply := v.election().Effective, mintTable.must(v.source, mintageKey).supply()
	out := StakeLimit{
		Workload: bytes, Total: all - min(all, mine) + bytes, Effective: effective,
		TotalLimit: gpos.TotalLimit(effective, supply), Own: st.Active, Guaranteed: st.Backing,
	}
	out.Limit = v.params.Stake.Limit(bytes, out.Total, effective, supply)
	out.Plentiful = v.params.Stake.Plentiful(out.Total, effective, supply)
	stake := st.Active + st.Backing
	out.Counts = min(stake, out.Limit)
	out.Room = out.Limit - out.Counts
	out.Newcomer = v.params.Stake.Newcomer(st)
	return out
}

// A Payout is what an account has coming, or had, from one validator or
// candidate for one era (spec §4.4).
type Payout struct {
	Era       gpos.Era    `json:"era"`
	Validator peer.ID     `json:"validator"`
	Amount    coin.Amount `json:"amount"`    // grains for the account
	Effective coin.Amount `json:"effective"` // grains of it that counted with the validator
	Claimed   bool        `json:"claimed"`   // paid, to all who share in it
	Until     gpos.Era    `json:"until"`     // the last era in which it can be claimed
}

// Payouts returns what id earned as validator, candidate or guarantor in the eras
// that can still be claimed, the newest first (spec §4.4).
func (v *View) Payouts(id peer.ID) []Payout {
	out, now, p := []Payout{}, uint64(v.params.EraOf(v.height)), v.params.Stake
	for back := uint64(1); back <= p.HistoryEras && back <= now; back++ {
		era := now - back
		e, ok := earned.get(v.source, era)
		if !ok {
			continue
		}
		for _, x := range heads(v.source, era) {
			own := x.Own
			if x.Account != id {
				if own = guarantors.must(v.source, guarantorKey(era, x.Account, id)); own == 0 {
					continue
				}
			}
			made := uint64(0)
			if x.Elected() {
				made = points(v.source, v.params, era, x.Account)
			}
			x.Others = guarantorsOf(v.source, era, x.Account)
			shares, _ := e.Shares(x, made)
			for _, share := range shares {
				if share.Account == id && share.Amount > 0 {
					out = append(out, Payout{
						Era: gpos.Era(era), Validator: x.Account, Amount: share.Amount, Effective: own,
						Claimed: paid.has(v.source, both[uint64, peer.ID]{era, x.Account}), Until: gpos.Era(era + p.HistoryEras),
					})
				}
			}
		}
	}
	return out
}
