package chain

import (
	"context"
	"time"

	"github.com/cometbft/cometbft/consensus"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	cmttypes "github.com/cometbft/cometbft/types"
)

// halted returns an [ErrUpgrade] once the next block is for a newer build.
func halted(l Ledger) error {
	if h, ok := l.(interface{ Halted() error }); ok {
		return h.Halted()
	}
	return nil
}

// A voter signs for no block that this build cannot make, not even that there is
// none: so a node can stay up for others after its last block (spec §8.1).
// CometBFT takes an error here for a signer that is away, and goes on.
type voter struct {
	*privval.FilePV
	ledger Ledger
}

var _ cmttypes.PrivValidator = voter{}

// SignVote implements cmttypes.PrivValidator.
func (v voter) SignVote(chainID string, vote *cmtproto.Vote) error {
	if err := halted(v.ledger); err != nil {
		return err
	}
	return v.FilePV.SignVote(chainID, vote)
}

// SignProposal implements cmttypes.PrivValidator.
func (v voter) SignProposal(chainID string, p *cmtproto.Proposal) error {
	if err := halted(v.ledger); err != nil {
		return err
	}
	return v.FilePV.SignProposal(chainID, p)
}

// How long a node stays up after the last block that it can make.
const (
	lingerMost  = 30 * time.Second       // for who never says that it has the block
	lingerCalm  = time.Second            // with nobody behind: our own word that we have it is sent by then
	lingerEvery = 100 * time.Millisecond // looks at who is behind
)

// linger keeps a node up, whose build knows no further block, until all who are
// connected have had the last one too: they get it, and the votes for it, from
// those who have them, and without it they could not stop where the others did.
// ctx and the end of the consensus routine end it at once.
func (t *Comet) linger(ctx context.Context, n *cometNode, routine <-chan struct{}) {
	height := t.app.View().Height()
	t.log.Info("the last block that this build can make is there: staying until others have it too", "height", height, "at_most", lingerMost)
	most := time.NewTimer(lingerMost)
	defer most.Stop()
	tick := time.NewTicker(lingerEvery)
	defer tick.Stop()
	served := served{}
	for calm := time.Duration(0); calm < lingerCalm; calm += lingerEvery {
		select {
		case <-ctx.Done():
			return
		case <-routine: // the others have the next block, which needs nothing of us
			return
		case <-most.C:
			t.log.Warn("peers may lack the last block: they get it from a newer build", "height", height, "peers", n.Switch().Peers().Size())
			return
		case <-tick.C:
			if !served.all(n.Switch().Peers().Copy(), height) || n.state.GetLastHeight() < height {
				calm = -lingerEvery
			}
		}
	}
}

// served remembers which peers have said that they are above a height, and so
// have the block there. Who stops may be connected once more, as a stranger.
type served map[p2p.ID]bool

// all reports whether each of peers has ever said so.
func (s served) all(peers []p2p.Peer, height int64) bool {
	all := true
	for _, p := range peers {
		if state, ok := p.Get(cmttypes.PeerStateKey).(*consensus.PeerState); ok && state.GetHeight() > height {
			s[p.ID()] = true
		}
		all = all && s[p.ID()]
	}
	return all
}
