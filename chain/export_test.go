package chain

import (
	"crypto/rand"

	cmted25519 "github.com/cometbft/cometbft/crypto/ed25519"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"
)

// DoubleSign signs two precommits for the last height with the consensus key of
// home, as a validator that runs twice does, and hands both to this node's
// CometBFT, as to a peer that saw them. CometBFT verifies them as it does all
// evidence. It returns the height.
func (t *Comet) DoubleSign(home string) (int64, error) {
	key, err := ConsensusKey(home)
	if err != nil {
		return 0, err
	}
	n := t.node.Load()
	st := n.state.GetState()
	pv := types.NewMockPVWithParams(cmted25519.PrivKey(key), false, false)
	address := pv.PrivKey.PubKey().Address()
	index, _ := st.LastValidators.GetByAddress(address)
	at := n.BlockStore().LoadBlockMeta(st.LastBlockHeight).Header.Time
	sign := func() (*types.Vote, error) {
		hash := make([]byte, 64)
		_, _ = rand.Read(hash) // never fails
		v := &types.Vote{
			Type: cmtproto.PrecommitType, Height: st.LastBlockHeight, ValidatorAddress: address, ValidatorIndex: index, Timestamp: at,
			BlockID: types.BlockID{Hash: hash[:32], PartSetHeader: types.PartSetHeader{Total: 1, Hash: hash[32:]}},
		}
		p := v.ToProto()
		err := pv.SignVote(st.ChainID, p)
		v.Signature = p.Signature
		return v, err
	}
	one, err := sign()
	if err != nil {
		return 0, err
	}
	other, err := sign()
	if err != nil {
		return 0, err
	}
	evidence, err := types.NewDuplicateVoteEvidence(one, other, at, st.LastValidators)
	if err != nil {
		return 0, err
	}
	return st.LastBlockHeight, n.EvidencePool().AddEvidence(evidence)
}
