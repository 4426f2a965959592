package chain

import (
	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/mpow"
)

var (
	hashes = table[uint64, mpow.Hash]{keyHash, numberKey}
	seeds  = table[uint64, mpow.Hash]{keySeed, numberKey}
)

// blockHash returns the hash of one of the last SlotBlocks heights, this one
// included (spec §3.2).
func (s *state) blockHash(height int64) ([32]byte, bool) {
	if height < 0 {
		return [32]byte{}, false
	}
	h, ok := hashes.get(s, uint64(height))
	return h, ok
}

// seed returns the seed of this slot or the one before; slot 0 has none (spec §1.4).
func (s *state) seed(slot mpow.Slot) ([32]byte, bool) {
	h, ok := seeds.get(s, uint64(slot))
	return h, ok
}

// era returns the era of this block (spec §1.4).
func (s *state) era() gpos.Era { return s.params.EraOf(s.height) }

// run executes a block in the order of spec §1.8 and returns the results of its
// transactions and what changes in the validator set.
func (s *state) run(r *abci.RequestFinalizeBlock) ([]TxResult, []abci.ValidatorUpdate) {
	s.version = s.upgrade()
	s.remember()
	s.signed(r.ProposerAddress, r.DecidedLastCommit, r.Misbehavior)
	if s.params.startsSlot(s.height) {
		if s.params.startsEra(s.height) {
			s.enact()
			s.startEra()
		}
		s.closeSlotMarket()
		s.closeSlotDraws()
	}
	s.dueExpiry()
	s.duePending()
	s.dueUnlock()
	s.dueLapses()
	s.dueLeaving()
	s.duePower()
	s.dueAnnouncements()
	s.dueVotes()
	s.dueTabs()
	results := make([]TxResult, 0, len(r.Txs))
	for _, tx := range r.Txs {
		results = append(results, s.exec(tx))
	}
	if s.params.endsEra(s.height) {
		return results, s.endEra()
	}
	return results, nil
}

// remember keeps the hashes of this height and of the SlotBlocks before it, which a
// registration may name, and the seeds of two slots (spec §1.4, §3.2).
func (s *state) remember() {
	hashes.set(s, uint64(s.height), s.hash)
	if old := s.height - s.params.Mpow.SlotBlocks - 1; old > 0 {
		hashes.del(s, uint64(old))
	}
	if s.params.startsSlot(s.height) {
		slot := uint64(s.slot())
		seeds.set(s, slot, s.hash)
		if slot >= 2 {
			seeds.del(s, slot-2)
		}
	}
}
