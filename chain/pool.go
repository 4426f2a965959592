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
// node, and five twelfths of a block how many bytes. Above that, up to a fifth
// more of both, only those are taken that pay more for a byte than others, which
// give way. So three quarters of the pool, and half a block, are what they have
// in all: what a proposer can choose from is the oldest block's worth of a pool
// that takes so many, and reports, without which validators lose their seats,
// have to find room in it (spec §2.2).
const maxWaiting = mempoolTxs * 5 / 8

// poolLimits bound what may wait.
type poolLimits struct {
	count int
	bytes int64
}

// most is how many may be there with those that gave way since the last block.
func (l poolLimits) most() int { return l.count + l.count/5 }

func (l poolLimits) mostBytes() int64 { return l.bytes + l.bytes/5 }

func (p *pool) limits(v *View) poolLimits {
	if p.most > 0 {
		return poolLimits{p.most, math.MaxInt64 / 2}
	}
	return poolLimits{maxWaiting, v.params.BlockBytes * 5 / 12}
}

// farNonce is how many transactions of one account may wait at once.
const farNonce = 64

// A pool knows which nonces wait for a block at this node, so that an account
// can send several before the first is in. It is no part of consensus.
type pool struct {
	most int // how many may wait; 0: maxWaiting

	mu        sync.Mutex // guards the fields below
	height    int64
	age       int
	waiting   map[peer.ID]map[uint64]waiter
	count     int                   // of those that are no free reports
	bytes     int64                 // of the same
	gone      map[[32]byte]struct{} // gave way since the last block
	goneBytes int64
	before    map[[32]byte]struct{} // gave way before it
}

// turn forgets what waited when a block is there: CometBFT checks again what is left.
func (p *pool) turn(height int64) {
	if p.waiting != nil && p.height >= height {
		return
	}
	p.height, p.waiting, p.count, p.bytes = height, map[peer.ID]map[uint64]waiter{}, 0, 0
	p.gone, p.before, p.goneBytes = map[[32]byte]struct{}{}, p.gone, 0
}

// gaveWay reports whether the transaction hash has to leave this node; again, when
// CometBFT checks it once more after a block.
func (p *pool) gaveWay(height int64, hash [32]byte, again bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn(height)
	_, now := p.gone[hash]
	_, before := p.before[hash]
	return now || again && before
}

// check refuses what the next blocks would refuse unpaid (spec §2.3).
func (p *pool) check(v *View, txs *txCache, raw []byte, again bool) error {
	tx, err := txs.decode(raw)
	if err != nil {
		return err
	}
	if p.gaveWay(v.height, tx.Hash, again) {
		return refuse(CodeStopped, "transaction %x gave way at this node to those that pay more for a byte: send it again, or with a bid", tx.Hash[:4])
	}
	s := v.scratch()
	b := tx.Body
	if b.Nonce == 0 {
		if _, err := s.admit(tx); err != nil {
			return err
		}
		return p.wait(v, tx, again)
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
	return p.wait(v, tx, again)
}

// wait books tx, or refuses a second transaction with a nonce that waits unless it
// pays clearly more for a byte, and one too many that pays no more than the others.
func (p *pool) wait(v *View, tx Tx, again bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn(v.height)
	b, from := tx.Body, tx.account()
	mine := p.waiting[from]
	old, there := mine[b.Nonce]
	if there && old.hash == tx.Hash {
		return nil
	}
	if there {
		if err := p.replace(v, tx, old); err != nil {
			return err
		}
		p.giveWay(from, b.Nonce, old)
	}
	w := waiter{tx.Hash, v.params.Fees.price(tx), p.age}
	if b.Nonce != 0 {
		l := p.limits(v)
		if again { // it was let in
			l = poolLimits{l.most(), l.mostBytes()}
		}
		if !p.makeRoom(from, w, l) {
			if there {
				p.comeBack(from, b.Nonce, old)
			}
			return refuse(CodeStopped, "%d transactions with %d bytes wait at this node, and too few of them pay less for a byte: try again after the next block, or with a bid", p.count, p.bytes)
		}
		p.count, p.bytes = p.count+1, p.bytes+int64(tx.Size)
	}
	if mine == nil {
		mine = map[uint64]waiter{}
		p.waiting[from] = mine
	}
	mine[b.Nonce] = w
	delete(p.before, tx.Hash) // it was sent again
	p.age++
	return nil
}

// giveWay has w of account from leave this node with the next block.
func (p *pool) giveWay(from peer.ID, nonce uint64, w waiter) {
	delete(p.waiting[from], nonce)
	p.gone[w.hash] = struct{}{}
	size := int64(w.price.size)
	p.count, p.bytes, p.goneBytes = p.count-1, p.bytes-size, p.goneBytes+size
}

// comeBack is giveWay undone.
func (p *pool) comeBack(from peer.ID, nonce uint64, w waiter) {
	p.waiting[from][nonce] = w
	delete(p.gone, w.hash)
	size := int64(w.price.size)
	p.count, p.bytes, p.goneBytes = p.count+1, p.bytes+size, p.goneBytes-size
}

// arrange picks and orders the transactions of a proposal (spec §2.2).
func (a *App) arrange(r *abci.RequestPrepareProposal) [][]byte {
	v := a.View()
	s := v.scratch()
	s.height = r.Height // a report may be due in the slot that this block opens
	var lanes [laneOthers + 1][]offer
	for i, raw := range r.Txs {
		if tx, err := a.txs.decode(raw); err == nil && !a.pool.gaveWay(v.height, tx.Hash, true) {
			lane := tx.lane()
			lanes[lane] = append(lanes[lane], offer{tx, raw, v.params.Fees.price(tx), i})
		}
	}
	out := make([][]byte, 0, len(r.Txs))
	left, work := r.MaxTxBytes, uint64(maxBlockWork)
	fill := func(offers []offer, limit int64) (rest []offer) {
		for _, o := range offers {
			size := wireSize(o.raw)
			if size > limit || size > left || o.tx.load() > work {
				rest = append(rest, o)
				continue
			}
			if _, err := s.admit(o.tx); err != nil {
				continue
			}
			// What the message may take is gone for those behind it: else all money
			// sent away first would leave a block of transactions that cannot pay.
			if x := s.outlay(o.tx.Body); x <= s.free(o.tx.Body.Sender) {
				must(s.take(o.tx.Body.Sender, x))
			}
			out = append(out, o.raw)
			limit, left, work = limit-size, left-size, work-o.tx.load()
		}
		return rest
	}
	rest := fill(lanes[laneReports], r.MaxTxBytes/2)
	fill(lanes[laneAnswers], left)
	fill(byPrice(lanes[laneOthers]), left)
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
