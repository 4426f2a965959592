package chain

import (
	"errors"
	"fmt"
	"math"
	"sync"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/libp2p/go-libp2p/core/peer"
)

// maxWaiting is how many transactions other than free reports may wait at this
// node, and half a block how many bytes: what a proposer can choose from is the
// oldest block's worth of a pool that takes so many, and reports, without which
// validators lose their seats, have to find room in it (spec §2.2).
const maxWaiting = mempoolTxs * 3 / 4

// farNonce is how many transactions of one account may wait at once.
const farNonce = 64

// A pool knows which nonces wait for a block at this node, so that an account
// can send several before the first is in. It is no part of consensus.
type pool struct {
	most int // how many may wait; 0: maxWaiting

	mu      sync.Mutex // guards the fields below
	height  int64
	waiting map[peer.ID]map[uint64][32]byte // nonce → hash
	count   int                             // of those that are no free reports
	bytes   int64                           // of the same
}

// check refuses what the next blocks would refuse unpaid (spec §2.3).
func (p *pool) check(v *View, txs *txCache, raw []byte) error {
	tx, err := txs.decode(raw)
	if err != nil {
		return err
	}
	s := v.scratch()
	b := tx.Body
	if b.Nonce == 0 {
		if _, err := s.admit(tx); err != nil {
			return err
		}
		return p.wait(v.height, v.params.BlockBytes/2, tx)
	}
	if err := s.check(tx); err != nil {
		return err
	}
	a := accounts.must(s, b.Sender)
	switch {
	case b.Nonce <= a.Nonce:
		return refuse(CodeStale, "nonce %d of %v was used: the next is %d", b.Nonce, b.Sender, a.Nonce+1)
	case b.Nonce > a.Nonce+farNonce:
		return refuse(CodeFar, "nonce %d of %v is too far: the next is %d", b.Nonce, b.Sender, a.Nonce+1)
	}
	if err := payable(b, a, s.params.Fees.Cost(tx)); err != nil {
		return err
	}
	if err := tx.verify(); err != nil {
		return err
	}
	return p.wait(v.height, v.params.BlockBytes/2, tx)
}

// wait books tx, or refuses a second transaction with a nonce that waits, and
// one too many in room bytes.
func (p *pool) wait(height, room int64, tx Tx) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil || p.height < height { // after a block CometBFT checks again what is left
		p.height, p.waiting = height, map[peer.ID]map[uint64][32]byte{}
		p.count, p.bytes = 0, 0
	}
	b, from := tx.Body, tx.account()
	if h, ok := p.waiting[from][b.Nonce]; ok && h == tx.Hash {
		return nil
	}
	if size := int64(tx.Size); b.Nonce != 0 {
		most := maxWaiting
		if p.most > 0 {
			most, room = p.most, math.MaxInt64
		}
		if p.count >= most || p.count > 0 && p.bytes+size > room {
			return refuse(CodeStopped, "%d transactions with %d bytes wait at this node: try again after the next block", p.count, p.bytes)
		}
		defer func() {
			if err == nil {
				p.count, p.bytes = p.count+1, p.bytes+size
			}
		}()
	}
	mine := p.waiting[from]
	if mine == nil {
		mine = map[uint64][32]byte{}
		p.waiting[from] = mine
	}
	if h, ok := mine[b.Nonce]; ok {
		return refuse(CodeStale, "nonce %d of %v waits in transaction %x: use the next", b.Nonce, b.Sender, h[:4])
	}
	mine[b.Nonce] = tx.Hash
	return nil
}

// arrange picks and orders the transactions of a proposal.
func (a *App) arrange(r *abci.RequestPrepareProposal) [][]byte {
	s := a.View().scratch()
	s.height = r.Height // a report may be due in the slot that this block opens
	var lanes [laneOthers + 1][][]byte
	for _, raw := range r.Txs {
		if tx, err := a.txs.decode(raw); err == nil {
			lanes[tx.lane()] = append(lanes[tx.lane()], raw)
		}
	}
	out := make([][]byte, 0, len(r.Txs))
	left, work := r.MaxTxBytes, uint64(maxBlockWork)
	fill := func(txs [][]byte, limit int64) (rest [][]byte) {
		for _, raw := range txs {
			size := wireSize(raw)
			if size > limit || size > left {
				rest = append(rest, raw)
				continue
			}
			tx, err := a.txs.decode(raw)
			if err == nil && tx.load() > work {
				rest = append(rest, raw)
				continue
			}
			if err == nil {
				_, err = s.admit(tx)
			}
			if err != nil {
				continue
			}
			// What the message may take is gone for those behind it: else all money
			// sent away first would leave a block of transactions that cannot pay.
			if x := s.outlay(tx.Body); x <= s.free(tx.Body.Sender) {
				must(s.take(tx.Body.Sender, x))
			}
			out = append(out, raw)
			limit, left, work = limit-size, left-size, work-tx.load()
		}
		return rest
	}
	rest := fill(lanes[laneReports], r.MaxTxBytes/2)
	fill(lanes[laneAnswers], left)
	fill(lanes[laneOthers], left)
	fill(rest, left)
	return out
}

// wireSize is what a transaction takes of a block: its bytes and the protobuf
// field around them.
func wireSize(tx []byte) int64 {
	n := int64(len(tx)) + 2
	for l := len(tx); l >= 0x80; l >>= 7 {
		n++
	}
	return n
}

// acceptable checks a proposal by its bytes (see ProcessProposal).
func (a *App) acceptable(txs [][]byte) error {
	var sum int64
	var work uint64
	seen := map[[32]byte]bool{}
	for i, raw := range txs {
		tx, err := a.txs.decode(raw)
		switch {
		case err != nil:
			return fmt.Errorf("transaction %d: %w", i, err)
		case tx.Body.ChainID != a.genesis.ChainID:
			return fmt.Errorf("transaction %d: is for chain %q", i, tx.Body.ChainID)
		case seen[tx.Hash]:
			return fmt.Errorf("transaction %d: stands twice", i)
		}
		seen[tx.Hash] = true
		sum += int64(len(raw))
		work += tx.load()
	}
	if work > maxBlockWork {
		return fmt.Errorf("work of %d, at most %d", work, maxBlockWork)
	}
	if sum > a.View().params.BlockBytes {
		return errors.New("more bytes than a block may have")
	}
	return nil
}
