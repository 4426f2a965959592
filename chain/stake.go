package chain

import (
	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

// stake runs one message of package gpos (spec §4).
func (s *state) stake(sender peer.ID, m *gpos.Msg) error { return notBuilt("§4") }

// bondGenesis makes the first validators of g, whose bonds are already in the
// pot of bonds, and returns their powers (spec §4.3).
func (s *state) bondGenesis(g Genesis) []abci.ValidatorUpdate { return g.validatorUpdates() }

// startEra runs at the first block of an era, before all else (spec §1.8).
func (s *state) startEra() {}

// endEra runs at the last block of an era, after messages: the election. It
// returns what changes in the validator set (spec §4.3).
func (s *state) endEra() []abci.ValidatorUpdate { return nil }

// signed books the commit of the last block and the misbehaviour that came with
// this one, before all else in each block (spec §4.4, §4.5).
func (s *state) signed(proposer []byte, commit abci.CommitInfo, faults []abci.Misbehavior) {}

// worked books workload that an accepted report brought to owner in this slot,
// in bytes (spec §3.7).
func (s *state) worked(owner peer.ID, bytes uint64) {}

// dueUnlock frees what is unbonded (spec §4.2).
func (s *state) dueUnlock() {}

// checkStake returns the money that ledgers hold, which is what is in the pot of
// bonds, and the first breach of spec §9.5.
func checkStake(s source) (coin.Amount, error) { return potTable.must(s, string(potBonds)), nil }
