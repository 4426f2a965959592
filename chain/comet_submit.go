package chain

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/mempool"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Submit signs m with the node's key, sends it and returns once a block holds
// it. Errors are those of SubmitTx.
func (t *Comet) Submit(ctx context.Context, m Msg) (TxResult, error) {
	from := t.app.View()
	tx, err := t.wallet.submit(t.app.View, t.Queue, m, func(tx []byte) error { return t.check(ctx, tx, [32]byte{}) })
	if err != nil {
		return TxResult{}, err
	}
	return t.await(ctx, tx, from.Height())
}

// SubmitTx hands a signed transaction to the network and returns once a block
// holds it, with what became of it there. A transaction that a rule refuses,
// before or in its block, is an [*Error] with the rule's code; TxResult.Height
// tells the two apart. One that was sent before is waited for, not sent again.
//
// It takes no other's place: when another waits here with its nonce the error is
// one of CodeTaken, and tx went nowhere.
//
// When ctx ends first the error wraps its cause and names the hash: the
// transaction may still come into a block.
func (t *Comet) SubmitTx(ctx context.Context, tx []byte) (TxResult, error) {
	return t.Replace(ctx, tx, [32]byte{})
}

// Replace is SubmitTx for a transaction that takes the place of old, which waits at
// this node with the nonce of tx and pays less (spec §2.2); zero is none.
func (t *Comet) Replace(ctx context.Context, tx []byte, old [32]byte) (TxResult, error) {
	hash := sha256.Sum256(tx)
	from := t.app.View()
	if r, ok := from.Tx(hash); ok {
		return r, r.Err()
	}
	if err := t.check(ctx, tx, old); err != nil {
		if r, ok := t.app.View().Tx(hash); ok { // it came in at this very moment
			return r, r.Err()
		}
		return TxResult{Hash: hash}, err
	}
	return t.await(ctx, tx, from.Height())
}

// Queue returns what waits at this node of the account id. It waits while a block
// is committed and what that left is checked again. It may be called concurrently.
func (t *Comet) Queue(id peer.ID) Queue {
	if n := t.node.Load(); n != nil {
		n.Mempool().Lock()
		defer n.Mempool().Unlock()
	}
	return t.app.Queue(id)
}

// Pool returns what waits at this node. It may be called concurrently.
func (t *Comet) Pool() PoolStatus { return t.app.Pool() }

// check offers tx to the mempool, to take the place of old or none, and returns the
// rule that refused it. A transaction already there is fine.
func (t *Comet) check(ctx context.Context, tx []byte, old [32]byte) error {
	n, err := t.running(ctx)
	if err != nil {
		return err
	}
	defer t.app.Door(sha256.Sum256(tx), old)()
	answer := make(chan *abci.ResponseCheckTx, 1)
	err = n.Mempool().CheckTx(tx, func(r *abci.ResponseCheckTx) { answer <- r }, mempool.TxInfo{})
	var tooLarge mempool.ErrTxTooLarge
	var full mempool.ErrMempoolIsFull
	switch {
	case errors.Is(err, mempool.ErrTxInCache):
		return nil
	case errors.As(err, &tooLarge):
		return refuse(CodeSize, "transaction of %d bytes: at most %d", tooLarge.Actual, tooLarge.Max)
	case mempool.IsPreCheckError(err):
		return refuse(CodeSize, "transaction of %d bytes fits in no block: %v", len(tx), err)
	case errors.As(err, &full), errors.Is(err, mempool.ErrRecheckFull):
		return refuse(CodeStopped, "this node takes no transaction now: %v", err)
	case err != nil:
		return fmt.Errorf("check transaction: %w", err)
	}
	r := <-answer // the local client calls back before CheckTx returns
	if r.Code != CodeOK {
		return &Error{Code: r.Code, Text: r.Log}
	}
	return nil
}

// running returns CometBFT once it is up.
func (t *Comet) running(ctx context.Context) (*cometNode, error) {
	select {
	case <-t.up:
	case <-t.life.Done():
	case <-ctx.Done():
	}
	if t.life.Err() != nil {
		return nil, refuse(CodeStopped, "%v", context.Cause(t.life))
	}
	if n := t.node.Load(); n != nil {
		return n, nil
	}
	return nil, refuse(CodeStopped, "this node has not joined its chain yet: wait until status shows a height that rises")
}

// await reads blocks above height until one holds tx. After each that does not,
// the mempool is asked again: a block may have made the transaction invalid, and
// then no later one will hold it.
func (t *Comet) await(ctx context.Context, tx []byte, height int64) (TxResult, error) {
	hash := sha256.Sum256(tx)
	for {
		b, err := t.Next(ctx, height)
		switch {
		case err == nil:
			height = b.Height
		case errors.Is(err, ErrClosed):
			return TxResult{Hash: hash}, refuse(CodeStopped, "transaction %x is in no block yet: %v", hash, err)
		case ctx.Err() != nil:
			return TxResult{Hash: hash}, fmt.Errorf("transaction %x is in no block yet and may still come into one: %w", hash, ctx.Err())
		default:
			return TxResult{Hash: hash}, err
		}
		v := t.app.View()
		if r, ok := v.Tx(hash); ok {
			return r, r.Err()
		}
		height = max(height, v.Height())
		if err := t.check(ctx, tx, [32]byte{}); err != nil {
			if r, ok := t.app.View().Tx(hash); ok {
				return r, r.Err()
			}
			var e *Error
			if errors.As(err, &e) && e.Code == CodeTaken { // it was in, so it may have gone further
				err = refuse(CodeStale, "transaction %x left this node: %s", hash, e.Text)
			}
			return TxResult{Hash: hash}, err
		}
	}
}
