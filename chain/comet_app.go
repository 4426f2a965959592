package chain

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/consensus"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A Ledger is what CometBFT drives: an [App], or in tests one that fails on
// purpose.
type Ledger interface {
	abci.Application
	// View returns the state after the last Commit; safe for concurrent use.
	View() *View
	// Next returns the first block after height, waiting for it until ctx ends;
	// safe for concurrent use.
	Next(ctx context.Context, height int64) (Block, error)
	// Queue returns what waits of an account. It is asked while no block is committed
	// and what one left is not checked again.
	Queue(id peer.ID) Queue
	// Pool returns what waits; safe for concurrent use.
	Pool() PoolStatus
	// Door has CheckTx take the transaction hash for one that somebody gives to this
	// very node, until shut is called: it takes the place of the waiting transaction
	// old, or of none if that is zero. It is safe for concurrent use.
	Door(hash, old [32]byte) (shut func())
}

var _ Ledger = (*App)(nil)

// watched is a ledger that tells when it cannot go on. A panic while a block is
// executed goes on after that: a node whose rules broke must not vote again.
type watched struct {
	Ledger
	failed  func(error)
	reactor atomic.Pointer[consensus.Reactor] // nil until the node is built

	height int64 // of the block between FinalizeBlock and Commit; one goroutine
}

// FinalizeBlock implements abci.Application.
func (w *watched) FinalizeBlock(ctx context.Context, r *abci.RequestFinalizeBlock) (*abci.ResponseFinalizeBlock, error) {
	w.height = r.Height
	defer w.tell("execute")
	res, err := w.Ledger.FinalizeBlock(ctx, r)
	if err != nil {
		w.failed(fmt.Errorf("execute block %d: %w", w.height, err))
		if r := w.reactor.Load(); r != nil && r.WaitSync() && errors.Is(err, ErrUpgrade) {
			// The routine that catches up would panic, where nobody recovers, though
			// all is well: the node is about to stop.
			runtime.Goexit()
		}
	}
	return res, err
}

// Commit implements abci.Application.
func (w *watched) Commit(ctx context.Context, r *abci.RequestCommit) (*abci.ResponseCommit, error) {
	defer w.tell("commit")
	res, err := w.Ledger.Commit(ctx, r)
	if err != nil {
		w.failed(fmt.Errorf("commit block %d: %w", w.height, err))
	} else if err := halted(w.Ledger); err != nil {
		w.failed(err) // the next block is for a newer build
	}
	return res, err
}

// tell must be deferred itself.
func (w *watched) tell(doing string) {
	if r := recover(); r != nil {
		w.failed(fmt.Errorf("%s block %d: panic: %v", doing, w.height, r))
		panic(r)
	}
}
