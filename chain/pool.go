package chain

import (
	"math"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
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

// gapPart is the part of the room in which those may wait that leave a gap: a nonce
// of their sender before theirs is neither used nor waits here. Gossip brings some
// out of order, but what fills no gap pays nothing, however long it waits.
const gapPart = 16

// A pool knows which nonces wait for a block at this node, so that an account
// can send several before the first is in. It is no part of consensus.
type pool struct {
	most int // how many may wait; 0: maxWaiting

	mu        sync.Mutex // guards the fields below
	height    int64
	age       int
	waiting   map[peer.ID]map[uint64]waiter
	was       map[peer.ID]map[uint64]waiter // what waited before the last block
	count     int                           // of those that are no free reports
	bytes     int64                         // of the same
	gaps      int                           // of the same, those that leave a gap
	gapBytes  int64
	gone      map[[32]byte]departure // gave way since the last block
	goneBytes int64
	before    map[[32]byte]departure // gave way before it
	doors     map[[32]byte]door
	status    PoolStatus // its totals
}

// A departure says to whom a transaction gave way: one of its own nonce, or another.
type departure struct {
	by  [32]byte
	bid coin.Amount // of by
	own bool
}

// turn forgets what waited when a block is there: CometBFT checks again what is left.
func (p *pool) turn(height int64) {
	if p.waiting != nil && p.height >= height {
		return
	}
	p.height, p.waiting, p.was = height, map[peer.ID]map[uint64]waiter{}, p.waiting
	p.count, p.bytes, p.gaps, p.gapBytes = 0, 0, 0, 0
	p.gone, p.before, p.goneBytes = map[[32]byte]departure{}, p.gone, 0
}

// left returns to whom the transaction hash gave way, if it has to leave this node;
// again, when CometBFT checks it once more after a block.
func (p *pool) left(height int64, hash [32]byte, again bool) (departure, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn(height)
	d, ok := p.gone[hash]
	if !ok && again {
		d, ok = p.before[hash]
	}
	return d, ok
}

// check refuses what the next blocks would refuse unpaid (spec §2.3).
func (p *pool) check(v *View, txs *txCache, raw []byte, again bool) error {
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
		return p.wait(v, tx, account{}, again)
	}
	if err := s.check(tx); err != nil {
		return err
	}
	a := accounts.must(s, b.Sender)
	switch {
	case b.Nonce <= a.Nonce:
		return p.stale(v, tx, a.Nonce)
	case b.Nonce > a.Nonce+farNonce:
		return refuse(CodeFar, "nonce %d of %v is too far: the next is %d", b.Nonce, b.Sender, a.Nonce+1)
	}
	if d, ok := p.left(v.height, tx.Hash, again); ok {
		return d.refusal(tx)
	}
	if err := payable(b, a, s.params.Fees.Cost(tx)); err != nil {
		return err
	}
	if err := tx.verify(); err != nil {
		return err
	}
	return p.wait(v, tx, a, again)
}

// wait books tx of the account a, or refuses a second transaction with a nonce that
// waits unless it pays clearly more, one that cannot pay after those of its account
// that wait, and one too many that pays no more than the others.
func (p *pool) wait(v *View, tx Tx, a account, again bool) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn(v.height)
	b, from := tx.Body, tx.account()
	old, there := p.waiting[from][b.Nonce]
	if there && old.hash == tx.Hash {
		return nil
	}
	if err := p.asked(tx, old, there); err != nil {
		return err
	}
	if there {
		if err := p.replace(v, tx, old, a); err != nil {
			return err
		}
		p.giveWay(from, b.Nonce, old, departure{tx.Hash, b.Bid, true})
		defer func() {
			if err != nil {
				p.comeBack(from, b.Nonce, old)
			} else {
				p.status.Replaced++
			}
		}()
	}
	w := waiter{hash: tx.Hash, price: v.params.Fees.price(tx), bid: b.Bid, age: p.age}
	if b.Nonce != 0 {
		if err := p.afford(v, tx, a, &w); err != nil {
			return err
		}
		l := p.limits(v)
		if again { // it was let in
			l = poolLimits{l.most(), l.mostBytes()}
		}
		if err := p.enter(from, tx, a, &w, l); err != nil {
			return err
		}
	}
	if p.waiting[from] == nil {
		p.waiting[from] = map[uint64]waiter{}
	}
	p.waiting[from][b.Nonce] = w
	delete(p.before, tx.Hash) // it was sent again
	p.age++
	return nil
}

// afford books in w what tx takes of a's money, and refuses it when the fee is more
// than what others of the account leave: else the fee of one transaction, or money
// that the first sends away, would hold the room of many (spec §2.2).
func (p *pool) afford(v *View, tx Tx, a account, w *waiter) error {
	free := a.Free
	for _, x := range p.waiting[tx.Body.Sender] {
		free -= min(free, x.takes)
	}
	if w.price.fee > free {
		return refuse(CodeShort, "account %v has %v free, of which what waits for a block takes %v, and the fee is %v: add funds, or try again after the next block", tx.Body.Sender, a.Free, a.Free-free, w.price.fee)
	}
	w.takes = w.price.fee
	if x := v.scratch().outlay(tx.Body); x <= free-w.takes {
		w.takes += x
	}
	return nil
}

// enter makes room for w and counts it.
func (p *pool) enter(from peer.ID, tx Tx, a account, w *waiter, l poolLimits) error {
	nonce, size := tx.Body.Nonce, int64(tx.Size)
	next := p.free(from, a.Nonce)
	w.gap = next < nonce
	switch {
	case w.gap && (p.gaps >= max(1, l.count/gapPart) || p.gapBytes+size > l.bytes/gapPart):
		return refuse(CodeFar, "nonce %d of %v leaves a gap, and %d such transactions with %d bytes wait at this node: send nonce %d first", nonce, tx.Body.Sender, p.gaps, p.gapBytes, next)
	case !p.makeRoom(from, *w, l):
		return refuse(CodeStopped, "%d transactions with %d bytes wait at this node, and too few of them pay less for a byte: try again after the next block, or with a bid", p.count, p.bytes)
	}
	p.tally(*w, 1)
	return nil
}

// free returns the first nonce above used with which nothing of from waits.
func (p *pool) free(from peer.ID, used uint64) uint64 {
	next := used + 1
	for mine := p.waiting[from]; ; next++ {
		if _, ok := mine[next]; !ok {
			return next
		}
	}
}

// tally counts w in, or with by -1 out.
func (p *pool) tally(w waiter, by int) {
	size := int64(by * w.price.size)
	p.count, p.bytes = p.count+by, p.bytes+size
	if w.gap {
		p.gaps, p.gapBytes = p.gaps+by, p.gapBytes+size
	}
}

// giveWay has w of account from leave this node with the next block.
func (p *pool) giveWay(from peer.ID, nonce uint64, w waiter, d departure) {
	delete(p.waiting[from], nonce)
	p.gone[w.hash] = d
	p.goneBytes += int64(w.price.size)
	p.tally(w, -1)
}

// comeBack is giveWay undone.
func (p *pool) comeBack(from peer.ID, nonce uint64, w waiter) {
	p.waiting[from][nonce] = w
	delete(p.gone, w.hash)
	p.goneBytes -= int64(w.price.size)
	p.tally(w, 1)
}
